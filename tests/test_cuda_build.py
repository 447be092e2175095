"""How the CUDA kernels are built and launched, apart from what they compute."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from csrc.cuda import build, sass_check

ROOT = Path(__file__).parent.parent
nvcc, told = build.usable_nvcc()
needs_nvcc = pytest.mark.skipif(nvcc is None, reason=told)


@needs_nvcc
def test_driver_declarations_are_those_of_the_header():
    include = Path(nvcc).resolve().parents[1] / "include"
    if not (include / "cuda.h").is_file():
        include = Path("/usr/local/cuda/include")
    command = [os.environ.get("CXX", "g++"), "-std=c++20", "-fsyntax-only", "-Wall", "-Werror"]
    command += ["-I", str(ROOT / "csrc"), "-isystem", str(include)]
    command.append(str(ROOT / "tests" / "cuda" / "driver_abi.cpp"))
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def run_build(*arguments, **environment):
    command = [sys.executable, "-m", "csrc.cuda.build", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def test_without_nvcc_nothing_is_built(tmp_path):
    done = run_build("--out", str(tmp_path), DSA_CUDA="0")
    assert done.returncode == 0 and "left out: DSA_CUDA=0" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("Cuda compilation tools, release 12.4, V12.4.131", "nvcc 12.4 is older than 13"),
        ("a wrapper", "--version names no release"),
    ],
)
def test_an_old_nvcc_is_none(tmp_path, says, reason):
    fake, out = tmp_path / "nvcc", tmp_path / "out"
    fake.write_text(f"#!/bin/sh\necho '{says}'\n")
    fake.chmod(0o755)
    for wanted, fails in (("auto", False), ("1", True)):
        done = run_build("--out", str(out), DSA_CUDA=wanted, NVCC=str(fake))
        assert bool(done.returncode) == fails and f"{reason}." in done.stderr
    assert not out.exists()


def run_setup(folder, *arguments, **environment):
    command = [sys.executable, "setup.py", "-q", *map(str, arguments)]
    env = {**os.environ, **environment}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_fatbins_of_an_earlier_build_do_not_stay(tmp_path):
    stale = tmp_path / "lib" / "dsa_kernels" / "cuda" / "gone.sm90.fatbin"
    stale.parent.mkdir(parents=True)
    stale.touch()
    options = ("egg_info", "--egg-base", tmp_path, "build_py", "--build-lib", tmp_path / "lib")
    run_setup(ROOT, *options, DSA_CUDA="0")
    assert (tmp_path / "lib" / "dsa_kernels" / "py.typed").exists() and not stale.exists()


@pytest.fixture
def unpacked_sdist(tmp_path):
    """Made of a copy: an sdist is put together in the folder that it is of."""
    tree = tmp_path / "tree"
    unwanted = shutil.ignore_patterns("__pycache__", "*.so", "*.ptx", "*.fatbin", "*.key")
    for name in ("csrc", "dsa_kernels", "tilelang_kernels", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=unwanted)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    (tree / "csrc" / "cuda" / "build.cpython-311.pyc").touch()
    run_setup(tree, "sdist", "--dist-dir", tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "sdist")
    (folder,) = (tmp_path / "sdist").iterdir()
    return folder


def test_the_sdist_has_what_a_build_needs(unpacked_sdist):
    def files(root):
        return {p.relative_to(root) for p in root.glob("csrc/**/*") if p.is_file()}

    assert files(unpacked_sdist) == {p for p in files(ROOT) if p.suffix != ".pyc"}
    assert not (unpacked_sdist / "tests").exists()


@pytest.mark.slow
def test_the_sdist_makes_a_wheel(unpacked_sdist, tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps"]
    command += ["--wheel-dir", str(tmp_path), str(unpacked_sdist)]
    done = subprocess.run(command, env={**os.environ, "DSA_CUDA": "0"}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "dsa_kernels/_C.abi3.so" in names and "dsa_kernels/py.typed" in names
    assert not [n for n in names if "/cuda/" in n or n.startswith("csrc")]


@needs_nvcc
def test_ptx_is_built_once_and_again_after_a_change(tmp_path):
    arguments = ("--out", str(tmp_path), "--ptx-only", "--op", "topk_indices")
    assert run_build(*arguments).returncode == 0
    (ptx,) = tmp_path.glob("*.ptx")
    before = ptx.stat().st_mtime_ns
    assert run_build(*arguments).returncode == 0
    assert ptx.stat().st_mtime_ns == before
    assert run_build(*arguments, "--fault", "999").returncode == 0
    assert ptx.stat().st_mtime_ns > before


@pytest.mark.parametrize(
    "line",
    [
        "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are ...",
        "    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads",
        "    0 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads",
        "ptxas warning : Local memory used",
    ],
)
def test_what_ptxas_says_is_read(line):
    clean = "ptxas info    : Used 168 registers\n    " + build.CLEAN + "\n"
    assert build.complaints(clean) == []
    assert build.complaints(clean + line) == [line]


SASS = """
\t\tFunction : tiny
        /*0000*/                   MOV R1, c[0x0][0x28] ;   /* 0x0 */
        /*0010*/                   UTMALDG.2D [UR8], [UR4] ;
        /*0020*/               @P0 BRA.U.ANY 0x10 ;
        /*0030*/                   QGMMA.64x256x32.F32.E4M3.E4M3 R24, gdesc[UR4], R24 ;
        /*0040*/                   FFMA R2, R3, R4, R5 ;
        /*0050*/              @!P1 BRA 0x30 ;
        /*0060*/                   STL [R1], R2 ;
        /*0070*/               @P2 BRA 0x0 ;
        /*0080*/                   EXIT ;
"""


def test_loops_of_machine_code_are_found():
    code = sass_check.functions(SASS)["tiny"]
    assert [opcode.split(".")[0] for _, opcode, _ in code][:3] == ["MOV", "UTMALDG", "BRA"]
    ranges = sass_check.loops(code)
    assert ranges == [(3, 5), (0, 7)]
    assert sass_check.main_loop(code, ranges, sass_check.LOOPS["products"]) == 3
    assert sass_check.main_loop(code, ranges, sass_check.LOOPS["copies"]) == 8
    assert sass_check.main_loop(code, ranges, sass_check.LOOPS["accesses"]) is None


def test_machine_code_that_changed_is_complained_of():
    kernel = {
        "registers": 100,
        "shared": 1024,
        "local": 0,
        "instructions": {"QGMMA": 4},
        "loops": {"products": 100},
    }
    assert sass_check.complaints({"k": kernel}, {"k": kernel}) == []
    for change, text in (
        ({"registers": 101}, "101 registers"),
        ({"local": 8}, "local memory"),
        ({"shared": 0}, "0 bytes of shared memory, expected 1024"),
        ({"instructions": {}}, "expected {'QGMMA': 4}"),
        ({"loops": {"products": 103}}, "loop of products: 103"),
        ({"loops": {}}, "loop of products: None"),
    ):
        (line,) = sass_check.complaints({"k": kernel}, {"k": kernel | change})
        assert text in line
    assert sass_check.complaints({"k": kernel}, {})[0] == "k: there is no such kernel"
    assert "not in sass.json" in sass_check.complaints({}, {"k": kernel})[0]


@pytest.mark.slow
@needs_nvcc
def test_all_kernels_compile_clean_and_are_as_expected():
    """`make cuda`, then `make sass-check`."""
    assert run_build().returncode == 0
    command = [sys.executable, "-m", "csrc.cuda.sass_check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@needs_nvcc
def test_the_wheel_has_the_fatbins(tmp_path):
    run_setup(ROOT, "bdist_wheel", "--dist-dir", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = {n.partition("cuda/")[2] for n in archive.namelist() if "/cuda/" in n}
    assert found == {f"{s.parent.name}.{s.stem}.fatbin" for s in build.sources()}


def test_code_directory_of_the_environment(tmp_path, monkeypatch):
    from dsa_kernels import _cuda

    monkeypatch.setenv("DSA_CUDA_CODE", str(tmp_path))
    assert "there is no PTX" in _cuda.emulation_problem("mqa_logits")
    source = ROOT / "dsa_kernels" / "cuda" / "mqa_logits.sm90.ptx"
    if source.exists():
        shutil.copy(source, tmp_path)
        assert _cuda.emulation_problem("mqa_logits") is None
