"""Where the compilers are. Importing this does not import TileLang."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


class NoCompiler(RuntimeError):
    """A tool that is not installed."""


def find_nvcc() -> str:
    for candidate in (os.environ.get("NVCC"), "nvcc", "/usr/local/cuda/bin/nvcc"):
        if candidate and (path := shutil.which(candidate)):
            return path
    raise NoCompiler("nvcc was not found: NVCC, PATH, /usr/local/cuda")


def find_hipcc() -> str:
    rocm = os.environ.get("ROCM_PATH", "/opt/rocm")
    if path := shutil.which("hipcc") or shutil.which("hipcc", path=f"{rocm}/bin"):
        return path
    raise NoCompiler("hipcc was not found: PATH, ROCM_PATH, /opt/rocm")


def find_cuobjdump() -> str:
    triton = [Path(folder) / "triton/backends/nvidia/bin" for folder in sys.path]
    found = shutil.which("cuobjdump") or shutil.which(
        "cuobjdump", path=os.pathsep.join(map(str, triton))
    )
    if found is None:
        raise NoCompiler("cuobjdump was not found: on PATH, or in the package triton")
    return found


def find_clang() -> str:
    if path := shutil.which("clang++-22"):
        return path
    raise NoCompiler("clang++-22 was not found (Debian packages clang-22 and lld-22)")
