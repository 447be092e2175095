"""Every test runs with uninitialised memory poisoned."""

from __future__ import annotations

import pytest
import torch

from dsa_kernels.testing import poisoned_memory


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
