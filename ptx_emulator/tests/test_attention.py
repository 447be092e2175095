"""The warp-specialised attention tile against torch in fp64."""

import pytest
import torch

from ptx_emulator import Module, TensorMap

from .case import Case, assert_near, poisoned, schedules, uniform
from .compile import complaints, kernel_ptx, ptxas_report

D = 128
SHARED = (64 + 2 * 128 + 2 * 128 + 64) * D * 2 + 2 * 2 * 64 * 4 + 9 * 8


def reference(q, k, v, scale):
    score = scale * q.double() @ k.double().transpose(1, 2)
    return score.softmax(-1) @ v.double(), score.logsumexp(-1)


def case(heads, length, hot_key=None, queries=None):
    """`queries`: of so many alone, though all keys weigh."""
    queries = queries or length
    generator = torch.Generator().manual_seed(length)
    q, k, v = (uniform(generator, heads, length, D) for _ in range(3))
    scale = D**-0.5
    if hot_key is not None:
        k[:, hot_key] *= 64  # rows find their maximum late, and all else vanishes beside it
    expected, expected_lse = reference(q[:, :queries], k, v, scale)

    def run(module, **options):
        o = poisoned(heads, length, D, dtype=torch.bfloat16)
        lse = poisoned(heads, length)
        launch = module.launch(
            "attention",
            grid=(-(-queries // 64), heads, 1),
            block=(384, 1, 1),
            shared=SHARED,
            args=[
                TensorMap(q, box=(64, 64, 1), swizzle=128),
                TensorMap(k, box=(64, 128, 1), swizzle=128),
                TensorMap(v, box=(64, 128, 1), swizzle=128),
                o,
                lse,
                scale,
                length,
            ],
            **options,
        )
        # Weights and output are rounded to bf16.
        assert_near(o[:, :queries], expected, 2**-7)
        assert_near(lse[:, :queries], expected_lse, 1e-6)
        return launch

    return Case(kernel_ptx("attention"), run)


def test_ptxas_takes_it_as_written():
    assert not complaints(ptxas_report(kernel_ptx("attention")))


@schedules
@pytest.mark.parametrize("heads, length", [(1, 128), (2, 300), (1, 65), (3, 1)])
def test_matches_torch(heads, length, schedule):
    made = case(heads, length)
    made.run(Module(made.ptx), **schedule)


@pytest.mark.parametrize("key", [0, 127, 255])
def test_a_maximum_that_comes_late(key):
    made = case(1, 256, key)
    made.run(Module(made.ptx), mode="late")
