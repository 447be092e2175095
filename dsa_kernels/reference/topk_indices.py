"""Reference of `topk_indices`: a stable sort under the declared total order."""

from __future__ import annotations

import torch


def total_order_key(scores: torch.Tensor) -> torch.Tensor:
    """int64 keys in the contract's order of float32 `scores`: NaN < -inf < ... < -0 = +0 < ..."""
    bits = (scores + 0.0).view(torch.int32).long()  # + 0.0 turns -0.0 into +0.0
    key = torch.where(bits < 0, -(bits & 0x7FFFFFFF) - 1, bits)
    return torch.where(scores.isnan(), torch.iinfo(torch.int64).min, key)


def row_range(
    row_start: torch.Tensor | None, row_end: torch.Tensor | None, row: int, seq_len: int
) -> tuple[int, int]:
    """[start, end) of a row, clamped into [0, seq_len); start >= end means empty."""
    start = 0 if row_start is None else max(int(row_start[row]), 0)
    end = seq_len if row_end is None else min(int(row_end[row]), seq_len)
    return start, end


def topk_indices(
    scores: torch.Tensor,  # float32 [num_rows, seq_len]
    row_start: torch.Tensor | None,  # int32 [num_rows]
    row_end: torch.Tensor | None,  # int32 [num_rows]
    topk: int,
    out: torch.Tensor,  # int32 [num_rows, topk]
) -> None:
    out.fill_(-1)
    for row in range(scores.shape[0]):
        start, end = row_range(row_start, row_end, row, scores.shape[1])
        if start >= end:
            continue
        key = total_order_key(scores[row, start:end])
        best = torch.sort(key, descending=True, stable=True).indices[:topk]
        out[row, : best.numel()] = best.sort().values.int()
