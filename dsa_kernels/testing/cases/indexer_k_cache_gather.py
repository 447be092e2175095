"""Inputs of `indexer_k_cache_gather`."""

from __future__ import annotations

import torch

from dsa_kernels.testing.cases import _gathering, _rules
from dsa_kernels.testing.cases._common import Work, index_cache, poisoned, strided

ROWS = "lengths"
SMALL = (
    dict(lengths=[4, 9], page_size=5, head_dim=64, seq_start=[2, 0]),
    dict(lengths=[3, 0, 12], page_size=7, head_dim=64, seq_start=[2, 0, 5]),
)
BENCH = {
    "v32-8k": dict(lengths=[8192]),
    "v32-32k": dict(lengths=[32768]),
    "v32-128k": dict(lengths=[131072]),
    "v32-4x8k": dict(lengths=[8192] * 4),
}


def make(
    generator: torch.Generator,
    *,
    lengths: list[int],
    head_dim: int = 128,
    page_size: int = 64,
    seq_start: list[int] | None = None,
    extra_rows: int = 0,
    scale_format: str = "ue8m0",
    data: str = "normal",
    broken: float = 0.0,
    pad: int = 0,
) -> list:
    paging = _gathering.paging(generator, lengths, page_size, seq_start, extra_rows, broken, pad)
    cache = index_cache(
        paging.num_pages,
        page_size,
        head_dim,
        generator,
        used=paging.used,
        data=data,
        scale_format=scale_format,
        pad=4 * pad,
    )
    k_out = poisoned((paging.num_tokens, head_dim), torch.float8_e4m3fn, pad=pad)
    scale_out = poisoned((paging.num_tokens,), torch.float32)
    table = strided(paging.block_table, pad)
    return [cache, table, paging.cu_seq_lens, paging.seq_start, k_out, scale_out]


def random_shape(rng) -> dict:
    return dict(
        **_gathering.random_paging(rng),
        head_dim=rng.choice([64, 128]),
        scale_format=rng.choice(["ue8m0", "float32"]),
        data=rng.choice(["normal", "zeros", "ties", "huge", "nan"]),
    )


def work(*, lengths: list[int], head_dim: int = 128, **_) -> Work:
    return Work(flops=0, bytes=2 * sum(lengths) * (head_dim + 4))


def compare(expected: dict, actual: dict) -> float:
    return _rules.bitwise(expected, actual, "k_out", "scale_out")


def public_arguments(arguments: dict) -> dict:
    return {**arguments, "num_tokens": arguments["k_out"].shape[0]}
