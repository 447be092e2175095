"""Every test runs with uninitialised memory poisoned, and with the extension."""

from __future__ import annotations

import pytest
import torch

from dsa_kernels._op import OPS
from dsa_kernels.testing import poisoned_memory


def pytest_configure(config):
    """No test is skipped for want of the extension: without it there is nothing to test."""
    missing = OPS["topk_indices"].unavailable("native", "cpu")
    if missing is not None:
        raise pytest.UsageError(f"the native backend cannot run: {missing}")


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
