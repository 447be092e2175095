"""Reference of `indexer_k_cache_gather`."""

from __future__ import annotations

import torch

from dsa_kernels.reference.index_cache import read_index_keys
from dsa_kernels.reference.paging import gathered_rows


def indexer_k_cache_gather(
    cache: torch.Tensor,  # uint8 [num_pages | page_size, head_dim+4]
    block_table: torch.Tensor,  # int32 [batch, max_pages]
    cu_seq_lens: torch.Tensor,  # int32 [batch+1]
    seq_start: torch.Tensor | None,  # int32 [batch]
    k_out: torch.Tensor,  # float8_e4m3fn [num_tokens, head_dim]
    scale_out: torch.Tensor,  # float32 [num_tokens]
) -> None:
    num_pages, page_size, _ = cache.shape
    for rows, slots in gathered_rows(
        block_table, cu_seq_lens, seq_start, k_out.shape[0], num_pages, page_size
    ):
        valid = slots >= 0
        codes, scales = read_index_keys(cache, slots[valid])
        k_out[rows] = 0
        scale_out[rows] = 0
        k_out[rows].view(torch.uint8)[valid] = codes.view(torch.uint8)
        scale_out[rows][valid] = scales
