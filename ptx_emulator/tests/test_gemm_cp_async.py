"""The sm_80 GEMM with a cp.async pipeline against torch."""

import pytest
import torch

from ptx_emulator import Module

from .case import Case, assert_near, poisoned, schedules, uniform
from .compile import complaints, kernel_ptx, ptxas_report

SHARED = 4 * (64 + 64) * 32 * 2


def case(m, n, k):
    generator = torch.Generator().manual_seed(m + n + k)
    a, b = uniform(generator, m, k), uniform(generator, k, n)
    expected = a.double() @ b.double()

    def run(module, **options):
        c = poisoned(m, n)
        launch = module.launch(
            "gemm_cp_async",
            grid=(-(-n // 64), -(-m // 64), 1),
            block=(128, 1, 1),
            shared=SHARED,
            args=[a, b, c, m, n, k],
            **options,
        )
        assert_near(c, expected, 1e-6)
        return launch

    return Case(kernel_ptx("gemm_cp_async", arch="sm_80"), run)


def test_ptxas_takes_it_as_written():
    ptx = kernel_ptx("gemm_cp_async", arch="sm_80")
    assert not complaints(ptxas_report(ptx, "sm_80"))


@schedules
@pytest.mark.parametrize("m, n, k", [(64, 64, 32), (128, 64, 256), (70, 72, 200), (1, 8, 8)])
def test_matches_torch(m, n, k, schedule):
    made = case(m, n, k)
    made.run(Module(made.ptx), **schedule)
