"""Inputs of `indexer_q_rope_quant`."""

from __future__ import annotations

import torch

from dsa_kernels.testing.cases import _rope, _rules
from dsa_kernels.testing.cases._common import (
    MODELS,
    Work,
    dtype_of,
    floats,
    item_bytes,
    poisoned,
    strided,
)

ROWS = "num_tokens"
SMALL = tuple(
    dict(**sizes, head_dim=64, rope_dim=32, rope_layout="neox")
    for sizes in (
        dict(num_tokens=3, num_heads=4, max_position=20),
        dict(num_tokens=5, num_heads=6, max_position=30),
    )
)
BENCH = {
    f"{name}-{tokens}-tokens": dict(
        num_tokens=tokens, num_heads=m.index_heads, rope_layout=m.rope_layout
    )
    for name, m in MODELS.items()
    for tokens in (2, 512)
}


def make(
    generator: torch.Generator,
    *,
    num_tokens: int,
    num_heads: int,
    rope_layout: str,
    head_dim: int = 128,
    rope_dim: int = 64,
    max_position: int = 8192,
    position_dtype: str = "int64",
    broken: float = 0.0,
    hadamard: bool = True,
    weights_scale: float = 0.0884,
    scale_format: str = "ue8m0",
    dtype: str = "bfloat16",
    weights_dtype: str = "float32",
    data: str = "normal",
    pad: int = 0,
) -> list:
    q = floats((num_tokens, num_heads, head_dim), generator, dtype, data, huge=1e30)
    weights = torch.randn((num_tokens, num_heads), generator=generator).to(dtype_of(weights_dtype))
    positions, cos_sin = _rope.rope(
        num_tokens, rope_layout, rope_dim, max_position, position_dtype, broken, generator
    )
    return [
        strided(q, pad),
        strided(weights, pad),
        positions,
        cos_sin if cos_sin is None else strided(cos_sin, pad),
        rope_layout,
        hadamard,
        weights_scale,
        scale_format,
        poisoned((num_tokens, num_heads, head_dim), torch.float8_e4m3fn, pad=pad),
        poisoned((num_tokens, num_heads), torch.float32, pad=pad),
    ]


def random_shape(rng) -> dict:
    return dict(
        num_tokens=rng.randint(1, 6),
        num_heads=rng.choice([1, 3, 16, 64]),
        weights_dtype=rng.choice(["float32", "bfloat16"]),
        weights_scale=rng.choice([1.0, 0.0884]),
        **_rope.random_rope(rng),
    )


def work(
    *, num_tokens: int, num_heads: int, head_dim: int = 128, dtype: str = "bfloat16", **_
) -> Work:
    vectors = num_tokens * num_heads
    butterflies = head_dim.bit_length() - 1
    return Work(
        flops=vectors * head_dim * (butterflies + 6),
        bytes=vectors * (head_dim * (item_bytes(dtype) + 1) + 8),
    )


def compare(expected: dict, actual: dict) -> float:
    if expected["rope_layout"] == "none":
        return _rules.bitwise(expected, actual, "q_out", "weights_out")
    e, a = expected["weights_out"], actual["weights_out"]
    _rules.same_specials(e, a, "weights_out")
    # The scale is folded into the weight, so their ratio is the scales' ratio.
    ratio = torch.where((e == a) | ~e.isfinite() | (e == 0), 1.0, a / e)
    head_dim = expected["q_out"].shape[-1]
    codes = (x["q_out"].reshape(-1, head_dim) for x in (expected, actual))
    return _rules.adjacent_codes(*codes, ratio.reshape(-1), "q_out", hadamard=expected["hadamard"])
