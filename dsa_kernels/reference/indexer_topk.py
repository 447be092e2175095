"""Reference of `indexer_topk`: score, then select, one row at a time."""

from __future__ import annotations

import torch

from dsa_kernels.reference.mqa_logits import mqa_logits
from dsa_kernels.reference.topk_indices import topk_indices


def indexer_topk(
    q: torch.Tensor,  # float8_e4m3fn | bfloat16 | float32 [num_rows, num_heads, head_dim]
    k: torch.Tensor,  # q's dtype [seq_len, head_dim]
    weights: torch.Tensor,  # float32 [num_rows, num_heads]
    k_scale: torch.Tensor | None,  # float32 [seq_len]
    row_start: torch.Tensor | None,  # int32 [num_rows]
    row_end: torch.Tensor | None,  # int32 [num_rows]
    topk: int,
    workspace: torch.Tensor,  # uint8 [workspace_bytes], not used here
    out: torch.Tensor,  # int32 [num_rows, topk]
) -> None:
    for row in range(q.shape[0]):
        one = slice(row, row + 1)
        start = None if row_start is None else row_start[one]
        end = None if row_end is None else row_end[one]
        logits = torch.zeros(1, k.shape[0], device=q.device)
        mqa_logits(q[one], k, weights[one], k_scale, start, end, "full", True, logits)
        topk_indices(logits, start, end, topk, out[one])
