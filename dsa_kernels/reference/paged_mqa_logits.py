"""Reference of `paged_mqa_logits`: fetch a request's keys through its block table, then score."""

from __future__ import annotations

import math

import torch

from dsa_kernels.reference.index_cache import read_index_keys
from dsa_kernels.reference.mqa_logits import score
from dsa_kernels.reference.paging import slots_of


def paged_mqa_logits(
    q: torch.Tensor,  # float8_e4m3fn [batch, next_n, num_heads, head_dim]
    cache: torch.Tensor,  # uint8 [num_pages, page_size, head_dim + 4]
    weights: torch.Tensor,  # float32 [batch * next_n, num_heads]
    seq_lens: torch.Tensor,  # int32 [batch, next_n]
    block_table: torch.Tensor,  # int32 [batch, max_pages]
    fill: bool,
    out: torch.Tensor,  # float32 | bfloat16 [batch * next_n, max_seq_len]
) -> None:
    if fill:
        out.fill_(-math.inf)
    batch, next_n = q.shape[:2]
    num_pages, page_size = cache.shape[:2]
    for row in range(batch * next_n):
        request, token = divmod(row, next_n)
        length = min(max(int(seq_lens[request, token]), 0), out.shape[1])
        position = torch.arange(length, device=q.device)
        slots = slots_of(block_table[request], position, num_pages, page_size)
        k, k_scale = read_index_keys(cache, slots[slots >= 0])
        logits = torch.full((length,), -math.inf, device=q.device)
        logits[slots >= 0] = k_scale * score(q[request, token], k, weights[row])
        out[row, :length] = logits.to(out.dtype)
