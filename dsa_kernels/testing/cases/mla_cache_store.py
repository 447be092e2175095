"""Inputs of `mla_cache_store`."""

from __future__ import annotations

import torch

from dsa_kernels.formats import FP8_FORMATS, ROPE_DIM
from dsa_kernels.testing.cases import _rules
from dsa_kernels.testing.cases._common import (
    HOSTILE_INDICES,
    MODELS,
    Work,
    dtype_of,
    floats,
    item_bytes,
    poisoned,
    record_bytes,
    sprinkle,
    strided,
)

ROWS = "num_tokens"
SMALL = (
    dict(num_tokens=3, num_pages=2, page_size=4, cache_format="v32", skipped=0.3),
    dict(num_tokens=5, num_pages=3, page_size=7, cache_format="v32", skipped=0.3),
)
BENCH = {
    f"{name}-{tokens}-tokens": dict(
        num_tokens=tokens,
        num_pages=max(16, tokens // 64),
        page_size=64,
        cache_format=MODELS[name].cache_format,
        order="pages",
    )
    for name in ("v32", "v4")
    for tokens in (2, 512, 65536)
} | {
    f"bf16-{tokens}-tokens": dict(
        num_tokens=tokens,
        num_pages=tokens // 64,
        page_size=64,
        cache_format="bf16",
        order="pages",
    )
    for tokens in (512, 65536)
}


def nope_dim_of(cache_format: str, d_qk: int) -> int:
    return d_qk - ROPE_DIM if cache_format == "bf16" else FP8_FORMATS[cache_format].nope_dim


def slots_for(
    num_tokens: int, num_pages: int, page_size: int, generator, dtype: str, skipped: float, order
):
    """Distinct slots, a share `skipped` of them invalid.

    order: "random", or "pages" for tokens that follow each other through pages in random order, as
    a prefill writes them.
    """
    num_slots = num_pages * page_size
    if order == "pages":
        pages = torch.randperm(num_pages, generator=generator)[:, None]
        slots = (pages * page_size + torch.arange(page_size)).flatten()
    else:
        slots = torch.randperm(num_slots, generator=generator)
    slots = slots[:num_tokens].to(dtype_of(dtype))
    invalid = (*HOSTILE_INDICES, num_slots)
    return sprinkle(slots, invalid, generator, skipped)


def make(
    generator: torch.Generator,
    *,
    num_tokens: int,
    num_pages: int,
    page_size: int,
    cache_format: str,
    d_qk: int = 576,  # of a bf16 cache
    dtype: str = "bfloat16",
    scale_format: str = "ue8m0",
    slot_dtype: str = "int64",
    skipped: float = 0.0,
    order: str = "random",
    data: str = "normal",
    pad: int = 0,
) -> list:
    nope_dim = nope_dim_of(cache_format, d_qk)
    kv_c = floats((num_tokens, nope_dim), generator, dtype, data, huge=1e30)
    k_pe = floats((num_tokens, ROPE_DIM), generator, dtype, data, huge=1e30)
    slots = slots_for(num_tokens, num_pages, page_size, generator, slot_dtype, skipped, order)
    bf16 = cache_format == "bf16"
    record = d_qk if bf16 else FP8_FORMATS[cache_format].record
    cache = poisoned(
        (num_pages, page_size, record),
        torch.bfloat16 if bf16 else torch.uint8,
        pad=pad * 4,
        packed_from=1,
    )
    return [strided(kv_c, pad), strided(k_pe, pad), slots, cache_format, scale_format, cache]


def random_shape(rng) -> dict:
    cache_format = rng.choice(["v32", "v32", "v4", "bf16"])
    num_pages, page_size = rng.randint(1, 4), rng.choice([1, 2, 16, 64, rng.randint(1, 30)])
    return dict(
        num_tokens=rng.randint(1, min(num_pages * page_size, 40)),
        num_pages=num_pages,
        page_size=page_size,
        cache_format=cache_format,
        d_qk=rng.choice([576, 512]),
        dtype=rng.choice(["bfloat16", "float32"]),
        scale_format=rng.choice(["ue8m0", "float32"]) if cache_format == "v32" else "ue8m0",
        slot_dtype=rng.choice(["int32", "int64"]),
        skipped=rng.choice([0.0, 0.3, 1.0]),
        order=rng.choice(["random", "pages"]),
        data=rng.choice(["normal", "zeros", "ties", "tiny", "huge", "nan", "inf"]),
        pad=rng.choice([0, 0, 8]),
    )


def work(*, num_tokens: int, cache_format: str, d_qk=576, dtype: str = "bfloat16", **_) -> Work:
    dims = nope_dim_of(cache_format, d_qk) + ROPE_DIM
    record = record_bytes(cache_format, d_qk)
    return Work(
        flops=3 * num_tokens * dims, bytes=num_tokens * (dims * item_bytes(dtype) + 8 + record)
    )


def compare(expected: dict, actual: dict) -> float:
    return _rules.bitwise(expected, actual, "cache")
