"""Inputs of `paged_indexer_topk`."""

from __future__ import annotations

import torch

from dsa_kernels.ops.indexer_topk import workspace_bytes
from dsa_kernels.testing.cases import _rules, _scoring
from dsa_kernels.testing.cases._common import Work, decode_shapes, poisoned

ROWS = "seq_lens"
SMALL = (
    dict(seq_lens=[9, 20], next_n=3, num_heads=8, head_dim=64, page_size=4, topk=6, max_seq_len=40),
    dict(
        seq_lens=[33, 0, 5], next_n=2, num_heads=8, head_dim=64, page_size=7, topk=6, max_seq_len=40
    ),
)
BENCH = {
    **decode_shapes(
        lambda m, keys: dict(seq_lens=[keys, keys], num_heads=m.index_heads, topk=m.topk)
    ),
    "v32-decode-8k-mtp": dict(seq_lens=[8192] * 4, next_n=2, num_heads=64, topk=2048),
}


def make(
    generator: torch.Generator,
    *,
    seq_lens: list,
    num_heads: int,
    topk: int,
    next_n: int = 1,
    head_dim: int = 128,
    page_size: int = 64,
    max_seq_len: int | None = None,
    data: str = "normal",
    scale_format: str = "ue8m0",
    broken: float = 0.0,
    pad: int = 0,
) -> list:
    inputs = _scoring.paged_inputs(
        generator, seq_lens, next_n, num_heads, head_dim, page_size, data, scale_format, broken, pad
    )
    if max_seq_len is None:
        max_seq_len = max([1, *inputs[3].flatten().tolist()])
    num_rows = len(seq_lens) * next_n
    workspace = poisoned((workspace_bytes(num_rows, max_seq_len, next_n),), torch.uint8)
    out = poisoned((num_rows, topk), torch.int32, pad=pad)
    return [*inputs, topk, max_seq_len, workspace, out]


def random_shape(rng) -> dict:
    shape = _scoring.random_paged(rng)
    shape["topk"] = rng.choice([1, 64, 2048, rng.randint(1, 900)])
    return shape


def work(
    *, seq_lens: list, num_heads: int, topk: int, next_n: int = 1, head_dim: int = 128, **_
) -> Work:
    scored = sum(max(0, n) for n in _scoring.visible(seq_lens, next_n))
    keys = sum(_scoring.longest(seq_lens))
    rows = len(seq_lens) * next_n
    return Work(
        flops=2 * scored * num_heads * head_dim,
        bytes=keys * (head_dim + 4) + rows * num_heads * (head_dim + 4) + 4 * rows * topk,
    )


def compare(expected: dict, actual: dict) -> float:
    gold, bound = _scoring.paged_scores(expected, expected["max_seq_len"])
    worst = 0.0
    for r, length in enumerate(expected["seq_lens"].flatten().tolist()):
        span = slice(0, max(0, length))
        share = _rules.same_selection(
            expected["out"][r], actual["out"][r], gold[r, span], bound[r, span], f"row {r}"
        )
        worst = max(worst, share)
    return worst
