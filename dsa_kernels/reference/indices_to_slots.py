"""Reference of `indices_to_slots`."""

from __future__ import annotations

import torch


def indices_to_slots(
    indices: torch.Tensor,  # int32 [num_rows, topk]
    block_table: torch.Tensor,  # int32 [batch, max_pages]
    row_request: torch.Tensor | None,  # int32 [num_rows]
    page_size: int,
    slots: torch.Tensor,  # int32 [num_rows, topk]
    counts: torch.Tensor,  # int32 [num_rows]
) -> None:
    num_rows = indices.shape[0]
    batch, max_pages = block_table.shape
    if row_request is None:
        rows_per_request = max(num_rows // max(batch, 1), 1)
        row_request = torch.arange(num_rows, device=indices.device) // rows_per_request
    known = ((row_request >= 0) & (row_request < batch))[:, None]
    indices = indices.long()  # the table's end may not fit int32
    valid = known & (indices >= 0) & (indices < max_pages * page_size)
    slots.fill_(-1)
    row, column = valid.nonzero(as_tuple=True)
    index = indices[row, column]
    page = block_table[row_request[row].long(), index // page_size].long()
    slot = page * page_size + index % page_size
    fits = (page >= 0) & (slot <= torch.iinfo(torch.int32).max)
    slots[row, column] = torch.where(fits, slot, -1).int()
    counts.copy_((slots >= 0).sum(1))
