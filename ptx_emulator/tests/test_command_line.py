"""python -m ptx_emulator: what it prints, and its exit status."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ptx_emulator
from ptx_emulator.__main__ import main
from ptx_emulator.cli import formats

from .compile import kernel_ptx
from .ptx_kernel import kernel
from .small_kernels import RACY, SCALE, TICKETS, UNKNOWN

BOUNDED = kernel("ret;", "", name="bounded").replace(
    "\n{",
    "\n.reqntid 64, 2, 1 .reqnctapercluster 2 .minnctapersm 3 .maxnreg 40 {\n.shared .b8 s[48];",
    1,
)
ENVIRONMENT = {n: v for n, v in os.environ.items() if n in ("PATH", "XDG_CACHE_HOME", "HOME")}
SCALE_ARGS = [
    "--block",
    "64",
    "--arg",
    "f32[64]=arange",
    "--arg",
    "f32[64]=empty",
    "--arg",
    "f32:2",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the modules in it."""
    monkeypatch.chdir(tmp_path)
    modules = {"scale": SCALE, "racy": RACY, "tickets": TICKETS, "bounded": BOUNDED}
    for name, text in {**modules, "unknown": UNKNOWN}.items():
        (tmp_path / f"{name}.ptx").write_text(text)
    (tmp_path / "two.ptx").write_text(SCALE + RACY.split(".address_size 64\n")[1])
    return tmp_path


def command(capsys, *words):
    """The exit status and what went to stdout and stderr."""
    try:
        status = main(list(words))
    except SystemExit as error:
        status = error.code
    return (status, *capsys.readouterr())


# -- check


def test_check_lists_what_a_launch_needs(folder, capsys):
    status, out, _ = command(capsys, "check", "bounded.ptx", "scale.ptx")
    assert status == 0
    for line in (
        "bounded.ptx: kernels for sm_90a",
        "bounded (line",
        "block must be: 64,2,1",
        "cluster must be: 2,1,1",
        "registers of a thread, at most: 40",
        "blocks of an SM, at least: 3",
        "static shared memory: 48 bytes",
        "argument 1: 8 bytes at 8, y",
        "argument 2: 4 bytes at 16, factor",
        "not modelled: nothing",
    ):
        assert line in out


def test_check_names_all_that_is_not_modelled(folder, capsys):
    status, out, _ = command(capsys, "check", "scale.ptx", "unknown.ptx")
    assert status == 1
    lines = UNKNOWN.splitlines()
    first, second = (
        next(i for i, line in enumerate(lines, 1) if word in line)
        for word in ("frobnicate", "add.u32.odd")
    )
    assert f"unknown.ptx:{first}: frobnicate.b32: unknown instruction" in out
    assert f"unknown.ptx:{second}: add.u32.odd: not modelled: .odd" in out
    assert "not modelled: 2" in out


# -- run


def test_run_prints_and_saves_what_has_changed(folder, capsys):
    status, out, err = command(capsys, "run", "scale.ptx", *SCALE_ARGS, "--save", "1=y.npy")
    assert status == 0 and not err
    assert re.search(r"argument 1: f32\[64\], CRC-32 [0-9a-f]{8}, 0 2 4 6 8 10 12 14 \.\.\.", out)
    assert "argument 0" not in out
    np.testing.assert_array_equal(np.load("y.npy"), np.arange(64, dtype=np.float32) * 2)


def test_run_says_that_nothing_has_changed(folder, capsys):
    words = ["run", "bounded.ptx", "--grid", "2"]
    assert "no array has changed" in command(capsys, *words)[1]


@pytest.mark.parametrize("mode", ["eager", "random", "late"])
def test_run_reports_a_race(folder, capsys, mode):
    words = ["racy.ptx", "--block", "64", "--arg", "u32[64]=arange", "--arg", "u32[64]=empty"]
    status, out, _ = command(capsys, "run", *words, "--mode", mode, "--seed", "3")
    assert status == 1
    assert out.startswith("Race: racy:") and "are not ordered" in out


def test_races_are_never_switched_off_silently(folder, capsys):
    words = ["racy.ptx", "--block", "64", "--arg", "u32[64]=arange", "--arg", "u32[64]=empty"]
    status, _, err = command(capsys, "run", *words, "--no-races")
    assert status == 0
    assert "RACES WERE NOT LOOKED FOR" in err
    status, _, err = command(capsys, "race", *words, "--no-races")
    assert status == 2 and "--no-races" in err


def test_what_is_not_modelled_does_not_run(folder, capsys):
    status, out, _ = command(capsys, "run", "unknown.ptx", "--block", "32")
    assert status == 1 and out.startswith("Unsupported:") and "frobnicate" in out


def test_a_limit_is_a_failure_of_the_launch(folder, capsys):
    status, out, _ = command(capsys, "run", "scale.ptx", *SCALE_ARGS, "--shared", "999999")
    assert status == 1 and out.startswith("LimitError:")


def test_coarse_fp8_reaches_the_launch(folder, capsys):
    (folder / "own.py").write_text(
        "def run(module, **options):\n    print(sorted(options.items()))\n"
    )
    status, out, _ = command(capsys, "run", "scale.ptx", "--launch", "own.py", "--coarse-fp8")
    assert status == 0
    assert "[('coarse_fp8', True), ('mode', 'eager'), ('seed', 0)]" in out


# -- race


def test_race_has_a_line_for_each_schedule(folder, capsys):
    status, out, _ = command(capsys, "race", "scale.ptx", *SCALE_ARGS, "--seeds", "3")
    assert status == 0
    names = [line.split()[0] for line in out.splitlines()]
    assert names == ["eager", "late", "random", "random", "random", "no"]


def test_race_stops_at_the_first_failure_and_says_how_to_have_it_again(folder, capsys):
    words = ["--block", "64", "--arg", "u32[64]=arange", "--arg", "u32[64]=empty"]
    status, out, _ = command(capsys, "race", "racy.ptx", *words)
    assert status == 1
    assert out.startswith("eager      FAILED\n\nRace: racy:")
    again = out.splitlines()[-1].strip()
    status, repeated, _ = command(capsys, *shlex.split(again)[3:])
    assert status == 1
    assert repeated.strip() in out


def test_race_finds_results_that_depend_on_the_schedule(folder, capsys):
    words = ["--grid", "8", "--block", "1", "--arg", "u32[1]=zeros", "--arg", "u32[8]=empty"]
    status, out, _ = command(capsys, "race", "tickets.ptx", *words, "--seeds", "20")
    assert status == 1
    assert re.search(r"random \d+ +FAILED", out)
    assert re.search(r"argument 1 depends on the schedule: \d of 8 elements differ", out)


# -- --launch

LAUNCH = """
import numpy as np
def run(module, **options):
    x, y = np.ones(64, np.float32), np.empty(64, np.float32)
    launch = module.launch("scale", 1, 64, [x, y, 3.0], **options)
    assert (y == 3).all()
    return launch
def check(mode):
    assert mode != "late", "late is wrong"
def wrong(module, **options):
    run(module, **options)
    check(options["mode"])
def broken(module, **options):
    module.launch("scale", 1, 64, [])
def missing(module, **options):
    module.launch("other", 1, 64, [])
not_callable = 3
"""


def test_launch_by_a_function(folder, capsys):
    (folder / "own.py").write_text(LAUNCH)
    assert command(capsys, "run", "scale.ptx", "--launch", "own.py")[0] == 0
    assert command(capsys, "race", "scale.ptx", "--launch", "own.py:run")[0] == 0


def test_an_assertion_of_the_function_is_a_wrong_result(folder, capsys):
    (folder / "own.py").write_text(LAUNCH)
    status, out, _ = command(capsys, "race", "scale.ptx", "--launch", "own.py:wrong")
    assert status == 1
    line = next(i for i, text in enumerate(LAUNCH.splitlines(), 1) if "late is wrong" in text)
    assert "late       FAILED\n\nwrong result: late is wrong\n" in out
    assert f"own.py:{line}: assert mode" in out
    assert "run scale.ptx --launch own.py:wrong --mode late --seed 0" in out


@pytest.mark.parametrize(
    "launch, message",
    [
        ("own.py:broken", "takes 3 arguments, got 0"),
        ("own.py:missing", "no kernel other; there are scale"),
        ("own.py:none", "own.py has no function none"),
        ("own.py:not_callable", "own.py has no function not_callable"),
        ("absent.py", "cannot read absent.py"),
        ("scale.ptx", "a Python file is expected"),
        ("syntax.py", "syntax.py: SyntaxError"),
        ("imports.py", "imports.py: ModuleNotFoundError"),
    ],
)
def test_errors_of_a_launch_file(folder, capsys, launch, message):
    (folder / "own.py").write_text(LAUNCH)
    (folder / "syntax.py").write_text("def run(")
    (folder / "imports.py").write_text("import a_module_that_is_not_there")
    status, _, err = command(capsys, "run", "scale.ptx", "--launch", launch)
    assert status == 2 and message in err and "Traceback" not in err


# -- profile


def test_profile_reports(folder, capsys):
    status, out, _ = command(capsys, "profile", "scale.ptx", *SCALE_ARGS)
    assert status == 0 and "scale" in out
    status, out, _ = command(capsys, "profile", "scale.ptx", *SCALE_ARGS, "--json")
    assert status == 0
    made = json.loads(out)
    assert made["launch"]["kernel"] == "scale"
    assert made["memory"]["global"]["all"]["read_bytes"] == 64 * 4


def test_profile_needs_a_launch_that_goes_well_and_is_returned(folder, capsys):
    words = ["--block", "64", "--arg", "u32[64]=arange", "--arg", "u32[64]=empty"]
    status, out, _ = command(capsys, "profile", "racy.ptx", *words)
    assert status == 1 and out.startswith("Race: racy:")
    (folder / "own.py").write_text(LAUNCH.replace("return launch", "return None"))
    status, _, err = command(capsys, "profile", "scale.ptx", "--launch", "own.py")
    assert status == 2 and "has to return what module.launch gave" in err


# -- mutate


def test_mutate_holds_mutants_against_the_original(folder, capsys):
    words = ["mutate", "scale.ptx", *SCALE_ARGS, "--jobs", "1"]
    status, out, _ = command(capsys, *words)
    assert status == 0
    assert out.splitlines()[1].split() == ["drop", "store", "1", "1", "0", "0", "0", "0", "1"]
    status, out, _ = command(capsys, *words, "--json", "--every-run")
    made = json.loads(out)
    assert status == 0 and made["survivors"] == []
    assert made["counts"]["drop store"]["every run"] == 1


def test_mutate_tells_what_goes_unnoticed(folder, capsys):
    (folder / "own.py").write_text(LAUNCH.replace("assert (y == 3).all()", "pass"))
    words = ["mutate", "scale.ptx", "--launch", "own.py", "--jobs", "1"]
    status, out, _ = command(capsys, *words)
    assert status == 1 and "survivors:\ndrop store at PTX line" in out


def test_mutate_needs_an_original_that_passes(folder, capsys):
    words = ["--block", "64", "--arg", "u32[64]=arange", "--arg", "u32[64]=empty"]
    status, out, _ = command(capsys, "mutate", "racy.ptx", *words)
    assert status == 1 and out.startswith("the original does not pass: Race: racy:")
    status, _, err = command(capsys, "mutate", "scale.ptx", *SCALE_ARGS, "--jobs", "0")
    assert status == 2 and "--jobs has to be at least 1; got 0" in err


# -- flags; test_cpp.py uses them


def test_flags_name_the_library_and_the_header(capsys):
    status, out, _ = command(capsys, "flags")
    words = shlex.split(out)
    assert status == 0
    assert (Path(words[words.index("-iquote") + 1]) / "ptx_emulator.h").is_file()
    assert any(word.endswith(".so") and Path(word).is_file() for word in words)


# -- Usage


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "required: command"),
        (["frobnicate"], "invalid choice"),
        (["check"], "required: module.ptx"),
        (["check", "absent.ptx"], "cannot read absent.ptx: No such file"),
        (["check", "."], "cannot read .: Is a directory"),
        (["check", "binary.ptx"], "is no text"),
        (["check", "garbage.ptx"], "this is no PTX: line 1"),
        (["run", "two.ptx"], "--kernel is needed, one of scale, racy"),
        (["run", "scale.ptx", "--kernel", "other"], "no kernel other; there are scale"),
        (["run", "scale.ptx", "--block", "32"], "factor (4 bytes)) takes 3 arguments, got 0"),
        (["run", "scale.ptx", *SCALE_ARGS[2:]], "--block is needed, as scale requires none"),
        (["run", "scale.ptx", "--grid", "1,2,3,4"], "--grid: invalid"),
        (["run", "scale.ptx", "--grid", "many"], "--grid: invalid"),
        (["run", "scale.ptx", *SCALE_ARGS, "--grid", "-1"], "grid: -1 is out of range"),
        (["run", "scale.ptx", *SCALE_ARGS, "--grid", "4294967297"], "is out of range"),
        (["race", "scale.ptx", *SCALE_ARGS, "--seeds", "-1"], "--seeds has to be at least 0"),
        (["check", "empty.ptx"], "empty.ptx: this is no PTX: "),
        (["run", "scale.ptx", "--mode", "lazy"], "invalid choice: 'lazy'"),
        (["run", "scale.ptx", *SCALE_ARGS, "--save", "y.npy"], "--save: invalid"),
        (["run", "scale.ptx", *SCALE_ARGS, "--save", "2=y.npy"], "argument 2 is no array"),
        (["run", "scale.ptx", *SCALE_ARGS, "--save", "1=no/y.npy"], "cannot write no/y.npy"),
        (["run", "scale.ptx", *SCALE_ARGS, "--launch", "own.py"], "goes without --block"),
    ],
)
def test_usage_errors_are_said_without_a_traceback(folder, capsys, words, message):
    (folder / "binary.ptx").write_bytes(b"\x7fELF\xff\xfe")
    (folder / "garbage.ptx").write_text("int main() {}\n")
    (folder / "empty.ptx").touch()
    status, out, err = command(capsys, *words)
    assert status == 2
    assert message in err
    assert "Traceback" not in out + err


def test_as_a_process(folder):
    """The status and the streams as a shell sees them."""
    words = [sys.executable, "-m", "ptx_emulator"]
    root = str(Path(ptx_emulator.__file__).parents[1])

    def run(*more):
        return subprocess.run(
            [*words, *more], capture_output=True, text=True, env={"PYTHONPATH": root, **ENVIRONMENT}
        )

    assert run("check", "scale.ptx").returncode == 0
    failed = run("check", "absent.ptx")
    assert failed.returncode == 2 and failed.stdout == ""
    assert failed.stderr.startswith("python -m ptx_emulator check: cannot read absent.ptx")
    racy = ["racy.ptx", "--block", "64", "--arg", "u32[64]=arange", "--arg", "u32[64]=empty"]
    assert run("race", *racy).returncode == 1
    listed = run("race", "--help").stdout
    assert "--arg" in listed and "CONTENTS is" in listed


# -- Arguments, beside test_command_line_arguments.py


def test_a_number_of_another_size_is_refused(folder, capsys):
    words = [*SCALE_ARGS[:-1], "f64:2"]
    status, _, err = command(capsys, "run", "scale.ptx", *words)
    assert status == 2 and "argument 2 has 8 bytes, the parameter has 4" in err


def test_tensor_maps_reach_the_kernel(folder, capsys):
    (folder / "ring.ptx").write_text(kernel_ptx("gemm_ring"))
    words = ["ring.ptx", "--block", "384", "--shared", "131136"]
    for argument in (
        "map:bf16[128,64]=normal;box=64,128;swizzle=128",
        "map:bf16[64,64]=ones;box=64,64;swizzle=128",
        "map:f32[128,64]=empty;box=64,64",
        "i32:64",
    ):
        words += ["--arg", argument]
    words += ["--save", "0=a.npy", "--save", "2=c.npy"]
    assert command(capsys, "run", *words)[0] == 0
    sums = formats.decode(np.load("a.npy"), "bf16").astype(np.float64).sum(1)
    np.testing.assert_allclose(np.load("c.npy"), np.repeat(sums[:, None], 64, 1), atol=1e-4)
    words = [word.replace("=normal;", "=empty;") for word in words]
    status, out, _ = command(capsys, "run", *words)
    assert status == 1 and re.match(r"MemoryFault: .*argument 0 \+ 0 that nobody has written", out)
