"""What the two gathers share: requests of ragged lengths over a paged cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_kernels.testing.cases._common import INT_MAX, block_table, ragged, used_slots


@dataclass(frozen=True)
class Paging:
    block_table: torch.Tensor
    cu_seq_lens: torch.Tensor
    seq_start: torch.Tensor | None
    num_pages: int
    num_tokens: int
    used: torch.Tensor


def paging(
    generator: torch.Generator,
    lengths: list[int],
    page_size: int,
    seq_start: list[int] | None,
    extra_rows: int,  # rows outside every request; negative: requests run past the output
    broken: float,
    pad: int,
) -> Paging:
    seq_start = None if seq_start is None else seq_start[: len(lengths)]
    starts = seq_start or [0] * len(lengths)
    # A start that no table holds, such as INT_MAX, is to find no page at all.
    ends = [s + n if s < 10_000 else 0 for s, n in zip(starts, lengths, strict=True)]
    table, num_pages = block_table(ends, page_size, generator, broken=broken)
    total = sum(lengths)
    return Paging(
        block_table=table,
        cu_seq_lens=torch.tensor([0, *lengths]).cumsum(0).int(),
        seq_start=None if seq_start is None else torch.tensor(seq_start, dtype=torch.int32),
        num_pages=num_pages,
        num_tokens=max(0, total + extra_rows),
        used=used_slots(table, ends, page_size, num_pages),
    )


def random_paging(rng) -> dict:
    batch = rng.randint(1, 4)
    lengths = [max(0, n) for n in ragged(rng, batch, rng.choice([3, 40, 200]))]
    starts = None
    if rng.random() < 0.5:
        starts = [rng.choice([0, 1, 17, rng.randint(0, 90), -3, INT_MAX]) for _ in lengths]
    return dict(
        lengths=lengths,
        page_size=rng.choice([1, 2, 16, 64, rng.randint(1, 100)]),
        seq_start=starts,
        extra_rows=rng.choice([0, 0, 4, -5]),
        broken=rng.choice([0.0, 0.0, 0.3]),
        pad=rng.choice([0, 0, 8]),
    )
