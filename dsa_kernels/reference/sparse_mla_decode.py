"""Reference of `sparse_mla_decode`: dequantise the selected records, then attend."""

from __future__ import annotations

import torch

from dsa_kernels.reference.mla_cache_gather import read_records
from dsa_kernels.reference.sparse_mla_prefill import attend, selected


def sparse_mla_decode(
    q: torch.Tensor,  # bfloat16 | float32 [batch, next_n, num_heads, d_qk]
    cache: torch.Tensor,  # uint8 | bfloat16 [num_pages, page_size, record]
    indices: torch.Tensor,  # int32 [batch, next_n, topk]
    topk_length: torch.Tensor | None,  # int32 [batch, next_n]
    attn_sink: torch.Tensor | None,  # float32 [num_heads]
    extra_cache: torch.Tensor | None,  # as cache, own page size
    extra_indices: torch.Tensor | None,  # int32 [batch, next_n, extra_topk]
    extra_topk_length: torch.Tensor | None,  # int32 [batch, next_n]
    sm_scale: float,
    cache_format: str,
    batch_invariant: bool,  # always so here
    out: torch.Tensor,  # q's dtype [batch, next_n, num_heads, 512]
    lse: torch.Tensor,  # float32 [batch, next_n, num_heads]
) -> None:
    scopes = [(cache, indices, topk_length)]
    if extra_cache is not None:
        scopes.append((extra_cache, extra_indices, extra_topk_length))
    for row in torch.cartesian_prod(torch.arange(q.shape[0]), torch.arange(q.shape[1])):
        at = tuple(row.tolist())
        keys = []
        for records, slots, lengths in scopes:
            length = None if lengths is None else int(lengths[at])
            capacity = records.shape[0] * records.shape[1]
            positions = selected(slots[at], length, 0, capacity)
            keys.append(read_records(records, positions, cache_format))
        row_out, _, lse[at] = attend(q[at], torch.cat(keys), sm_scale, attn_sink)
        out[at] = row_out.to(out.dtype)
