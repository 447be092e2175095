"""Inputs of `mqa_logits`."""

from __future__ import annotations

import torch

from dsa_kernels.testing.cases import _rules, _scoring
from dsa_kernels.testing.cases._common import (
    Work,
    decode_shapes,
    dtype_of,
    item_bytes,
    poisoned,
    prefill_shapes,
)

ROWS = "num_rows"
SMALL = tuple(
    dict(**sizes, num_heads=8, head_dim=64, dtype="bfloat16", bounds="ragged")
    for sizes in (dict(num_rows=3, seq_len=40), dict(num_rows=5, seq_len=57))
)
BENCH = {
    **decode_shapes(lambda m, keys: dict(num_rows=2, seq_len=keys, num_heads=m.index_heads)),
    **prefill_shapes(
        lambda m, n, keys: dict(num_rows=n, seq_len=keys, num_heads=m.index_heads, bounds="causal")
    ),
    "v32-prefill-128x8k-bfloat16": dict(
        num_rows=128, seq_len=8192, num_heads=64, bounds="causal", dtype="bfloat16", k_scale=False
    ),
}


def make(
    generator: torch.Generator,
    *,
    num_rows: int,
    seq_len: int,
    num_heads: int,
    head_dim: int = 128,
    dtype: str = "float8_e4m3fn",
    out_dtype: str = "float32",
    k_scale: bool = True,
    bounds: str = "full",
    layout: str = "full",
    width: int | None = None,
    fill: bool = True,
    data: str = "normal",
    pad: int = 0,
) -> list:
    inputs = _scoring.ragged_inputs(
        generator, num_rows, seq_len, num_heads, head_dim, dtype, k_scale, bounds, data, pad
    )
    width = seq_len if layout == "full" or width is None else width
    out = poisoned((num_rows, width), dtype_of(out_dtype), pad=pad)
    return [*inputs, layout, fill, out]


def random_shape(rng) -> dict:
    shape = _scoring.random_ragged(rng)
    shape["out_dtype"] = rng.choice(["float32", "float32", "bfloat16"])
    shape["fill"] = rng.random() < 0.7
    if rng.random() < 0.4:
        shape["layout"] = "compressed"
        shape["width"] = rng.choice([1, shape["seq_len"], rng.randint(1, shape["seq_len"] + 9)])
    return shape


def work(
    *,
    num_rows: int,
    seq_len: int,
    num_heads: int,
    head_dim: int = 128,
    dtype: str = "float8_e4m3fn",
    out_dtype: str = "float32",
    bounds: str = "full",
    **_,
) -> Work:
    pairs = _scoring.pairs(num_rows, seq_len, bounds)
    values = num_rows * num_heads * head_dim + seq_len * head_dim
    scales = 4 * (num_rows * num_heads + seq_len)
    return Work(
        flops=2 * pairs * num_heads * head_dim,
        bytes=values * item_bytes(dtype) + scales + num_rows * seq_len * item_bytes(out_dtype),
    )


def compare(expected: dict, actual: dict) -> float:
    _, bound = _scoring.ragged_scores(expected)
    out = expected["out"]
    if expected["layout"] == "compressed" and expected["row_start"] is not None:
        column = torch.arange(out.shape[1]) + expected["row_start"].clamp(min=0)[:, None]
        bound = bound.gather(1, column.clamp(max=bound.shape[1] - 1).long())
    elif bound.shape != out.shape:
        bound = torch.cat([bound, torch.zeros(out.shape, dtype=bound.dtype)], 1)
        bound = bound[:, : out.shape[1]]
    return _rules.close(out, actual["out"], bound, "out")
