"""CUDA kernels' code, and the PTX emulator that runs them on CPU tensors.

The extension launches kernels through a table of driver functions. libcuda's it finds itself; the
emulator's it asks for here when the first `.emulated` op runs.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from pathlib import Path

# Ops that are launches of other ops' kernels.
KERNELS_OF = {
    "indexer_topk": ("mqa_logits", "topk_indices"),
    "paged_indexer_topk": ("paged_mqa_logits", "topk_indices"),
}


def code_directory() -> Path:
    """Where fatbins and PTX are: DSA_CUDA_CODE, or beside this package's extension."""
    return Path(os.environ.get("DSA_CUDA_CODE") or Path(__file__).parent / "cuda")


def problem_on(op: str, gpu: str) -> str | None:
    """Why a GPU, "sm_90" or "gfx942", cannot run the kernels of `op`, or None."""
    if not gpu.startswith("sm_"):
        return f"CUDA kernels do not run on {gpu}"
    for kernels in KERNELS_OF.get(op, (op,)):
        found = sorted(
            path.suffixes[0][3:] for path in code_directory().glob(f"{kernels}.*.fatbin")
        )
        if not found:
            return f"there is no fatbin of {kernels} in {code_directory()} (run `make cuda`)"
        # Code for sm_90a runs there alone, other code on what is newer, too.
        if not any(gpu == "sm_90" if arch == "90" else int(gpu[3:]) >= int(arch) for arch in found):
            of = " and ".join(f"sm_{arch}" for arch in found)
            return f"its CUDA kernels are for {of}, and this GPU is {gpu}"
    return None


def emulator_problem() -> str | None:
    """Why there is no emulator here, or None."""
    if importlib.util.find_spec("ptx_emulator") is not None:
        return None
    return (
        "ptx_emulator is not importable: it is part of the repository and not of the wheel "
        "(run from the repository's root, or put that on PYTHONPATH)"
    )


def emulation_problem(op: str) -> str | None:
    """Why `op` cannot run in the emulator here, or None. Looks for files only, builds nothing."""
    if problem := emulator_problem():  # first: a wheel has no PTX either, and no `make ptx`
        return problem
    for kernels in KERNELS_OF.get(op, (op,)):
        if not any(code_directory().glob(f"{kernels}.*.ptx")):
            return f"there is no PTX of {kernels} in {code_directory()} (run `make ptx`)"
    return None


_kept: list = []  # what the extension has pointers to


def connect(extension: str) -> None:
    """Tells the extension where to ask for the emulator."""
    library = ctypes.CDLL(extension)

    def fetch() -> int | None:
        try:
            from ptx_emulator import driver  # compiles the emulator the first time

            library.dsa_use_emulator.restype = ctypes.c_char_p
            missing = library.dsa_use_emulator(*map(ctypes.c_void_p, driver.table()))
            problem = missing and f"it has no {missing.decode()}"
        except Exception as error:  # nothing may pass through C++
            problem = f"{type(error).__name__}: {error}"
        if not problem:
            return None
        text = ctypes.create_string_buffer(problem.encode())
        _kept.append(text)
        return ctypes.addressof(text)

    callback = ctypes.CFUNCTYPE(ctypes.c_void_p)(fetch)
    _kept.append(callback)
    library.dsa_set_emulator_fetch(callback)
