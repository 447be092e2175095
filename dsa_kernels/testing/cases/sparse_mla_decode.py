"""Inputs of `sparse_mla_decode`."""

from __future__ import annotations

import torch

from dsa_kernels.formats import D_V
from dsa_kernels.testing.cases import _attention, _rules
from dsa_kernels.testing.cases._common import (
    Work,
    attention_flops,
    decode_shapes,
    floats,
    item_bytes,
    mla_cache,
    poisoned,
    record_bytes,
    sink,
    strided,
)

ROWS = "batch"
SMALL = (
    dict(batch=2, next_n=3, num_kv=20, num_heads=5, topk=8, page_size=4, cache_format="v32"),
    dict(batch=3, next_n=2, num_kv=37, num_heads=6, topk=11, page_size=7, cache_format="v32"),
)
BENCH = decode_shapes(
    lambda m, keys: dict(
        batch=2,
        num_kv=keys,
        num_heads=m.heads,
        d_qk=m.d_qk,
        topk=m.topk,
        cache_format=m.cache_format,
    )
) | {
    "v4-decode-window": dict(
        batch=2,
        next_n=2,
        num_kv=1024,
        page_size=256,
        num_heads=64,
        d_qk=512,
        topk=128,
        cache_format="v4",
        extra_kv=8192,
        extra_topk=512,
        extra_page_size=64,
        attn_sink="normal",
    ),
}


def make(
    generator: torch.Generator,
    *,
    batch: int,
    num_kv: int,  # rounded up to whole pages
    num_heads: int,
    topk: int,
    cache_format: str,
    next_n: int = 1,
    d_qk: int = 576,
    dtype: str = "bfloat16",
    page_size: int = 64,
    scale_format: str = "ue8m0",
    extra_kv: int = 0,
    extra_topk: int = 0,
    extra_page_size: int = 64,
    extra_topk_length: bool = False,
    topk_length: bool = False,
    attn_sink: str = "none",
    batch_invariant: bool = False,
    selection: str = "random",
    sm_scale: float = _attention.SM_SCALE,
    data: str = "normal",
    pad: int = 0,
) -> list:
    rows = (batch, next_n)

    def scope(num_kv: int, page_size: int, topk: int, with_lengths: bool) -> list:
        num_pages = -(-num_kv // page_size)
        capacity = num_pages * page_size
        indices = _attention.select(rows, topk, capacity, selection, generator)
        lengths = _attention.lengths(rows, topk, generator) if with_lengths else None
        cache = mla_cache(
            num_pages,
            page_size,
            cache_format,
            d_qk,
            generator,
            used=_attention.read(indices, lengths, capacity),
            data=data,
            scale_format=scale_format,
            pad=4 * pad,
        )
        return [cache, strided(indices, pad), lengths]

    q = floats((*rows, num_heads, d_qk), generator, dtype, data, huge=100.0)
    extra = [None, None, None]
    if extra_topk:
        extra = scope(extra_kv, extra_page_size, extra_topk, extra_topk_length)
    return [
        strided(q, pad),
        *scope(num_kv, page_size, topk, topk_length),
        sink(num_heads, generator, attn_sink),
        *extra,
        sm_scale,
        cache_format,
        batch_invariant,
        poisoned((*rows, num_heads, D_V), q.dtype, pad=pad),
        poisoned((*rows, num_heads), torch.float32, pad=pad),
    ]


def random_shape(rng) -> dict:
    cache_format = rng.choice(["v32", "v32", "v4", "bf16"])
    d_qk = {"v32": 576, "v4": 512}.get(cache_format) or rng.choice([576, 512])
    shape = dict(
        batch=rng.randint(1, 3),
        next_n=rng.randint(1, 3),
        num_kv=rng.choice([1, 64, rng.randint(1, 600)]),
        **_attention.random_queries(rng),
        d_qk=d_qk,
        cache_format=cache_format,
        page_size=rng.choice([1, 2, 16, 64, rng.randint(1, 100)]),
        scale_format=rng.choice(["ue8m0", "float32"]) if cache_format == "v32" else "ue8m0",
        batch_invariant=rng.random() < 0.5,
    )
    if rng.random() < 0.5:
        shape["extra_kv"] = rng.randint(1, 300)
        shape["extra_topk"] = rng.choice([1, 64, rng.randint(1, 200)])
        shape["extra_page_size"] = rng.choice([1, 2, 16, 64])
        shape["extra_topk_length"] = rng.random() < 0.5
    return shape


def work(
    *,
    batch: int,
    num_kv: int,
    num_heads: int,
    topk: int,
    cache_format: str,
    next_n: int = 1,
    d_qk: int = 576,
    dtype: str = "bfloat16",
    extra_kv: int = 0,
    extra_topk: int = 0,
    **_,
) -> Work:
    queries = batch * next_n
    keys = min(num_kv, queries * topk) + min(extra_kv, queries * extra_topk)
    return Work(
        flops=attention_flops(queries, num_heads, d_qk, topk + extra_topk),
        bytes=queries * num_heads * ((d_qk + D_V) * item_bytes(dtype) + 4)
        + keys * record_bytes(cache_format, d_qk)
        + 4 * queries * (topk + extra_topk),
    )


def compare(expected: dict, actual: dict) -> float:
    keys, entries = [], 0
    for prefix in ("", "extra_"):
        cache, indices = expected[f"{prefix}cache"], expected[f"{prefix}indices"]
        if cache is None:
            continue
        capacity = cache.shape[0] * cache.shape[1]
        used = _attention.read(indices, expected[f"{prefix}topk_length"], capacity)
        keys.append(_attention.latent_keys(cache, expected["cache_format"], used))
        entries += indices.shape[-1]
    return _rules.attention(expected, actual, keys, entries)
