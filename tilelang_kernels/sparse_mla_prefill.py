"""Sparse multi-latent attention of ragged queries.

    p = softmax(sm_scale * q . k_i  over valid i in indices[t]);  out = sum_i p_i k_i[:512]
"""

import tilelang.language as T
import torch

from tilelang_kernels.arguments import aligned, aligned_pages, chunks, page_chunks
from tilelang_kernels.attention import D_V, INFINITY, allocate, attend, begin, divided, log_sum, max_logit
from tilelang_kernels.targets import Target

CONFIGURATIONS = [{"cache_format": "bf16", "d_qk": d_qk, "narrow": narrow} for d_qk in (576, 512) for narrow in (False, True)]


def kernel(target: Target, *, cache_format: str, d_qk: int, narrow: bool):
    tile = target.tiles["sparse_mla_narrow" if narrow else "sparse_mla"]
    heads, keys = tile.rows, tile.columns
    rows, num_heads, topk, num_chunks = T.dynamic("rows, num_heads, topk, num_chunks")

    @T.prim_func
    def sparse_mla_prefill(
        q: T.Tensor((rows, num_heads, d_qk), "bfloat16"),
        cache: T.Tensor((num_chunks, 8), "bfloat16"),
        indices: T.Tensor((rows, topk), "int32"),
        start: T.Tensor((rows,), "int32"),
        length: T.Tensor((rows,), "int32"),
        sink: T.Tensor((num_heads,), "float32"),
        sm_scale: T.float32,
        capacity: T.int64,
        page_size: T.int64,
        page_chunks: T.int64,
        out: T.Tensor((rows, num_heads, D_V), "bfloat16"),
        max_logits: T.Tensor((rows, num_heads), "float32"),
        lse: T.Tensor((rows, num_heads), "float32"),
    ):
        with T.Kernel(T.ceildiv(num_heads, heads), rows, threads=tile.threads) as (group, row):
            q_tile = T.alloc_shared((heads, d_qk), "bfloat16")
            kv = T.alloc_shared((keys, d_qk), "bfloat16")
            base = T.alloc_shared((keys,), "int64")
            valid = T.alloc_shared((keys,), "bool")
            softmax = allocate(heads, keys)
            total = T.alloc_fragment((heads,), "float32")
            first_head = group * heads
            T.copy(q[row, first_head, 0], q_tile)
            begin(softmax)
            count = T.min(length[row], topk)
            for block in T.serial(T.ceildiv(T.max(count, 0), keys)):
                for s in T.Parallel(keys):
                    i = block * keys + s
                    index = T.if_then_else(i < count, indices[row, i], -1)
                    slot = T.cast(index, "int64") + start[row]
                    valid[s] = index >= 0 and slot >= 0 and slot < capacity
                    page = T.truncdiv(slot, page_size)
                    base[s] = page * page_chunks + (slot - page * page_size) * (d_qk // 8)
                for part, s, c, e in T.Parallel(d_qk // 64, keys, 8, 8):
                    kv[s, part * 64 + c * 8 + e] = T.if_then_else(
                        valid[s], cache[base[s] + part * 8 + c, e], T.cast(0, "bfloat16")
                    )
                attend(softmax, q_tile, kv, valid, sm_scale)
            T.reduce_sum(softmax.sums, total, dim=1)
            for h in T.Parallel(heads):
                if first_head + h < num_heads:
                    max_logits[row, first_head + h] = max_logit(softmax.top[h], total[h])
                    lse[row, first_head + h] = log_sum(softmax.top[h], total[h])
            for h, d in T.Parallel(heads, D_V):
                if first_head + h < num_heads:
                    out[row, first_head + h, d] = T.cast(
                        divided(softmax.out[h, d], softmax.top[h], total[h], sink[first_head + h]),
                        "bfloat16",
                    )

    return sparse_mla_prefill


def sparse_mla_prefill(
    run, q, kv, cache, indices, kv_start, topk_length, attn_sink, sm_scale, cache_format, out,
    max_logits, lse,
) -> None:
    (rows, num_heads, d_qk), topk = q.shape, indices.shape[1]
    pages = kv[None] if cache is None else cache
    capacity = pages.shape[0] * pages.shape[1]
    if rows == 0:
        return
    if kv_start is None:
        kv_start = torch.zeros(rows, dtype=torch.int32, device=q.device)
    if topk_length is None:
        topk_length = torch.full((rows,), topk, dtype=torch.int32, device=q.device)
    if attn_sink is None:
        attn_sink = torch.full((num_heads,), -INFINITY, device=q.device)
    if capacity == 0 or topk == 0:
        out.zero_()
        max_logits.fill_(-INFINITY)
        lse.fill_(-INFINITY)
        return
    pages = aligned_pages(pages if cache is not None else aligned(kv)[None])
    results = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (out, max_logits, lse)]
    run(
        kernel,
        {"cache_format": cache_format or "bf16", "d_qk": d_qk, "narrow": num_heads <= 16},
        aligned(q),
        chunks(pages, torch.bfloat16),
        *(aligned(t) for t in (indices, kv_start, topk_length, attn_sink)),
        sm_scale,
        capacity,
        pages.shape[1],
        page_chunks(pages),
        *results,
    )
    for t, r in zip((out, max_logits, lse), results, strict=True):
        t.copy_(r)
