"""Every test runs with uninitialised memory poisoned, and with the extension.

With DSA_TEST_GPU=1 the backend "emulated" is the GPU, with DSA_TEST_GPU=tilelang TileLang's kernels
on it (dsa_kernels/testing/on_gpu.py), with DSA_TEST_TILELANG=sm_80 or sm_90a those for that in the
emulator (dsa_kernels/testing/tilelang.py).
"""

from __future__ import annotations

import pytest
import torch

from dsa_kernels._op import OPS
from dsa_kernels.testing import on_gpu, poisoned_memory, tilelang


def enter(config, context) -> None:
    """Until the end of the session."""
    context.__enter__()
    config.add_cleanup(lambda: context.__exit__(None, None, None))


def pytest_configure(config):
    """No test is skipped for want of the extension: without it there is nothing to test."""
    missing = OPS["topk_indices"].unavailable("native", "cpu")
    if missing is not None:
        raise pytest.UsageError(f"the native backend cannot run: {missing}")
    if backend := on_gpu.wanted():
        if backend not in ("native", "tilelang"):
            raise pytest.UsageError(f"{on_gpu.VARIABLE} is 1 or tilelang; got {backend}")
        if not torch.cuda.is_available():
            raise pytest.UsageError(f"{on_gpu.VARIABLE} is set, and torch sees no GPU")
        enter(config, on_gpu.instead_of_the_emulator(backend=backend))
    if target := tilelang.wanted():
        enter(config, tilelang.in_emulator(target, "emulated"))


@pytest.fixture(autouse=True)
def poison():
    with poisoned_memory():
        yield


@pytest.fixture
def threads():
    """Call it with a thread count; the old count comes back at the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
