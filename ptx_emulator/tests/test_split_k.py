"""The split-K GEMM with a last-CTA flag against torch."""

import pytest
import torch

from ptx_emulator import Module

from .case import Case, assert_near, poisoned, schedules, uniform
from .compile import complaints, kernel_ptx, ptxas_report


def case(m, n, k, splits, launches=2):
    """`launches` in a row, as the flags must be as they were after each."""
    generator = torch.Generator().manual_seed(m + n + k)
    a, b = uniform(generator, m, k), uniform(generator, n, k)
    expected = a.double() @ b.double().T
    k_of_cta = -(-k // splits // 8) * 8
    tiles = -(-m // 32), -(-n // 32)

    def run(module, **options):
        arrived = torch.zeros(tiles[0] * tiles[1], dtype=torch.int32)
        for _ in range(launches):
            c = poisoned(m, n)
            partials = poisoned(tiles[0] * tiles[1], splits, 32, 32)
            launch = module.launch(
                "split_k",
                grid=(tiles[1], tiles[0], splits),
                block=(128, 1, 1),
                args=[a, b, c, partials, arrived, m, n, k, k_of_cta],
                **options,
            )
            assert_near(c, expected, 1e-6)
            assert not arrived.any()
        return launch

    return Case(kernel_ptx("split_k"), run)


def test_ptxas_takes_it_as_written():
    assert not complaints(ptxas_report(kernel_ptx("split_k")))


@schedules
@pytest.mark.parametrize(
    "m, n, k, splits", [(32, 32, 64, 1), (64, 64, 1024, 8), (40, 72, 520, 5), (3, 1, 8, 3)]
)
def test_matches_torch(m, n, k, splits, schedule):
    made = case(m, n, k, splits)
    made.run(Module(made.ptx), **schedule)
