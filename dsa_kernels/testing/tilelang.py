"""TileLang kernels on CPU tensors: what is lowered for a CUDA target, run by the PTX emulator."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator

import torch

from dsa_kernels import _op, _tilelang
from dsa_kernels._op import NAMESPACE, OPS


@contextlib.contextmanager
def in_emulator(target: str, **options) -> Iterator[None]:
    """Inside, backend "tilelang" serves CPU tensors, for the ops that have a kernel.

    target: "sm_80" or "sm_90a". options: those of ptx_emulator.Module.launch, such as mode, seed.
    """
    from tilelang_kernels.emulation import Emulated
    from tilelang_kernels.targets import TARGETS

    runner = Emulated(TARGETS[target], **options)
    library = torch.library.Library(NAMESPACE, "IMPL")
    for op in filter(_tilelang.exists, OPS):
        kernel = functools.partial(_tilelang.launcher(op), runner)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a kernel of before that is replaced
            library.impl(f"{op}.tilelang", kernel, "CPU")
    _op.refresh()
    try:
        yield
    finally:
        library._destroy()
        _op.refresh()
