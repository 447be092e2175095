"""The overload `.tilelang`: kernels of tilelang_kernels, compiled when they are first called."""

from __future__ import annotations

import functools
import importlib
import importlib.util

import torch

PACKAGE = "tilelang_kernels"


@functools.cache
def ported() -> tuple[str, ...]:
    """Ops that have TileLang kernels."""
    if importlib.util.find_spec(PACKAGE) is None:
        return ()
    package = importlib.import_module(PACKAGE)
    return package.OPS + package.COMPOSED


@functools.cache
def problem() -> str | None:
    """Why no kernel can be compiled here, or None."""
    if importlib.util.find_spec("tilelang") is None:
        return (
            "tilelang is not installed "
            "(in the repository: pip install --no-build-isolation '.[tilelang]')"
        )
    compilers = importlib.import_module(f"{PACKAGE}.toolchain.compilers")
    try:
        compilers.find_hipcc() if torch.version.hip else compilers.find_nvcc()
    except compilers.NoCompiler as error:
        return str(error)
    return None


def problem_on(gpu: str) -> str | None:
    """Why a GPU, "sm_80" or "gfx942", cannot run these kernels, or None."""
    targets = importlib.import_module(f"{PACKAGE}.toolchain.targets")
    try:
        targets.target_for(gpu)
    except targets.Refused as error:
        return str(error)
    return None


def launcher(op: str):
    """The op's function in its TileLang module: `launcher(runner, *arguments of the schema)`."""
    return getattr(importlib.import_module(f"{PACKAGE}.{op}"), op)


def run(op: str, *arguments) -> None:
    from tilelang_kernels.toolchain.device import OnDevice

    launcher(op)(OnDevice(arguments[0].device), *arguments)


def warmup(device: torch.device) -> None:
    if missing := problem():
        raise RuntimeError(f"warmup: {missing}")
    from tilelang_kernels.toolchain.device import prepare

    prepare(device)
