"""Views of the index cache's planar pages."""

from __future__ import annotations

import torch

from dsa_kernels.formats import INDEX_SCALE_BYTES


def index_planes(cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The two planes of each page, as views that share memory with the cache.

    cache: uint8 [num_pages | page_size, head_dim+4]. Returns uint8 [num_pages, page_size, head_dim]
    (float8_e4m3fn codes) and uint8 [num_pages, page_size, 4] (the bytes of float32 scales, which a
    page's base need not align).
    """
    num_pages, page_size, record = cache.shape
    head_dim = record - INDEX_SCALE_BYTES
    page = cache.view(num_pages, page_size * record)
    codes, scales = page.split((page_size * head_dim, page_size * INDEX_SCALE_BYTES), dim=1)
    return (
        codes.unflatten(1, (page_size, head_dim)),
        scales.unflatten(1, (page_size, INDEX_SCALE_BYTES)),
    )


def read_index_keys(cache: torch.Tensor, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The keys in `slots`: float8_e4m3fn [n, head_dim] and their scales, float32 [n].

    cache: uint8 [num_pages | page_size, head_dim+4]; slots: int64 [n], all valid.
    """
    codes, scales = index_planes(cache)
    page_size = max(cache.shape[1], 1)  # a cache without slots has no slot to read either
    page, token = slots // page_size, slots % page_size
    return (
        codes[page, token].view(torch.float8_e4m3fn),
        scales[page, token].view(torch.float32)[:, 0],
    )
