"""Inputs of `indexer_k_cache_store`."""

from __future__ import annotations

import torch

from dsa_kernels.formats import INDEX_SCALE_BYTES
from dsa_kernels.testing.cases import _rope, _rules
from dsa_kernels.testing.cases._common import (
    Work,
    dtype_of,
    floats,
    item_bytes,
    poisoned,
    strided,
)
from dsa_kernels.testing.cases.mla_cache_store import slots_for

ROWS = "num_tokens"
SMALL = tuple(
    dict(**sizes, head_dim=64, rope_dim=32, skipped=0.3)
    for sizes in (
        dict(num_tokens=3, num_pages=2, page_size=4, max_position=20),
        dict(num_tokens=5, num_pages=3, page_size=7, max_position=30),
    )
)
_RAW = dict(rope_layout="none", hadamard=False, norm=None)
BENCH = {
    f"{name}-{tokens}-tokens": dict(
        num_tokens=tokens, num_pages=max(16, tokens // 64), page_size=64, order="pages", **options
    )
    for name, tokens, options in (
        ("v32", 2, {}),
        ("v32", 512, {}),
        ("v32", 65536, {}),
        ("glm5", 512, dict(rope_layout="interleaved")),
        ("raw", 512, _RAW),
        ("raw", 65536, _RAW),
    )
}


def make(
    generator: torch.Generator,
    *,
    num_tokens: int,
    num_pages: int,
    page_size: int,
    head_dim: int = 128,
    norm: str | None = "float32",
    rope_layout: str = "neox",
    rope_dim: int = 64,
    max_position: int = 8192,
    position_dtype: str = "int64",
    slot_dtype: str = "int64",
    skipped: float = 0.0,
    order: str = "random",  # of slots, see slots_for
    broken: float = 0.0,
    hadamard: bool = True,
    scale_format: str = "ue8m0",
    dtype: str = "bfloat16",
    data: str = "normal",
    pad: int = 0,
) -> list:
    k = floats((num_tokens, head_dim), generator, dtype, data, huge=1e15)
    weight = bias = None
    if norm is not None:
        weight = (torch.randn(head_dim, generator=generator) * 0.1 + 1).to(dtype_of(norm))
        bias = (torch.randn(head_dim, generator=generator) * 0.1).to(dtype_of(norm))
    positions, cos_sin = _rope.rope(
        num_tokens, rope_layout, rope_dim, max_position, position_dtype, broken, generator
    )
    slots = slots_for(num_tokens, num_pages, page_size, generator, slot_dtype, skipped, order)
    shape = (num_pages, page_size, head_dim + INDEX_SCALE_BYTES)
    return [
        strided(k, pad),
        slots,
        weight,
        bias,
        1e-6,
        positions,
        cos_sin if cos_sin is None else strided(cos_sin, pad),
        rope_layout,
        hadamard,
        scale_format,
        poisoned(shape, torch.uint8, pad=4 * pad, packed_from=1),
    ]


def random_shape(rng) -> dict:
    num_pages, page_size = rng.randint(1, 4), rng.choice([1, 2, 16, 64, rng.randint(1, 30)])
    return dict(
        num_tokens=rng.randint(1, min(num_pages * page_size, 40)),
        num_pages=num_pages,
        page_size=page_size,
        norm=rng.choice([None, "float32", "bfloat16"]),
        slot_dtype=rng.choice(["int32", "int64"]),
        skipped=rng.choice([0.0, 0.3, 1.0]),
        order=rng.choice(["random", "pages"]),
        **_rope.random_rope(rng),
    )


def work(*, num_tokens: int, head_dim: int = 128, dtype: str = "bfloat16", **_) -> Work:
    butterflies = head_dim.bit_length() - 1
    return Work(
        flops=num_tokens * head_dim * (butterflies + 12),
        bytes=num_tokens * (head_dim * item_bytes(dtype) + 8 + head_dim + INDEX_SCALE_BYTES),
    )


def compare(expected: dict, actual: dict) -> float:
    if expected["rope_layout"] == "none" and expected["norm_weight"] is None:
        return _rules.bitwise(expected, actual, "cache")
    e_codes, e_scales = _rules.index_records(expected["cache"])
    a_codes, a_scales = _rules.index_records(actual["cache"])
    slots = expected["slots"].long()
    written = torch.zeros(e_scales.shape, dtype=torch.bool)
    written[slots[(slots >= 0) & (slots < written.numel())]] = True
    for e, a, what in ((e_codes, a_codes, "codes"), (e_scales, a_scales, "scales")):
        _rules.assert_bitwise_equal(a[~written], e[~written], f"{what} of slots not written")
    _rules.same_specials(e_scales, a_scales, "scales")
    ratio = torch.where(e_scales.isfinite(), a_scales / e_scales, 1.0)[written]
    return _rules.adjacent_codes(
        e_codes[written], a_codes[written], ratio, "codes", hadamard=expected["hadamard"]
    )
