"""The commands, end to end: what they print, their JSON, their exit status."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import shlex
import subprocess
import sys

import pytest
import torch

from dsa_kernels import __main__ as command_line, _gpu
from dsa_kernels._op import OPS
from dsa_kernels.cli import bench, fuzz, output
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import random_case, watched_run


def run(capsys, *argv) -> tuple[int, str]:
    """Exit status and stdout, which must fit 80 columns (failure reports apart)."""
    status = command_line.main(list(argv))
    text = capsys.readouterr().out
    if "--json" not in argv and status == 0:
        for line in text.splitlines():
            assert len(line) <= output.WIDTH, line
    return status, text


def plant(monkeypatch, op: str, backend: str, spoil) -> None:
    """`spoil(*args)` runs after `backend`'s implementation of `op`."""
    right = OPS[op]._overloads[backend]

    def wrong(*args):
        right(*args)
        spoil(*args)

    monkeypatch.setitem(OPS[op]._overloads, backend, wrong)


@pytest.mark.parametrize(
    "argv", [["--help"], ["info", "--help"], ["bench", "--help"], ["fuzz", "--help"]]
)
def test_help_fits_the_terminal(capsys, argv, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        command_line.main(argv)
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(len(line) <= output.WIDTH for line in text.splitlines())
    if argv == ["--help"]:
        assert all(name in text for name in command_line.COMMANDS)


def test_unknown_op_lists_the_ops(capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.main(["fuzz", "--op", "topk"])
    assert stop.value.code == 2
    assert "no op 'topk'; ops are" in capsys.readouterr().err


def test_info(capsys):
    status, text = run(capsys, "info")
    assert status == 0
    assert all(op in text for op in OPS)
    assert f"torch       {torch.__version__}" in text
    assert "tilelang (all ops): this version has no tilelang implementation for cpu" in text


def test_info_says_that_it_sees_no_gpu(capsys, monkeypatch):
    """Without a GPU every backend counts as one that runs, so that calls can be traced for one."""
    said = "No GPU is seen here."
    monkeypatch.setattr(_gpu, "current", lambda: None)
    assert said in run(capsys, "info", "--device", "cuda")[1]
    assert json.loads(run(capsys, "info", "--device", "cuda", "--json")[1])["gpu"] is None
    assert said not in run(capsys, "info")[1]
    monkeypatch.setattr(_gpu, "current", lambda: "sm_90")
    text = run(capsys, "info", "--device", "cuda")[1]
    assert said not in text and "gpu         sm_90" in text


def test_info_json_as_a_program():
    """The one subprocess: `python -m dsa_kernels` works and prints nothing but JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "dsa_kernels", "info", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    facts = json.loads(done.stdout)
    assert set(facts["ops"]) == set(OPS)
    for op, entry in facts["ops"].items():
        assert entry["available"] == list(OPS[op].backends())
        assert not set(entry["available"]) & set(entry["unavailable"])


def test_info_says_why_an_op_has_no_native_backend(capsys, monkeypatch):
    monkeypatch.setitem(OPS["topk_indices"]._available, ("native", "cpu"), False)
    _, text = run(capsys, "info")
    assert "native (topk_indices): the extension has no CPU kernel for this op" in text


def test_bench(capsys):
    status, text = run(capsys, "bench", "--op", "indices_to_slots", "--quick")
    assert status == 0
    assert "indices_to_slots" in text
    assert next(w for w in text.splitlines() if w.startswith("shape")).split() == [
        "shape",
        "backend",
        "time",
        "GFLOP/s",
        "GB/s",
        "error",
    ]


def test_bench_json(capsys):
    status, text = run(
        capsys, "bench", "--op", "topk_indices", "--shape", "decode-8k", "--quick", "--json"
    )
    assert status == 0
    rows = json.loads(text)["results"]
    assert [r["backend"] for r in rows] == list(OPS["topk_indices"].backends())
    for row in rows:
        assert row["shape"] == "v32-decode-8k"
        assert row["parameters"] == case("topk_indices").BENCH["v32-decode-8k"]
        assert row["seconds"] > 0
        assert row["error"] == 0.0


def test_bench_filters(capsys):
    _, text = run(capsys, "bench", "--list")
    assert len({line.split()[0] for line in text.splitlines()}) == len(OPS)
    _, text = run(capsys, "bench", "--list", "--op", "mqa_logits", "--shape", "128k")
    named = [name for name in case("mqa_logits").BENCH if "128k" in name]
    assert text.split() == [word for name in named for word in ("mqa_logits", name)]
    assert named
    assert run(capsys, "bench", "--list", "--shape", "no such shape")[0] == 2


def test_bench_of_a_missing_backend(capsys):
    status, text = run(capsys, "bench", "--op", "topk_indices", "--backend", "tilelang", "--quick")
    assert status == 2
    assert text == (
        "tilelang cannot run on cpu: this version has no tilelang implementation for cpu\n"
    )
    status, text = run(capsys, "bench", "--backend", "tilelang", "--shape", "no such shape")
    assert status == 2 and text.startswith("no shape fits")


def test_the_emulator_is_missing_before_its_code_is(capsys, monkeypatch, tmp_path):
    """As from a wheel, which has neither: `make ptx` would be no help."""
    monkeypatch.setenv("DSA_CUDA_CODE", str(tmp_path))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "ptx_emulator" else find_spec(n)
    )
    monkeypatch.setitem(OPS["topk_indices"]._available, ("emulated", "cpu"), False)
    argv = ["bench", "--op", "topk_indices", "--backend", "emulated", "--quick"]
    status, text = run(capsys, *argv)
    assert status == 2
    assert "emulated cannot run on cpu: ptx_emulator is not importable: it is part" in text


def test_bench_does_not_wait_for_the_reference():
    shape = case("mqa_logits").BENCH["v32-prefill-512x8k"]
    row = bench.run_row("mqa_logits", "name", shape, "reference", budget=0.0, asked=False)
    assert row["seconds"] is None
    assert row["error"] is None


def test_bench_reports_a_wrong_backend(capsys, monkeypatch):
    plant(monkeypatch, "indices_to_slots", "reference", lambda *args: args[-1].add_(1))
    status, text = run(capsys, "bench", "--op", "indices_to_slots", "--quick")
    assert status == 1
    assert "FAIL" in text
    assert "counts: 2 of 2 elements differ" in text


def test_fuzz_meets_every_op(capsys):
    status, text = run(capsys, "fuzz", "--cases", str(len(OPS)), "--seed", "7", "--json")
    report = json.loads(text)
    assert status == 0, report["failures"]
    assert report["cases"] == len(OPS)
    assert report["ops"] == sorted(OPS)


def test_fuzz_of_a_backend_with_itself(capsys):
    status, text = run(
        capsys,
        *("fuzz", "--op", "topk_indices", "--seconds", "0.2", "--backends", "reference,reference"),
    )
    assert status == 0
    assert "1 op in" in text
    assert "reference against reference: no failures" in text


def test_fuzz_of_a_missing_backend(capsys):
    assert command_line.main(["fuzz", "--op", "topk_indices", "--backends", "tilelang,native"]) == 2
    assert "no tilelang implementation" in capsys.readouterr().err


def test_fuzz_finds_a_planted_disagreement_and_the_command_repeats_it(capsys, monkeypatch):
    with monkeypatch.context() as patch:
        plant(patch, "topk_indices", "reference", lambda *args: args[-1][-1, -1].add_(1))
        argv = ["fuzz", "--op", "topk_indices", "--cases", "3", "--seed", "40", "--json"]
        status, text = run(capsys, *argv)
        assert status == 1
        failures = json.loads(text)["failures"]
        assert [f["seed"] for f in failures] == [40, 41, 42]

        command = failures[1]["command"]
        assert command == (
            "python -m dsa_kernels fuzz --op topk_indices --seed 41 --backends native,reference"
        )
        status, text = run(capsys, *shlex.split(command)[3:], "--json")
        again = json.loads(text)
        assert status == 1
        assert again["cases"] == 1
        assert again["failures"] == [failures[1]]

        status, text = run(capsys, *shlex.split(command)[3:])
        assert status == 1
        assert f"  again: {command}\n" in text
    assert run(capsys, *shlex.split(command)[3:])[0] == 0


@pytest.mark.parametrize("op", sorted(OPS))
def test_a_seed_is_one_case(op):
    (shape, first), (same, second) = random_case(op, 5), random_case(op, 5)
    assert shape == same == json.loads(json.dumps(shape))
    for a, b in zip(first, second, strict=True):
        if isinstance(a, torch.Tensor):
            assert a.stride() == b.stride()
            assert torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
        else:
            assert a == b
    assert random_case(op, 6)[0] != shape


def test_max_failures(capsys, monkeypatch):
    monkeypatch.setattr(fuzz, "run_case", lambda *args: "planted")
    argv = ["fuzz", "--op", "topk_indices", "--cases", "50", "--backends", "reference,reference"]
    status, text = run(capsys, *argv, "--max-failures", "2")
    assert status == 1
    assert text.count("FAIL topk_indices: planted") == 2


def test_a_write_outside_the_output_is_seen(monkeypatch):
    def spoil(*args):
        out = args[-1]
        out.as_strided((1,), (1,), out.storage_offset() + out.numel()).fill_(0)

    plant(monkeypatch, "topk_indices", "reference", spoil)
    shape = dict(num_rows=2, seq_len=9, topk=3)
    args = case("topk_indices").make(torch.Generator(), **shape)
    with pytest.raises(AssertionError, match=r"out: out-of-bounds write: 4 byte\(s\)"):
        watched_run(OPS["topk_indices"], args, "reference")


def test_a_write_into_an_input_is_seen(monkeypatch):
    plant(monkeypatch, "topk_indices", "reference", lambda scores, *rest: scores[0, 0].fill_(9))
    args = case("topk_indices").make(torch.Generator(), num_rows=2, seq_len=9, topk=3)
    with pytest.raises(AssertionError, match="scores is an input and was written"):
        watched_run(OPS["topk_indices"], args, "reference")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("with_rich", [True, False])
def test_progress_is_on_stderr_and_leaves_nothing(monkeypatch, capsys, with_rich):
    if with_rich:
        pytest.importorskip("rich")
    else:
        monkeypatch.setitem(sys.modules, "rich", None)
    terminal = Terminal()
    with contextlib.redirect_stderr(terminal), output.progress(4) as bar:
        bar.update(1, "one of four")
        with bar.pause():
            print("a result")
        bar.update(4, "four of four")
    assert capsys.readouterr().out == "a result\n"
    if not with_rich:
        drawn = terminal.getvalue().split("\r")
        assert f"[{'#' * 8}{'.' * 22}]  25% one of four" in drawn[1]
        assert drawn[-2].strip() == drawn[-1] == ""


def test_no_progress_without_a_terminal(capsys):
    with output.progress(4) as bar:
        bar.update(2, "half")
    assert capsys.readouterr().err == ""


def test_numbers():
    values = [1.234e-7, 9.9996e-4, 0.0125, 1.5, 250.0]
    assert [output.seconds(v) for v in values] == [
        "0.123 us",
        "1.00 ms",
        "12.5 ms",
        "1.50 s",
        "250 s",
    ]
    assert [output.number(v) for v in (0.0004, 0.5, 1.0, 12.34, 1234.5)] == [
        "0.000",
        "0.500",
        "1.00",
        "12.3",
        "1234",
    ]
