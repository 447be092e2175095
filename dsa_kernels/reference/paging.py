"""The walk of the gather ops from output rows to cache slots."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch


def gathered_rows(
    block_table: torch.Tensor,  # int32 [batch, max_pages]
    cu_seq_lens: torch.Tensor,  # int32 [batch+1]
    seq_start: torch.Tensor | None,  # int32 [batch]
    num_tokens: int,
    num_pages: int,
    page_size: int,
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yields each request's rows of the output, and their slots as int64, -1 where invalid.

    A row that two requests claim comes twice: the later request is to overwrite it.
    """
    max_pages = block_table.shape[1]
    bounds = cu_seq_lens.clamp(0, num_tokens).tolist()
    for request, (begin, end) in enumerate(itertools.pairwise(bounds)):
        if begin >= end:
            continue
        first = 0 if seq_start is None else int(seq_start[request])
        position = first + torch.arange(end - begin, device=block_table.device)
        inside = (position >= 0) & (position < max_pages * page_size)
        slots = torch.full_like(position, -1)
        page = block_table[request, position[inside] // max(page_size, 1)].long()
        slots[inside] = torch.where(
            (page >= 0) & (page < num_pages),
            page * page_size + position[inside] % max(page_size, 1),
            -1,
        )
        yield slice(begin, end), slots
