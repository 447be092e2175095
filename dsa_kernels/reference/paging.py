"""From positions in a request to cache slots."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch


def slots_of(
    pages: torch.Tensor,  # int32 [max_pages], one request's row of the block table
    position: torch.Tensor,  # int64 [n], positions in that request
    num_pages: int,
    page_size: int,
) -> torch.Tensor:
    """int64 [n]: the slot of each position, -1 where the position or its page is invalid."""
    slots = torch.full_like(position, -1)
    inside = (position >= 0) & (position < pages.numel() * page_size)
    page = pages[position[inside] // max(page_size, 1)].long()
    slot = page * page_size + position[inside] % max(page_size, 1)
    slots[inside] = torch.where((page >= 0) & (page < num_pages), slot, -1)
    return slots


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
    bounds = cu_seq_lens.clamp(0, num_tokens).tolist()
    for request, (begin, end) in enumerate(itertools.pairwise(bounds)):
        if begin >= end:
            continue
        first = 0 if seq_start is None else int(seq_start[request])
        position = first + torch.arange(end - begin, device=block_table.device)
        slots = slots_of(block_table[request], position, num_pages, page_size)
        yield slice(begin, end), slots
