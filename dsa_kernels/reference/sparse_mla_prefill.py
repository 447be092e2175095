"""Reference of `sparse_mla_prefill`: softmax over the selected keys, one query at a time."""

from __future__ import annotations

import torch

from dsa_kernels.formats import D_V
from dsa_kernels.reference.mla_cache_gather import read_records


def attend(
    q: torch.Tensor,  # [num_heads, d_qk]
    keys: torch.Tensor,  # float32 [n, d_qk], the valid selected keys in order
    sm_scale: float,
    attn_sink: torch.Tensor | None,  # float32 [num_heads]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One query's (out [num_heads, d_v], max_logits [num_heads], lse [num_heads]) in float32."""
    num_heads = q.shape[0]
    out = torch.zeros(num_heads, D_V, device=q.device)
    nothing = torch.full((num_heads,), -torch.inf, device=q.device)
    if keys.shape[0] == 0:
        return out, nothing, nothing
    scores = q.float() @ keys.T * sm_scale
    max_logits = scores.amax(-1)
    p = torch.exp(scores - max_logits.masked_fill(max_logits == -torch.inf, 0.0)[:, None])
    total = p.sum(-1)
    lse = max_logits + total.log()
    out = (p @ keys[:, :D_V]) / total[:, None]
    if attn_sink is not None:
        out = out / (1 + torch.exp(attn_sink - lse))[:, None]
    return out.masked_fill((max_logits == -torch.inf)[:, None], 0.0), max_logits, lse


def selected(indices: torch.Tensor, length: int | None, start: int, capacity: int) -> torch.Tensor:
    """Positions start + i of the valid entries i of a row of `indices`, in order: int64 [n]."""
    if length is not None:
        indices = indices[: max(length, 0)]
    positions = indices.long() + start
    return positions[(indices >= 0) & (positions >= 0) & (positions < capacity)]


def sparse_mla_prefill(
    q: torch.Tensor,  # bfloat16 | float32 [num_queries, num_heads, d_qk]
    kv: torch.Tensor | None,  # q's dtype [num_kv, d_qk]
    cache: torch.Tensor | None,  # uint8 | bfloat16 [num_pages, page_size, record]
    indices: torch.Tensor,  # int32 [num_queries, topk]
    kv_start: torch.Tensor | None,  # int32 [num_queries]
    topk_length: torch.Tensor | None,  # int32 [num_queries]
    attn_sink: torch.Tensor | None,  # float32 [num_heads]
    sm_scale: float,
    cache_format: str,  # "" for contiguous kv
    out: torch.Tensor,  # q's dtype [num_queries, num_heads, 512]
    max_logits: torch.Tensor,  # float32 [num_queries, num_heads]
    lse: torch.Tensor,  # float32 [num_queries, num_heads]
) -> None:
    capacity = kv.shape[0] if cache is None else cache.shape[0] * cache.shape[1]
    for row in range(q.shape[0]):
        length = None if topk_length is None else int(topk_length[row])
        start = 0 if kv_start is None else int(kv_start[row])
        positions = selected(indices[row], length, start, capacity)
        if cache is None:
            keys = kv[positions].float()
        else:
            keys = read_records(cache, positions, cache_format)
        row_out, max_logits[row], lse[row] = attend(q[row], keys, sm_scale, attn_sink)
        out[row] = row_out.to(out.dtype)
