"""Inputs of `topk_indices`."""

from __future__ import annotations

import torch

from dsa_kernels.testing.cases import _rules
from dsa_kernels.testing.cases._common import (
    Work,
    decode_shapes,
    integers,
    poisoned,
    prefill_shapes,
    ragged,
    strided,
)
from dsa_kernels.testing.generators import hostile_rows

KINDS = [name for name, _ in hostile_rows(8, torch.Generator())]
ROWS = "num_rows"
SMALL = (
    dict(num_rows=3, seq_len=40, topk=8, row_end=[40, 0, 20], kind="nan_mix"),
    dict(num_rows=5, seq_len=57, topk=8, row_end=[57, 0, 20, -2, 60], kind="nan_mix"),
)
BENCH = {
    **decode_shapes(lambda m, keys: dict(num_rows=2, seq_len=keys, topk=m.topk)),
    **prefill_shapes(lambda m, n, keys: dict(num_rows=n, seq_len=keys, topk=m.topk)),
    "v32-plateau-8k": dict(num_rows=128, seq_len=8192, topk=2048, kind="zero_plateau"),
}


def make(
    generator: torch.Generator,
    *,
    num_rows: int,
    seq_len: int,
    topk: int,
    kind: str = "random",
    row_start: bool = False,
    row_end: list[int] | None = None,  # cycled over the rows
    pad: int = 0,
) -> list:
    rows = [
        next(row for name, row in hostile_rows(seq_len, generator) if name == kind)
        for _ in range(num_rows)
    ]
    scores = torch.stack(rows) if rows else torch.empty(0, seq_len)
    ends = None
    if row_end is not None:
        ends = torch.tensor([row_end[r % len(row_end)] for r in range(num_rows)], dtype=torch.int32)
        past = torch.arange(seq_len) >= ends[:, None]
        scores = torch.where(past, torch.nan, scores)
    starts = integers(-2, seq_len // 2 + 1, (num_rows,), generator) if row_start else None
    out = poisoned((num_rows, topk), torch.int32, pad=pad)
    return [strided(scores, pad), starts, ends, topk, out]


def random_shape(rng) -> dict:
    seq_len = rng.choice([1, 7, 300, 2500, 9000, rng.randint(1, 5000)])
    num_rows = rng.randint(1, 5)
    return dict(
        num_rows=num_rows,
        seq_len=seq_len,
        topk=min(4096, rng.choice([1, 64, 2048, seq_len, rng.randint(1, 4096)])),
        kind=rng.choice(KINDS),
        row_start=rng.random() < 0.3,
        row_end=ragged(rng, num_rows, seq_len + 3) if rng.random() < 0.5 else None,
        pad=rng.choice([0, 0, 5]),
    )


def work(*, num_rows: int, seq_len: int, topk: int, **_) -> Work:
    return Work(flops=num_rows * seq_len, bytes=4 * num_rows * (seq_len + topk))


def compare(expected: dict, actual: dict) -> float:
    return _rules.bitwise(expected, actual, "out")
