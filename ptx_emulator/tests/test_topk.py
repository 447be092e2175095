"""The radix select against a stable sort in numpy."""

import numpy as np
import pytest
import torch

from ptx_emulator import Module

from .case import Case, schedules
from .compile import complaints, kernel_ptx, ptxas_report


def total_order(values):
    """Integers that order as IEEE 754 totalOrder orders the values."""
    bits = values.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF) - 1, bits)


def reference(values, k):
    ranked = np.argsort(-total_order(values), axis=1, kind="stable")
    return np.sort(ranked[:, :k], axis=1)


def random_rows(rows, n, kind):
    generator = np.random.default_rng(n)
    if kind == "normal":
        return generator.standard_normal((rows, n)).astype(np.float32)
    if kind == "ties":
        return generator.integers(-2, 3, (rows, n)).astype(np.float32)
    if kind == "equal":
        return np.full((rows, n), -1.5, np.float32)
    # Any bits at all: NaNs of both signs and all payloads, infinities, denormals, zeros.
    bits = generator.integers(0, 2**32, (rows, n), dtype=np.uint32)
    special = np.array(
        [0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 1, 0x80000001], np.uint32
    )
    bits[:, ::3] = generator.choice(special, bits[:, ::3].shape)
    return bits.view(np.float32)


def case(rows, n, k, kind="normal"):
    values = random_rows(rows, n, kind)
    expected = reference(values, k)

    def run(module, **options):
        indices = torch.full((rows, k), -1, dtype=torch.int32)
        launch = module.launch(
            "topk",
            grid=(rows, 1, 1),
            block=(256, 1, 1),
            args=[torch.from_numpy(values), indices, n, k],
            **options,
        )
        np.testing.assert_array_equal(indices.numpy(), expected)
        return launch

    return Case(kernel_ptx("topk"), run)


def test_ptxas_takes_it_as_written():
    assert not complaints(ptxas_report(kernel_ptx("topk")))


@schedules
@pytest.mark.parametrize("kind", ["normal", "ties", "equal", "bits"])
@pytest.mark.parametrize("n, k", [(1, 1), (256, 100), (1000, 1), (1000, 1000), (777, 64)])
def test_matches_numpy(n, k, kind, schedule):
    made = case(3, n, k, kind)
    made.run(Module(made.ptx), **schedule)
