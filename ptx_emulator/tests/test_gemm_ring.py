"""The ring GEMM with wgmma against torch."""

import pytest
import torch

from ptx_emulator import Module, TensorMap

from .case import Case, assert_near, integers, poisoned, schedules, uniform
from .compile import complaints, kernel_ptx, ptxas_report

SHARED = 4 * (128 + 64) * 64 * 2 + 128 * 64 * 4 + 8 * 8


def case(m, n, k, exact=False):
    generator = torch.Generator().manual_seed(m + n + k)
    draw = integers if exact else uniform
    a, b = draw(generator, m, k), draw(generator, n, k)
    expected = a.double() @ b.double().T

    def run(module, **options):
        c = poisoned(m, n)
        launch = module.launch(
            "gemm_ring",
            grid=(-(-n // 64), -(-m // 128), 1),
            block=(384, 1, 1),
            shared=SHARED,
            args=[
                TensorMap(a, box=(64, 128), swizzle=128),
                TensorMap(b, box=(64, 64), swizzle=128),
                TensorMap(c, box=(64, 64)),
                k,
            ],
            **options,
        )
        assert_near(c, expected, 0 if exact else 1e-6)
        return launch

    return Case(kernel_ptx("gemm_ring"), run)


def test_ptxas_takes_it_as_written():
    assert not complaints(ptxas_report(kernel_ptx("gemm_ring")))


@schedules
@pytest.mark.parametrize(
    "m, n, k", [(128, 64, 64), (256, 128, 640), (129, 72, 264), (1, 8, 8), (200, 136, 320)]
)
def test_matches_torch(m, n, k, schedule):
    made = case(m, n, k)
    made.run(Module(made.ptx), **schedule)


def test_integers_are_exact():
    made = case(128, 64, 512, exact=True)
    made.run(Module(made.ptx), mode="random", seed=5)
