"""The driver table, from host code that is compiled against <cuda.h>."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ptx_emulator import _build
from ptx_emulator.cli.flags import flags

from .compile import kernel_ptx, tool
from .programs import SOURCES, build, output_of
from .ptx_kernel import kernel
from .small_kernels import RACY, SCALE, UNKNOWN

OUT = "ld.param.u64 %rd0, [out];"
CLUSTER_SIZE = kernel(
    f"""{OUT} mov.u32 %r0, %cluster_nctaid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %tid.x;
    or.b32 %r1, %r1, %r2; setp.eq.u32 %p1, %r1, 0; @%p1 st.global.u32 [%rd0], %r0; ret;""",
    ".param .u64 out",
    name="cluster_size",
)
VARIABLE = kernel(
    f"""{OUT} ld.const.u32 %r0, [table]; ld.const.u32 %r1, [table+4]; add.u32 %r0, %r0, %r1;
    st.global.u32 [%rd0], %r0; ret;""",
    ".param .u64 out",
    name="add_table",
    before=".const .align 4 .u32 table[2];",
)
REQUIRED = CLUSTER_SIZE.replace("cluster_size(", "required(").replace(
    "\n{", "\n.reqnctapercluster 2 {", 1
)


def cuda_include():
    """The folder of cuda.h."""
    near_nvcc = Path(shutil.which(tool("nvcc"))).resolve().parents[1]
    for root in (near_nvcc, Path("/usr/local/cuda")):
        if (root / "include" / "cuda.h").is_file():
            return root / "include"
    pytest.skip("no cuda.h on this machine")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The program, and the folder of its modules."""
    folder = tmp_path_factory.mktemp("driver")
    modules = {
        "ring": kernel_ptx("gemm_ring"),
        "scale": SCALE,
        "racy": RACY,
        "unknown": UNKNOWN,
        "cluster_size": CLUSTER_SIZE,
        "required": REQUIRED,
        "variable": VARIABLE,
        "blackwell": SCALE.replace("sm_90a", "sm_100a"),
    }
    for name, text in modules.items():
        (folder / f"{name}.ptx").write_text(text)
    built = build(folder, "driver", "-isystem", str(cuda_include()), "-ldl")
    return built, folder


def environment(**variables):
    clean = {n: v for n, v in os.environ.items() if not n.startswith("PTX_EMULATOR_")}
    return clean | variables


@pytest.fixture(scope="module")
def printed(program):
    built, folder = program
    return output_of(built, folder, env=environment(PTX_EMULATOR_SEED="12"))


def test_declarations_are_those_of_the_header():
    command = [_build.find_compiler(), "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *flags()[:3]]
    command += ["-isystem", str(cuda_include()), str(SOURCES / "driver_abi.cpp")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "not initialised: CUDA_ERROR_NOT_INITIALIZED: cuInit has not been called",
        "no second device: CUDA_ERROR_INVALID_DEVICE: .*",
        "no context: CUDA_ERROR_INVALID_CONTEXT: the thread has no current context",
        "device: 132 232448 9 1",
        "unknown attribute: CUDA_ERROR_NOT_SUPPORTED: attribute 33 of the device is not known",
        # A launch with tensor maps, and what must be set before.
        "too much shared memory: CUDA_ERROR_INVALID_VALUE: gemm_ring is launched with 131136 bytes "
        "of dynamic shared memory, and may have 49152: raise "
        "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES first",
        "more than there is: CUDA_ERROR_INVALID_VALUE: gemm_ring may have at most 232448 .*",
        "gemm: 0 wrong, 232448 bytes of shared memory allowed",
        "freed memory: CUDA_ERROR_ILLEGAL_ADDRESS: gemm_ring: .*",
        "freed twice: CUDA_ERROR_INVALID_VALUE: .*",
        # Attributes of launches.
        "cluster: 4",
        "cluster of 16: CUDA_ERROR_INVALID_CLUSTER_SIZE: .*NON_PORTABLE_CLUSTER_SIZE_ALLOWED",
        "cluster of 16, allowed: CUDA_SUCCESS: ",
        "cluster of 17: CUDA_ERROR_INVALID_CLUSTER_SIZE: a cluster of 17 CTAs",
        "cluster of 3 in 8: CUDA_ERROR_INVALID_VALUE: the grid is no multiple of the cluster .*",
        "cooperative: CUDA_SUCCESS: ",
        "too many CTAs: CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: .*",
        "an event: CUDA_ERROR_NOT_SUPPORTED: attribute 7 of a launch is not modelled",
        "2048 threads: CUDA_ERROR_INVALID_VALUE: threads along x: 2048, the limit is 1024",
        "required cluster: CUDA_SUCCESS: ",
        "another cluster: CUDA_ERROR_INVALID_CLUSTER_SIZE: required requires another cluster",
        # Memory.
        "nobody has written x: CUDA_ERROR_ILLEGAL_ADDRESS: scale: a read of 4 bytes at "
        r"allocation \d+ \+ \d+ that nobody has written",
        "x is written: CUDA_SUCCESS: ",
        "y was written by a launch: CUDA_SUCCESS: ",
        "twice scaled: 12 12",
        "half of x is written: CUDA_ERROR_ILLEGAL_ADDRESS: scale: a read of 4 bytes at "
        r"allocation \d+ \+ 128 that nobody has written",
        "past the end: CUDA_ERROR_INVALID_VALUE: 129 bytes at .* are no memory of the device: .*",
        "no bytes: CUDA_ERROR_INVALID_VALUE: an allocation of no bytes",
        "too many bytes: CUDA_ERROR_OUT_OF_MEMORY: .*",
        "no parameters: CUDA_ERROR_INVALID_VALUE: kernelParams is null",
        "not registered: CUDA_ERROR_ILLEGAL_ADDRESS: .*",
        "register: CUDA_SUCCESS: ",
        "register out: CUDA_SUCCESS: ",
        "overlaps: CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED: other overlaps tensor",
        "registered: CUDA_SUCCESS: ",
        "tensor: 21",
        "out is written now: CUDA_SUCCESS: ",
        "tensor is constant: CUDA_ERROR_ILLEGAL_ADDRESS: scale: a write to tensor, .*",
        r"past the tensor: CUDA_ERROR_ILLEGAL_ADDRESS: scale: a read of .* tensor \+ 256 .*",
        "unregister: CUDA_SUCCESS: ",
        "unregister again: CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED: .*",
        "gone: CUDA_ERROR_ILLEGAL_ADDRESS: .*",
        # Faults of kernels.
        r"racy: CUDA_ERROR_LAUNCH_FAILED: racy: \d races?",
        r"  and (read|write) by thread \(\d+,0,0\) of CTA \(0,0,0\)",
        "options: mode 0, races 1, seed 12",
        "racy, not looked for: CUDA_SUCCESS: ",
        # Modules and libraries.
        "variable: 8 bytes, 42",
        "no variable: CUDA_ERROR_NOT_FOUND: there is no variable other",
        "unloaded: CUDA_ERROR_INVALID_HANDLE: .*",
        "no PTX: CUDA_ERROR_INVALID_PTX: line 1: .*",
        "a cubin: CUDA_ERROR_NO_BINARY_FOR_GPU: a cubin or fatbin; the emulator runs PTX",
        "not modelled: CUDA_ERROR_NOT_SUPPORTED: the module uses what is not modelled:",
        r"  line \d+: frobnicate\.b32: unknown instruction",
        "sm_100: CUDA_ERROR_NO_BINARY_FOR_GPU: PTX for sm_100a; the device is sm_90a",
        "no file: CUDA_ERROR_FILE_NOT_FOUND: cannot read .*absent.ptx",
        "a fatbin with PTX beside it: CUDA_SUCCESS: ",
        "1 kernel, 1",
        "load it: CUDA_SUCCESS: ",
        "no kernel: CUDA_ERROR_NOT_FOUND: there is no kernel other",
        "no library: CUDA_ERROR_INVALID_HANDLE: .*",
        "unload: CUDA_SUCCESS: ",
        "a map: CUDA_SUCCESS: ",
        r"a high box: CUDA_ERROR_INVALID_VALUE: boxDim\[1\] must be in 1 \.\. 256 \(300\)",
        r"wider than the swizzle: CUDA_ERROR_INVALID_VALUE: boxDim\[0\] spans more bytes .*",
        "interleaved: CUDA_ERROR_NOT_SUPPORTED: interleaved layouts are not modelled",
    ],
)
def test_the_program_prints(printed, line):
    assert any(re.fullmatch(line, text) for text in printed.splitlines()), printed


@pytest.mark.parametrize("mode", ["eager", "random", "late"])
def test_modes_of_the_environment(program, mode):
    built, folder = program
    out = output_of(built, folder, env=environment(PTX_EMULATOR_MODE=mode))
    number = {"eager": 0, "random": 1, "late": 2}[mode]
    assert f"options: mode {number}, races 1, seed 0" in out
    assert "gemm: 0 wrong" in out


def test_races_are_never_switched_off_silently(program):
    built, folder = program
    done = subprocess.run(
        [built, folder],
        capture_output=True,
        text=True,
        env=environment(PTX_EMULATOR_RACES="0"),
    )
    assert done.stderr.count("RACES ARE NOT LOOKED FOR") == 1
    assert "racy: CUDA_SUCCESS: " in done.stdout


@pytest.mark.parametrize(
    "variable, value", [("MODE", "lazy"), ("SEED", "three"), ("RACES", "no"), ("COARSE_FP8", "2")]
)
def test_an_environment_that_makes_no_sense(program, variable, value):
    built, folder = program
    env = environment(**{f"PTX_EMULATOR_{variable}": value})
    done = subprocess.run([built, folder], capture_output=True, text=True, env=env)
    assert done.returncode == 1
    assert f"cuInit: CUDA_ERROR_INVALID_VALUE: PTX_EMULATOR_{variable}" in done.stdout


def test_the_same_program_on_hardware(program):
    built, folder = program
    done = subprocess.run([built, folder, "hardware"], capture_output=True, text=True)
    if done.returncode == 77 or "CUDA_ERROR_NO_DEVICE" in done.stdout:
        pytest.skip("no CUDA driver with a device on this machine")
    assert "gemm: 0 wrong" in done.stdout


def test_the_page_names_every_function():
    page = (Path(_build.SOURCES).parent / "docs" / "driver.md").read_text()
    table = page.split("| about | functions |")[1].split("\n\n")[0]
    sources = [path.read_text() for path in _build.SOURCES.glob("driver*.cpp")]
    entries = {name for text in sources for name in re.findall(r'entry\("(\w+)"', text)}
    host = (SOURCES / "host_driver.h").read_text()
    assert set(re.findall(r"`(\w+)`", table)) == entries
    assert set(re.findall(r"F\((\w+)\)", host)) == entries
