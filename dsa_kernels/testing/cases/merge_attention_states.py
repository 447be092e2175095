"""Inputs of `merge_attention_states`."""

from __future__ import annotations

import torch

from dsa_kernels.formats import D_V
from dsa_kernels.testing.cases import _rules
from dsa_kernels.testing.cases._common import (
    MODELS,
    Work,
    dtype_of,
    floats,
    item_bytes,
    poisoned,
    sink,
    sprinkle,
    strided,
)

ROWS = "num_rows"
SMALL = (
    dict(num_parts=2, num_rows=3, num_heads=4, d_v=16, attn_sink="normal"),
    dict(num_parts=3, num_rows=5, num_heads=6, d_v=24, attn_sink="normal"),
)
BENCH = {
    f"{name}-decode-{parts}-parts": dict(num_parts=parts, num_rows=2, num_heads=m.heads)
    for name, m in MODELS.items()
    for parts in (2, 8)
} | {
    "v32-prefill-128": dict(num_parts=2, num_rows=128, num_heads=128),
    "v4-prefill-512": dict(num_parts=2, num_rows=512, num_heads=64, attn_sink="normal"),
}


def make(
    generator: torch.Generator,
    *,
    num_parts: int,
    num_rows: int,
    num_heads: int,
    d_v: int = D_V,
    dtype: str = "bfloat16",
    out_dtype: str | None = None,
    attn_sink: str = "none",
    empty: float = 0.0,  # share of partial results that are of no key
    spread: float = 3.0,
    data: str = "normal",
    pad: int = 0,
) -> list:
    outs = floats((num_parts, num_rows, num_heads, d_v), generator, dtype, data, huge=1e20)
    lses = torch.randn((num_parts, num_rows, num_heads), generator=generator) * spread
    lses = sprinkle(lses, (-torch.inf,), generator, empty)
    outs[lses == -torch.inf] = torch.nan
    out = poisoned((num_rows, num_heads, d_v), dtype_of(out_dtype or dtype), pad=pad)
    lse = poisoned((num_rows, num_heads), torch.float32, pad=pad)
    return [strided(outs, pad), strided(lses, pad), sink(num_heads, generator, attn_sink), out, lse]


def random_shape(rng) -> dict:
    return dict(
        num_parts=rng.choice([1, 2, 3, 9]),
        num_rows=rng.randint(1, 5),
        num_heads=rng.choice([1, 3, 16, 64]),
        d_v=rng.choice([1, 16, 100, D_V]),
        dtype=rng.choice(["bfloat16", "float32"]),
        out_dtype=rng.choice(["bfloat16", "float32"]),
        attn_sink=rng.choice(["none", "normal", "inf"]),
        empty=rng.choice([0.0, 0.3, 1.0]),
        spread=rng.choice([0.0, 3.0, 100.0]),
        data=rng.choice(["normal", "zeros", "ties", "huge"]),
        pad=rng.choice([0, 0, 8]),
    )


def work(
    *, num_parts: int, num_rows: int, num_heads: int, d_v: int = D_V, dtype: str = "bfloat16", **_
) -> Work:
    states = num_rows * num_heads
    return Work(
        flops=2 * num_parts * states * d_v,
        bytes=states * (num_parts + 1) * (d_v * item_bytes(dtype) + 4),
    )


def compare(expected: dict, actual: dict) -> float:
    parts = expected["outs"].shape[0]
    lses = expected["lses"].double()
    largest = expected["outs"].double().nan_to_num(nan=0.0).abs().amax((0, 3))
    # exp(lse_p - lse) is off by the rounding of its argument; a sink's argument may be as large.
    argument = lses.nan_to_num(neginf=0.0).abs().amax(0)
    if expected["attn_sink"] is not None:
        argument = argument + expected["attn_sink"].double().nan_to_num(posinf=0, neginf=0).abs()
    relative = 2 * _rules.EPS32 * (8 * parts + 16 + 8 * argument)
    _rules.close(expected["lse"], actual["lse"], relative, "lse")
    return _rules.close(expected["out"], actual["out"], (largest * relative)[..., None], "out")
