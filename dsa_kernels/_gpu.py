"""Which kernels a machine's GPU can run."""

from __future__ import annotations

import functools

import torch

from dsa_kernels import _cuda, _tilelang


@functools.cache
def architecture(device: torch.device | None = None) -> str:
    """Of a GPU, by default the current one: "sm_90", "gfx942"."""
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return properties.gcnArchName.partition(":")[0]
    return f"sm_{properties.major}{properties.minor}"


def current() -> str | None:
    """The architecture for which backends are chosen: a process's GPUs are taken to be alike. None
    without a GPU. Not to be asked for at import: who uses the GPU cannot fork."""
    return architecture() if torch.cuda.is_available() else None


@torch.compiler.assume_constant_result  # and is not traced
def problem(op: str, backend: str) -> str | None:
    """Why the GPU cannot run kernels that `backend` has for `op`, or None; None without a GPU."""
    return _problem(op, backend)


@functools.cache
def _problem(op: str, backend: str) -> str | None:
    gpu = current()
    if gpu is None or backend == "reference":
        return None
    return _cuda.problem_on(op, gpu) if backend == "native" else _tilelang.problem_on(gpu)
