"""Inputs of `indexer_topk`."""

from __future__ import annotations

import torch

from dsa_kernels.ops.indexer_topk import workspace_bytes
from dsa_kernels.testing.cases import _rules, _scoring
from dsa_kernels.testing.cases._common import (
    Work,
    decode_shapes,
    item_bytes,
    poisoned,
    prefill_shapes,
)

ROWS = "num_rows"
SMALL = tuple(
    dict(**sizes, num_heads=8, head_dim=64, dtype="bfloat16", bounds="ragged")
    for sizes in (dict(num_rows=3, seq_len=40, topk=8), dict(num_rows=5, seq_len=57, topk=8))
)
BENCH = {
    **decode_shapes(
        lambda m, keys: dict(num_rows=2, seq_len=keys, num_heads=m.index_heads, topk=m.topk)
    ),
    **prefill_shapes(
        lambda m, n, keys: dict(
            num_rows=n, seq_len=keys, num_heads=m.index_heads, topk=m.topk, bounds="causal"
        )
    ),
}


def make(
    generator: torch.Generator,
    *,
    num_rows: int,
    seq_len: int,
    num_heads: int,
    topk: int,
    head_dim: int = 128,
    dtype: str = "float8_e4m3fn",
    k_scale: bool = True,
    bounds: str = "full",
    data: str = "normal",
    pad: int = 0,
) -> list:
    inputs = _scoring.ragged_inputs(
        generator, num_rows, seq_len, num_heads, head_dim, dtype, k_scale, bounds, data, pad
    )
    workspace = poisoned((workspace_bytes(num_rows, seq_len),), torch.uint8)
    return [*inputs, topk, workspace, poisoned((num_rows, topk), torch.int32, pad=pad)]


def random_shape(rng) -> dict:
    shape = _scoring.random_ragged(rng)
    shape["topk"] = rng.choice([1, 64, 2048, rng.randint(1, shape["seq_len"] + 9)])
    return shape


def work(
    *,
    num_rows: int,
    seq_len: int,
    num_heads: int,
    topk: int,
    head_dim: int = 128,
    dtype: str = "float8_e4m3fn",
    bounds: str = "full",
    **_,
) -> Work:
    pairs = _scoring.pairs(num_rows, seq_len, bounds)
    values = num_rows * num_heads * head_dim + seq_len * head_dim
    return Work(
        flops=2 * pairs * num_heads * head_dim,
        bytes=values * item_bytes(dtype)
        + 4 * (num_rows * num_heads + seq_len)
        + 4 * num_rows * topk,
    )


def compare(expected: dict, actual: dict) -> float:
    gold, bound = _scoring.ragged_scores(expected)
    seq_len = gold.shape[1]
    worst = 0.0
    for r in range(gold.shape[0]):
        start, end = 0, seq_len
        if expected["row_start"] is not None:
            start = max(int(expected["row_start"][r]), 0)
        if expected["row_end"] is not None:
            end = min(int(expected["row_end"][r]), seq_len)
        span = slice(start, max(start, end))
        share = _rules.same_selection(
            expected["out"][r], actual["out"][r], gold[r, span], bound[r, span], f"row {r}"
        )
        worst = max(worst, share)
    return worst
