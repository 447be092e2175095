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


def sampled_places(n: int, *, retry: bool = False) -> torch.Tensor:
    """Where the CPU's topk_indices samples a row of n scores (csrc/cpu/topk_indices.cpp)."""
    size = 1024 if n < 524288 else 2048
    i = torch.arange(size)
    hashed = ((i ^ (0x5BD1E995 if retry else 0)) * 0x9E3779B1) & 0xFFFFFFFF
    hashed = ((hashed ^ hashed >> 15) * 0x85EBCA6B) & 0xFFFFFFFF
    begin, end = i * n // size, (i + 1) * n // size
    return begin + (hashed * (end - begin) >> 32)


def adversarial_rows(n: int, k: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields (name, float32 [n]) score rows made to mislead the sampling of a top-k of n.

    Some entries where it looks are the best of the row, or the worst, so that its thresholds let
    too few or too many through; rows of few ulps then leave the longest way to the k-th score.
    """
    generator = torch.Generator().manual_seed(n + k)
    normal = torch.randn(n, generator=generator)
    first, second = sampled_places(n), sampled_places(n, retry=True)
    few_ulps = torch.randint(0, 8, (n,), generator=generator, dtype=torch.int32)
    few_ulps = (few_ulps + 0x3F800000).view(torch.float32)

    def row(bulk: torch.Tensor, *shifted: tuple[torch.Tensor, float]) -> torch.Tensor:
        row = bulk.clone()
        for places, shift in shifted:
            row[places] = normal[places] + shift
        return row

    fewer = first[: max(1, k // 2)]  # fewer than k of them
    yield "sample_is_best", row(normal, (first, 20.0))
    yield "sample_is_best_but_few", row(normal, (fewer, 20.0))
    yield "sample_is_worst", row(normal, (first, -20.0))
    yield "both_samples_are_best", row(normal, (first, 20.0), (second, 20.0))
    yield "both_samples_are_worst", row(normal, (first, -20.0), (second, -20.0))
    yield "best_then_worst", row(few_ulps, (first, 1e38), (second, -1e38))
    yield "worst_then_best", row(few_ulps, (second, 1e38), (first, -1e38))
    nan_first = normal.clone()
    nan_first[first] = math.nan
    yield "sample_is_nan", nan_first
    nan_elsewhere = torch.full((n,), math.nan)
    nan_elsewhere[first] = normal[first]
    yield "rest_is_nan", nan_elsewhere


def random_fp8(shape, generator: torch.Generator, *, scale: float = 1.0) -> torch.Tensor:
    """float8_e4m3fn of normal values, with zeros, subnormals and the largest codes mixed in."""
    x = torch.randn(shape, generator=generator) * scale
    special = torch.tensor([0.0, -0.0, 448.0, -448.0, 2.0**-9, -(2.0**-9), 2.0**-6, 1.0])
    choice = torch.randint(0, 64, x.shape, generator=generator)
    x = torch.where(choice < 8, special[choice.clamp(max=7)], x)
    return x.to(torch.float8_e4m3fn)
