"""Reference of `mqa_logits`: the indexer's formula, row by row."""

from __future__ import annotations

import math

import torch

from dsa_kernels.reference.topk_indices import row_range


def score(q: torch.Tensor, k: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """sum_h weights[h] * relu(q[h] . k[s]) for q [num_heads, head_dim], k [n, head_dim] -> [n]."""
    dots = q.float() @ k.float().T
    return (weights[:, None] * dots.relu()).sum(0)


def mqa_logits(
    q: torch.Tensor,  # float8_e4m3fn | bfloat16 | float32 [num_rows, num_heads, head_dim]
    k: torch.Tensor,  # q's dtype [seq_len, head_dim]
    weights: torch.Tensor,  # float32 [num_rows, num_heads]
    k_scale: torch.Tensor | None,  # float32 [seq_len]
    row_start: torch.Tensor | None,  # int32 [num_rows]
    row_end: torch.Tensor | None,  # int32 [num_rows]
    layout: str,
    fill: bool,
    out: torch.Tensor,  # float32 | bfloat16 [num_rows, width]
) -> None:
    if fill:
        out.fill_(-math.inf)
    for row in range(q.shape[0]):
        start, end = row_range(row_start, row_end, row, k.shape[0])
        if layout == "compressed":
            end = min(end, start + out.shape[1])
        if start >= end:
            continue
        logits = score(q[row], k[start:end], weights[row])
        if k_scale is not None:
            logits = k_scale[start:end] * logits
        first = 0 if layout == "compressed" else start
        out[row, first : first + end - start] = logits.to(out.dtype)
