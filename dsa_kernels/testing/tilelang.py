"""TileLang kernels on CPU tensors: what is lowered for a CUDA target, run by the PTX emulator.

With DSA_TEST_TILELANG=sm_80 (or sm_90a) the backend "emulated" of the ops that have a TileLang
kernel is that one (tests/conftest.py), so that its tests are theirs.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator

from dsa_kernels import _op, _tilelang
from dsa_kernels.testing.replaced import replaced_on_cpu

VARIABLE = "DSA_TEST_TILELANG"


def wanted() -> str | None:
    """The target whose kernels are to be tested, or None."""
    return os.environ.get(VARIABLE) or None


@contextlib.contextmanager
def in_emulator(target: str, backend: str = "tilelang") -> Iterator[None]:
    """Inside, `backend` runs TileLang kernels on CPU tensors, for the ops that have one.

    target: "sm_80" or "sm_90a". Schedules are those of dsa_kernels.testing.emulation.
    """
    from tilelang_kernels.toolchain.emulation import Emulated
    from tilelang_kernels.toolchain.targets import TARGETS

    runner = Emulated(TARGETS[target])
    kernels = {op: functools.partial(_tilelang.launcher(op), runner) for op in _tilelang.ported()}
    before = _op.emulation_problem
    if backend == "emulated":
        _op.emulation_problem = lambda op: None if op in kernels else "it has no TileLang kernel"
    try:
        with replaced_on_cpu(backend, kernels):
            yield
    finally:
        _op.emulation_problem = before
        _op.refresh()
