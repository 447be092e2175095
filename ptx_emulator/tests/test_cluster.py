"""The GEMM by clusters of two CTAs against torch."""

import pytest
import torch

from ptx_emulator import Module, TensorMap

from .case import Case, assert_near, poisoned, schedules, uniform
from .compile import complaints, kernel_ptx, ptxas_report

SHARED = 3 * (64 + 64) * 64 * 2 + 4 * 64 * 4 + 6 * 8


def case(m, n, k):
    generator = torch.Generator().manual_seed(m + n + k)
    a, b = uniform(generator, m, k), uniform(generator, n, k)
    expected = a.double() @ b.double().T
    pairs = -(-m // 128)
    padded = torch.zeros(pairs * 128, n, dtype=torch.float64)
    padded[:m] = expected
    expected_sums = padded.view(pairs, 128, n).sum(1)

    def run(module, **options):
        c, sums = poisoned(m, n), poisoned(pairs, n)
        launch = module.launch(
            "cluster_gemm",
            grid=(2 * pairs, -(-n // 64), 1),
            block=(160, 1, 1),
            shared=SHARED,
            args=[
                TensorMap(a, box=(64, 64), swizzle=128),
                TensorMap(b, box=(64, 32), swizzle=128),
                c,
                sums,
                m,
                n,
                k,
            ],
            **options,
        )
        assert_near(c, expected, 1e-6)
        assert_near(sums, expected_sums, 1e-6)
        return launch

    return Case(kernel_ptx("cluster"), run)


def test_ptxas_takes_it_as_written():
    assert not complaints(ptxas_report(kernel_ptx("cluster")))


@schedules
@pytest.mark.parametrize("m, n, k", [(128, 64, 64), (256, 128, 448), (70, 40, 200), (1, 8, 8)])
def test_matches_torch(m, n, k, schedule):
    made = case(m, n, k)
    made.run(Module(made.ptx), **schedule)
