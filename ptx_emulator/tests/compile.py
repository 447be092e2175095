"""CUDA C++ to PTX with nvcc, cached by content."""

import functools
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

KERNELS = Path(__file__).parent / "kernels"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ptx_emulator" / "tests"
FLAGS = ("-lineinfo", "-std=c++20")
# ptxas drops setmaxnreg or runs wgmma one by one, and says so with a number of this kind: the
# outcome is right, but the code is not what was written.
PTXAS_REMARK = re.compile(r"\(C75\d\d\)|warning")


@functools.cache
def tool(name):
    path = shutil.which(name) or shutil.which(f"/usr/local/cuda/bin/{name}")
    if path is None:
        pytest.skip(f"no {name} on this machine")
    return path


@functools.cache
def version(name):
    return subprocess.run(
        [tool(name), "--version"], check=True, capture_output=True, text=True
    ).stdout


def _cached(key, suffix, make):
    """The content of a cache file; make(path) writes it where it is missing."""
    path = CACHE / (hashlib.sha256("\0".join(key).encode()).hexdigest()[:32] + suffix)
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}{suffix}")
        make(partial)
        partial.replace(path)
    return path.read_text()


def ptx_of(source, arch="sm_90a", flags=(), name="kernel.cu"):
    """The PTX of CUDA C++ text."""
    flags = (f"-arch={arch}", *FLAGS, *flags)

    def compile_source(output):
        folder = output.with_suffix(".src")
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(source)
        command = [tool("nvcc"), "-ptx", *flags, str(folder / name), "-o", str(output)]
        done = subprocess.run(command, capture_output=True, text=True)
        shutil.rmtree(folder)
        if done.returncode:
            raise RuntimeError(f"nvcc: {name}\n{done.stdout}{done.stderr}")

    return _cached((source, name, version("nvcc"), *flags), ".ptx", compile_source)


def kernel_ptx(stem, defines=(), arch="sm_90a"):
    """The PTX of kernels/<stem>.cu, compiled where it lies so that its lines can be named."""
    path = KERNELS / f"{stem}.cu"
    headers = [header.read_text() for header in sorted(KERNELS.glob("*.cuh"))]
    flags = (f"-arch={arch}", *FLAGS, *(f"-D{define}" for define in defines))

    def compile_file(output):
        command = [tool("nvcc"), "-ptx", *flags, str(path), "-o", str(output)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"nvcc: {path}\n{done.stdout}{done.stderr}")

    key = (str(path), path.read_text(), *headers, version("nvcc"), *flags)
    return _cached(key, ".ptx", compile_file)


def ptxas_report(ptx, arch="sm_90a"):
    """What ptxas -v says of a PTX text: registers, spills, warnings."""

    def assemble(output):
        source = output.with_suffix(".ptx")
        source.write_text(ptx)
        command = [tool("ptxas"), "-v", f"-arch={arch}", str(source), "-o", os.devnull]
        done = subprocess.run(command, capture_output=True, text=True)
        source.unlink()
        if done.returncode:
            raise RuntimeError(f"ptxas\n{done.stdout}{done.stderr}")
        output.write_text(done.stdout + done.stderr)

    return _cached((ptx, arch, version("ptxas")), ".txt", assemble)


def complaints(report):
    """The lines of a ptxas report that say that something is not as written."""
    clean = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"
    return [
        line
        for line in report.splitlines()
        if PTXAS_REMARK.search(line) or ("bytes stack frame" in line and clean not in line)
    ]
