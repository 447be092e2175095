"""Reference of `indexer_k_cache_gather`."""

from __future__ import annotations

import torch

from dsa_kernels.reference.index_cache import index_planes
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
    code_plane, scale_plane = index_planes(cache)
    for rows, slots in gathered_rows(
        block_table, cu_seq_lens, seq_start, k_out.shape[0], num_pages, page_size
    ):
        valid = slots >= 0
        slot = slots[valid]
        page, token = slot // max(page_size, 1), slot % max(page_size, 1)
        codes = torch.zeros(k_out[rows].shape, dtype=torch.uint8)
        scales = torch.zeros((slots.numel(), 4), dtype=torch.uint8)
        codes[valid] = code_plane[page, token]
        scales[valid] = scale_plane[page, token]
        k_out[rows] = codes.view(torch.float8_e4m3fn)
        scale_out[rows] = scales.view(torch.float32)[:, 0]
