"""The lightning indexer: the model's own projections and key cache, selection by `indexer_topk`."""

from __future__ import annotations

from collections.abc import Callable

import torch

import dsa_kernels
from dsa_kernels.integrations.transformers.bounds import RowBounds
from dsa_kernels.integrations.transformers.products import linear


def _rotate(indexer, x: torch.Tensor, position_embeddings, rope: Callable) -> torch.Tensor:
    """RoPE on the first qk_rope_head_dim dims of x [batch, tokens, heads, head_dim]."""
    rotated, passed = x.split(
        [indexer.qk_rope_head_dim, x.shape[-1] - indexer.qk_rope_head_dim], -1
    )
    # The model's functions rotate a pair (q, k); the second result is not used.
    rotated, _ = rope(rotated, rotated[:, :, :1], *position_embeddings, unsqueeze_dim=2)
    return torch.cat([rotated, passed], dim=-1)


def store_keys(indexer, hidden_states, position_embeddings, rope, past_key_values) -> torch.Tensor:
    """Adds this call's keys to the cache, as the stock indexer does; all [batch, keys, dim]."""
    k = indexer.k_norm(linear(indexer.wk, hidden_states)).unsqueeze(2)
    k = _rotate(indexer, k, position_embeddings, rope).squeeze(2)
    if past_key_values is None:
        return k
    return past_key_values.update_indexer(k, indexer.layer_idx)


def select(
    indexer,
    hidden_states: torch.Tensor,  # [batch, queries, hidden_size]
    q_resid: torch.Tensor,  # [batch, queries, q_lora_rank]
    position_embeddings,
    keys: torch.Tensor,  # [batch, keys, dim], as store_keys returns them
    bounds: RowBounds,
    rope: Callable,
    indexer_dtype: str,
) -> torch.Tensor:
    """int32 [batch, queries, min(index_topk, filled keys)]: cache columns, ascending, then -1."""
    if bounds.key_end <= indexer.index_topk:
        return bounds.all_visible()
    batch, queries = hidden_states.shape[:2]
    q = linear(indexer.wq_b, q_resid).view(batch, queries, indexer.n_heads, indexer.head_dim)
    q = _rotate(indexer, q, position_embeddings, rope).to(keys.dtype)
    weights = hidden_states.to(indexer.weights_proj.weight.dtype)
    weights = linear(indexer.weights_proj, weights).float()
    weights = weights * (indexer.n_heads**-0.5 * indexer.softmax_scale)

    out = torch.empty(
        (batch, queries, indexer.index_topk), dtype=torch.int32, device=hidden_states.device
    )
    for b in range(batch):
        q_b, k_b, weights_b, k_scale = q[b], keys[b, : bounds.key_end], weights[b], None
        if indexer_dtype == "fp8":
            q_b, weights_b = _quantize(q_b, weights_b)
            k_b, k_scale = _quantize(k_b[:, None], torch.ones_like(k_b[:, :1], dtype=torch.float32))
            k_b, k_scale = k_b.squeeze(1), k_scale.squeeze(1)
        dsa_kernels.indexer_topk(
            q_b,
            k_b,
            weights_b,
            indexer.index_topk,
            k_scale=k_scale,
            row_start=bounds.start[b],
            row_end=bounds.end,
            out=out[b],
        )
        if bounds.padding[b]:  # from relative to row_start to absolute
            out[b].add_(bounds.padding[b]).masked_fill_(out[b] < bounds.padding[b], -1)
    return out


def _quantize(x: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Hadamard, then e4m3 with a power-of-two scale per (token, head); weights times the scales."""
    return dsa_kernels.indexer_q_rope_quant(
        x, weights, rope_layout="none", hadamard=True, weights_scale=1.0
    )
