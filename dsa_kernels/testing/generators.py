"""Hostile data: each generator is named for the failure that it provokes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch


def hostile_rows(n: int, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields (name, float32 [n]) score rows that break selection kernels."""
    normal = torch.randn(n, generator=generator)
    index = torch.arange(n)
    yield "random", normal
    yield "all_zero", torch.zeros(n)  # what ReLU makes of keys that no head likes
    yield "all_equal", torch.full((n,), 1.5)
    yield (
        "same_high_byte",
        1.0 + index.remainder(1 << 23).float() * 2.0**-23,
    )  # one coarse radix bin
    yield "few_levels", (index % 3).float()
    low_bits = torch.randint(0, 1 << 10, (n,), generator=generator, dtype=torch.int32)
    yield "ten_low_bits", (low_bits + 0x3F800000).view(torch.float32)
    yield "signed_zeros", torch.where(index % 2 == 0, 0.0, -0.0)
    yield "denormals", (index.remainder(1 << 22).int()).view(torch.float32)
    yield "negative_denormals", -(index.remainder(1 << 22).int()).view(torch.float32)
    yield "inf_mix", torch.where(index % 5 == 0, math.inf, normal)
    yield "neg_inf_mix", torch.where(index % 3 != 0, -math.inf, normal)
    yield "all_neg_inf", torch.full((n,), -math.inf)
    yield "both_inf", torch.where(index % 2 == 0, math.inf, -math.inf)
    yield "nan_mix", torch.where(index % 7 == 0, math.nan, normal)
    negative_nan = torch.tensor(-4194304, dtype=torch.int32).view(torch.float32)
    yield "negative_nan_mix", torch.where(index % 7 == 0, negative_nan, normal)
    yield "nan_and_neg_inf", torch.where(index % 2 == 0, math.nan, -math.inf)
    yield "all_nan", torch.full((n,), math.nan)
    yield "fp_max", torch.full((n,), torch.finfo(torch.float32).max)
    yield "ascending", index.float()
    yield "descending", -index.float()
    yield "zero_plateau", torch.where(normal > 1.0, normal, torch.zeros(n))


def random_fp8(shape, generator: torch.Generator, *, scale: float = 1.0) -> torch.Tensor:
    """float8_e4m3fn of normal values, with zeros, subnormals and the largest codes mixed in."""
    x = torch.randn(shape, generator=generator) * scale
    special = torch.tensor([0.0, -0.0, 448.0, -448.0, 2.0**-9, -(2.0**-9), 2.0**-6, 1.0])
    choice = torch.randint(0, 64, x.shape, generator=generator)
    x = torch.where(choice < 8, special[choice.clamp(max=7)], x)
    return x.to(torch.float8_e4m3fn)
