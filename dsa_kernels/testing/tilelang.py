"""TileLang kernels on CPU tensors: what is lowered for a CUDA target, run by the PTX emulator."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from dsa_kernels import _tilelang
from dsa_kernels.testing.replaced import replaced_on_cpu


@contextlib.contextmanager
def in_emulator(target: str, **options) -> Iterator[None]:
    """Inside, backend "tilelang" serves CPU tensors, for the ops that have a kernel.

    target: "sm_80" or "sm_90a". options: those of ptx_emulator.Module.launch, such as mode, seed.
    """
    from tilelang_kernels.emulation import Emulated
    from tilelang_kernels.targets import TARGETS

    runner = Emulated(TARGETS[target], **options)
    kernels = {op: functools.partial(_tilelang.launcher(op), runner) for op in _tilelang.ported()}
    with replaced_on_cpu("tilelang", kernels):
        yield
