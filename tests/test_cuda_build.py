"""How the CUDA kernels are built and launched, apart from what they compute."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from csrc.cuda import build, sass_check, toolkit

ROOT = Path(__file__).parent.parent
nvcc = toolkit.find("nvcc")
needs_nvcc = pytest.mark.skipif(nvcc is None, reason="no nvcc on this machine")


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
    command = [sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
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
