"""Where the programs of the CUDA toolkit are."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

READERS = ("cuobjdump", "nvdisasm")  # of machine code; the package triton has them, too


def find(name: str) -> str | None:
    """On PATH; then beside nvcc, in CUDA_HOME, in /usr/local/cuda. NVCC comes first for nvcc."""
    if name == "nvcc" and (path := shutil.which(os.environ.get("NVCC", ""))):
        return path
    homes = (os.environ.get("CUDA_HOME"), "/usr/local/cuda")
    folders = [Path(home, "bin") for home in homes if home]
    if name != "nvcc" and (nvcc := find("nvcc")):
        folders.insert(0, Path(nvcc).resolve().parent)
    if name in READERS:
        folders += [Path(folder) / "triton/backends/nvidia/bin" for folder in sys.path]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(map(str, folders)))
