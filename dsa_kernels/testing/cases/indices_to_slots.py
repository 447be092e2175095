"""Inputs of `indices_to_slots`."""

from __future__ import annotations

import torch

from dsa_kernels.testing.cases import _rules
from dsa_kernels.testing.cases._common import (
    HOSTILE_INDICES,
    INT_MAX,
    Work,
    block_table,
    decode_shapes,
    integers,
    poisoned,
    prefill_shapes,
    sprinkle,
    strided,
)

ROWS = "rows_per_request"
SMALL = (
    dict(batch=2, rows_per_request=2, topk=8, seq_len=29, page_size=6, request="given"),
    dict(batch=3, rows_per_request=3, topk=11, seq_len=37, page_size=6, request="given"),
)
BENCH = {
    **decode_shapes(lambda m, keys: dict(batch=2, rows_per_request=1, topk=m.topk, seq_len=keys)),
    **prefill_shapes(
        lambda m, n, keys: dict(batch=1, rows_per_request=n, topk=m.topk, seq_len=keys)
    ),
}


def make(
    generator: torch.Generator,
    *,
    batch: int,
    rows_per_request: int,
    topk: int,
    seq_len: int,
    page_size: int = 64,
    request: str = "grouped",  # "given": row_request in random order; "broken": some of it invalid
    hostile: float = 0.05,  # share of indices and pages that are invalid
    pad: int = 0,
) -> list:
    num_rows = batch * rows_per_request
    indices = integers(0, max(seq_len - 1, 0), (num_rows, topk), generator)
    indices = sprinkle(indices, (*HOSTILE_INDICES, seq_len, seq_len * 2), generator, hostile)
    table, _ = block_table([seq_len] * batch, page_size, generator)
    # Entries whose slots do not fit int32 too: no page of a cache, but a value a table can hold.
    table = sprinkle(
        table, (*HOSTILE_INDICES, min(INT_MAX, 2**31 // page_size)), generator, hostile / 2
    )
    row_request = None
    if request != "grouped":
        row_request = integers(0, batch - 1, (num_rows,), generator)
    if request == "broken":
        row_request = sprinkle(row_request, (*HOSTILE_INDICES, batch), generator, 0.3)
    slots = poisoned((num_rows, topk), torch.int32, pad=pad)
    counts = poisoned((num_rows,), torch.int32)
    return [strided(indices, pad), strided(table, pad), row_request, page_size, slots, counts]


def random_shape(rng) -> dict:
    return dict(
        batch=rng.randint(1, 4),
        rows_per_request=rng.randint(1, 5),
        topk=rng.choice([1, 64, 2048, rng.randint(1, 300)]),
        seq_len=rng.choice([1, 64, rng.randint(1, 5000)]),
        page_size=rng.choice([1, 2, 16, 64, rng.randint(1, 100)]),
        request=rng.choice(["grouped", "given", "broken"]),
        hostile=rng.choice([0.0, 0.05, 0.5]),
        pad=rng.choice([0, 0, 5]),
    )


def work(*, batch: int, rows_per_request: int, topk: int, seq_len: int, page_size=64, **_) -> Work:
    rows = batch * rows_per_request
    pages = batch * -(-seq_len // page_size)
    return Work(flops=2 * rows * topk, bytes=8 * rows * topk + 4 * (pages + rows))


def compare(expected: dict, actual: dict) -> float:
    return _rules.bitwise(expected, actual, "slots", "counts")
