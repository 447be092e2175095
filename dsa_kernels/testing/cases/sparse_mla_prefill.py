"""Inputs of `sparse_mla_prefill`."""

from __future__ import annotations

import torch

from dsa_kernels.formats import D_V
from dsa_kernels.testing.cases import _attention, _rules
from dsa_kernels.testing.cases._common import (
    HOSTILE_INDICES,
    Work,
    attention_flops,
    floats,
    integers,
    item_bytes,
    mla_cache,
    poisoned,
    prefill_shapes,
    record_bytes,
    sink,
    sprinkle,
    strided,
)

ROWS = "num_queries"
SMALL = (
    dict(num_queries=2, num_kv=20, num_heads=3, topk=8, kv_start=True, topk_length=True),
    dict(num_queries=4, num_kv=37, num_heads=5, topk=11, kv_start=True, topk_length=True),
)
BENCH = prefill_shapes(
    lambda m, n, keys: dict(
        num_queries=n, num_kv=keys, num_heads=m.heads, d_qk=m.d_qk, topk=m.topk
    ),
    fraction=8,
) | {
    "v32-paged-16x8k": dict(
        num_queries=16, num_kv=8192, num_heads=128, topk=2048, cache_format="v32"
    )
}


def make(
    generator: torch.Generator,
    *,
    num_queries: int,
    num_kv: int,  # rounded up to whole pages of a paged cache
    num_heads: int,
    topk: int,
    d_qk: int = 576,
    dtype: str = "bfloat16",
    cache_format: str = "",
    page_size: int = 64,
    scale_format: str = "ue8m0",
    kv_start: bool = False,
    topk_length: bool = False,
    attn_sink: str = "none",
    selection: str = "random",
    sm_scale: float = _attention.SM_SCALE,
    data: str = "normal",
    pad: int = 0,
) -> list:
    rows = (num_queries,)
    num_pages = -(-num_kv // page_size)
    capacity = num_pages * page_size if cache_format else num_kv
    indices = _attention.select(rows, topk, capacity, selection, generator)
    start = None
    if kv_start:
        start = integers(0, capacity, rows, generator)
        start = sprinkle(start, HOSTILE_INDICES, generator, 0.1)
    lengths = _attention.lengths(rows, topk, generator) if topk_length else None
    used = _attention.read(indices, lengths, capacity, start)
    if cache_format:
        kv = mla_cache(
            num_pages,
            page_size,
            cache_format,
            d_qk,
            generator,
            used=used,
            data=data,
            scale_format=scale_format,
            pad=4 * pad,
        )
    else:
        kv = floats((num_kv, d_qk), generator, dtype, data, huge=100.0)
        kv[~used] = torch.nan
        kv = strided(kv, pad)
    q = floats((num_queries, num_heads, d_qk), generator, dtype, data, huge=100.0)
    per_head = (num_queries, num_heads)
    return [
        strided(q, pad),
        None if cache_format else kv,
        kv if cache_format else None,
        strided(indices, pad),
        start,
        lengths,
        sink(num_heads, generator, attn_sink),
        sm_scale,
        cache_format,
        poisoned((*per_head, D_V), q.dtype, pad=pad),
        poisoned(per_head, torch.float32, pad=pad),
        poisoned(per_head, torch.float32, pad=pad),
    ]


def random_shape(rng) -> dict:
    cache_format = rng.choice(["", "", "v32", "v4", "bf16"])
    d_qk = {"v32": 576, "v4": 512}.get(cache_format) or rng.choice([576, 512])
    return dict(
        num_queries=rng.randint(1, 4),
        num_kv=rng.choice([1, 64, rng.randint(1, 600)]),
        **_attention.random_queries(rng),
        d_qk=d_qk,
        cache_format=cache_format,
        page_size=rng.choice([1, 2, 16, 64, rng.randint(1, 100)]),
        scale_format=rng.choice(["ue8m0", "float32"]) if cache_format == "v32" else "ue8m0",
        kv_start=not cache_format and rng.random() < 0.5,
    )


def work(
    *,
    num_queries: int,
    num_kv: int,
    num_heads: int,
    topk: int,
    d_qk: int = 576,
    dtype: str = "bfloat16",
    cache_format: str = "",
    **_,
) -> Work:
    key = record_bytes(cache_format, d_qk) if cache_format else d_qk * item_bytes(dtype)
    rows = num_queries * num_heads
    return Work(
        flops=attention_flops(num_queries, num_heads, d_qk, topk),
        bytes=rows * ((d_qk + D_V) * item_bytes(dtype) + 8)
        + min(num_kv, num_queries * topk) * key
        + 4 * num_queries * topk,
    )


def compare(expected: dict, actual: dict) -> float:
    kv, cache, cache_format = (expected[n] for n in ("kv", "cache", "cache_format"))
    capacity = kv.shape[0] if cache is None else cache.shape[0] * cache.shape[1]
    used = _attention.read(
        expected["indices"], expected["topk_length"], capacity, expected["kv_start"]
    )
    keys = kv[used].float() if cache is None else _attention.latent_keys(cache, cache_format, used)
    return _rules.attention(expected, actual, [keys], expected["indices"].shape[-1])


def public_arguments(arguments: dict) -> dict:
    """The public function takes either kind of keys as kv."""
    if arguments["cache"] is None:
        return {**arguments, "cache_format": None}
    return {**arguments, "kv": arguments["cache"]}
