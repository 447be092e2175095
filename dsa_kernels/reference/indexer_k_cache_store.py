"""Reference of `indexer_k_cache_store`."""

from __future__ import annotations

import torch

from dsa_kernels.reference.index_cache import index_planes
from dsa_kernels.reference.indexer_input import layer_norm, prepare, valid_positions
from dsa_kernels.reference.quantize import quantize_groups


def indexer_k_cache_store(
    k: torch.Tensor,  # bfloat16|float32 [num_tokens, head_dim]
    slots: torch.Tensor,  # int32|int64 [num_tokens]
    norm_weight: torch.Tensor | None,  # float32|bfloat16 [head_dim]
    norm_bias: torch.Tensor | None,  # float32|bfloat16 [head_dim]
    norm_eps: float,
    positions: torch.Tensor | None,  # int32|int64 [num_tokens]
    cos_sin: torch.Tensor | None,  # float32 [max_position, rope_dim]
    rope_layout: str,
    hadamard: bool,
    scale_format: str,
    cache: torch.Tensor,  # uint8 [num_pages | page_size, head_dim+4]
) -> None:
    if norm_weight is not None:
        k = layer_norm(k.float(), norm_weight, norm_bias, norm_eps).to(k.dtype)
    x = prepare(k, positions, cos_sin, rope_layout, hadamard)
    codes, scale = quantize_groups(x, k.shape[-1], scale_format)
    valid = valid_positions(positions, cos_sin, k.shape[0])
    scale = scale.masked_fill(~valid[:, None], torch.nan)

    num_pages, page_size, _ = cache.shape
    stored = (slots >= 0) & (slots < num_pages * page_size)
    slot = slots[stored].long()
    page, token = slot // max(page_size, 1), slot % max(page_size, 1)
    code_plane, scale_plane = index_planes(cache)
    code_plane[page, token] = codes[stored].view(torch.uint8)
    scale_plane[page, token] = scale[stored].view(torch.uint8)
