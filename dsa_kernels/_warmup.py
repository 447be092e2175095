"""Loading kernels before they are needed."""

from __future__ import annotations

import ctypes

import torch

from dsa_kernels import _tilelang
from dsa_kernels._cuda import code_directory, emulator_problem
from dsa_kernels._native import extension_path


def warmup(device: torch.device | str | int | None = None, *, backend: str | None = None) -> None:
    """Loads the code of every kernel of a backend onto a device.

    A kernel is loaded at its first call otherwise, which takes its time and must not happen while
    a CUDA graph is captured. On a CPU there is nothing to load.

    Args:
        device: None is the current CUDA device, or the CPU where torch sees none.
        backend: "emulated" loads what runs in the emulator on CPU tensors; None or "native" is for
            the device; "tilelang" compiles those kernels for it, which takes minutes the first
            time and is kept on disk.

    Raises:
        ValueError: another backend, or a device that is neither CUDA nor a CPU.
        RuntimeError: the kernels were not built, there is no driver, or it refuses them; TileLang
            or the compiler under it is missing, or there is no target for the device.
    """
    if backend not in (None, "native", "emulated", "tilelang"):
        raise ValueError(
            f'warmup: backend must be "native", "tilelang" or "emulated"; got {backend!r}.'
        )
    if device is None:
        device = "cuda" if torch.cuda.is_available() and backend != "emulated" else "cpu"
    device = torch.device(device)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"warmup: device must be CUDA or a CPU; got {device}.")
    if backend == "tilelang":
        if device.type == "cuda":
            _tilelang.warmup(device)
        return
    emulated = backend == "emulated"
    if device.type == "cpu" and not emulated:
        return
    path, pattern = extension_path(), "*.ptx" if emulated else "*.fatbin"
    if path is None:
        raise RuntimeError("warmup: the extension is not built (run `pip install .`).")
    if emulated and (problem := emulator_problem()):
        raise RuntimeError(f"warmup: {problem}.")
    if not any(code_directory().glob(pattern)):
        raise RuntimeError(f"warmup: there is no {pattern} in {code_directory()}.")
    library = ctypes.CDLL(path)
    library.dsa_warmup.restype = ctypes.c_char_p
    ordinal = 0 if emulated else device.index
    if ordinal is None:
        ordinal = torch.cuda.current_device()
    if problem := library.dsa_warmup(ordinal, int(emulated)):
        raise RuntimeError(f"warmup: {problem.decode()}")
