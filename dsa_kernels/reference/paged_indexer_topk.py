"""Reference of `paged_indexer_topk`: score, then select, one request at a time."""

from __future__ import annotations

import torch

from dsa_kernels.reference.paged_mqa_logits import paged_mqa_logits
from dsa_kernels.reference.topk_indices import topk_indices


def paged_indexer_topk(
    q: torch.Tensor,  # float8_e4m3fn [batch, next_n, num_heads, head_dim]
    cache: torch.Tensor,  # uint8 [num_pages, page_size, head_dim + 4]
    weights: torch.Tensor,  # float32 [batch * next_n, num_heads]
    seq_lens: torch.Tensor,  # int32 [batch, next_n]
    block_table: torch.Tensor,  # int32 [batch, max_pages]
    topk: int,
    max_seq_len: int,
    workspace: torch.Tensor,  # uint8 [workspace_bytes], not used here
    out: torch.Tensor,  # int32 [batch * next_n, topk]
) -> None:
    next_n = q.shape[1]
    for request in range(q.shape[0]):
        one = slice(request, request + 1)
        rows = slice(request * next_n, (request + 1) * next_n)
        logits = torch.zeros(next_n, max_seq_len, device=q.device)
        paged_mqa_logits(
            q[one], cache, weights[rows], seq_lens[one], block_table[one], True, logits
        )
        topk_indices(logits, None, seq_lens[request], topk, out[rows])
