"""Inputs of `mla_cache_gather`."""

from __future__ import annotations

import torch

from dsa_kernels.testing.cases import _gathering, _rules
from dsa_kernels.testing.cases._common import (
    Work,
    dtype_of,
    item_bytes,
    mla_cache,
    poisoned,
    record_bytes,
    strided,
)

ROWS = "lengths"
SMALL = (
    dict(lengths=[4, 9], page_size=5, cache_format="v32", seq_start=[2, 0]),
    dict(lengths=[3, 0, 12], page_size=7, cache_format="v32", seq_start=[2, 0, 5]),
)
BENCH = {
    "v32-8k": dict(lengths=[8192], cache_format="v32"),
    "v32-32k": dict(lengths=[32768], cache_format="v32"),
    "v4-8k": dict(lengths=[8192], cache_format="v4", d_qk=512),
    "bf16-8k": dict(lengths=[8192], cache_format="bf16"),
    "v32-128k": dict(lengths=[131072], cache_format="v32"),
}


def make(
    generator: torch.Generator,
    *,
    lengths: list[int],
    cache_format: str,
    d_qk: int = 576,
    page_size: int = 64,
    seq_start: list[int] | None = None,
    extra_rows: int = 0,
    out_dtype: str = "bfloat16",
    scale_format: str = "ue8m0",
    data: str = "normal",
    broken: float = 0.0,
    pad: int = 0,
) -> list:
    paging = _gathering.paging(generator, lengths, page_size, seq_start, extra_rows, broken, pad)
    cache = mla_cache(
        paging.num_pages,
        page_size,
        cache_format,
        d_qk,
        generator,
        used=paging.used,
        data=data,
        scale_format=scale_format,
        pad=4 * pad,
    )
    out = poisoned((paging.num_tokens, d_qk), dtype_of(out_dtype), pad=pad)
    table = strided(paging.block_table, pad)
    return [cache, table, paging.cu_seq_lens, paging.seq_start, cache_format, out]


def random_shape(rng) -> dict:
    cache_format = rng.choice(["v32", "v32", "v4", "bf16"])
    d_qk = {"v32": 576, "v4": 512, "bf16": rng.choice([576, 512])}[cache_format]
    return dict(
        **_gathering.random_paging(rng),
        cache_format=cache_format,
        d_qk=d_qk,
        out_dtype=rng.choice(["bfloat16", "float32"]),
        scale_format=rng.choice(["ue8m0", "float32"]) if cache_format == "v32" else "ue8m0",
        data=rng.choice(["normal", "zeros", "ties", "huge", "nan"]),
    )


def work(
    *, lengths: list[int], cache_format: str, d_qk: int = 576, out_dtype: str = "bfloat16", **_
) -> Work:
    tokens = sum(lengths)
    row = record_bytes(cache_format, d_qk) + d_qk * item_bytes(out_dtype)
    return Work(flops=tokens * d_qk, bytes=tokens * row)


def compare(expected: dict, actual: dict) -> float:
    return _rules.bitwise(expected, actual, "out")


def public_arguments(arguments: dict) -> dict:
    return {**arguments, "num_tokens": arguments["out"].shape[0]}
