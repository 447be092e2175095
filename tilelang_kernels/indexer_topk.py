"""The best keys of each row, by the kernels of mqa_logits and topk_indices over a tile of rows."""

from __future__ import annotations

import torch

from tilelang_kernels.mqa_logits import mqa_logits
from tilelang_kernels.pieces.arguments import row_bounds
from tilelang_kernels.topk_indices import topk_indices


def rows_of_logits(workspace: torch.Tensor, width: int) -> torch.Tensor:
    """float32 [n, width], as many rows as there is room for."""
    row_bytes = 4 * width
    return (
        workspace[: workspace.numel() // row_bytes * row_bytes].view(torch.float32).view(-1, width)
    )


def indexer_topk(run, q, k, weights, k_scale, row_start, row_end, topk, workspace, out) -> None:
    """The op's schema; `run` is what runs kernels."""
    num_rows, seq_len = q.shape[0], k.shape[0]
    if num_rows * seq_len == 0:
        out.fill_(-1)
        return
    row_start, row_end = row_bounds(row_start, row_end, num_rows, seq_len, q.device)
    # Of a row that selects all, no score is looked at.
    count = row_end.clamp(0, seq_len) - row_start.clamp(0, seq_len)
    scored_end = torch.where(count > topk, row_end, 0)
    logits = rows_of_logits(workspace, seq_len)
    for first in range(0, num_rows, len(logits)):
        rows = slice(first, first + len(logits))
        tile, start = logits[: len(out[rows])], row_start[rows]
        mqa_logits(
            run, q[rows], k, weights[rows], k_scale, start, scored_end[rows], "full", False, tile
        )
        topk_indices(run, tile, start, row_end[rows], topk, out[rows])
