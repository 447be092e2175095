"""Sparse multi-latent attention of ragged queries.

    p = softmax(sm_scale * q . k_i  over valid i in indices[t]);  out = sum_i p_i k_i[:512]
"""

import tilelang.language as T
import torch

from dsa_kernels.formats import D_V
from tilelang_kernels import attention, gathering, records
from tilelang_kernels.arguments import aligned, aligned_pages, page_chunks
from tilelang_kernels.targets import Target

# All kernels of the op: one for 16 heads and fewer, and one for more.
CONFIGURATIONS = [
    {"cache_format": cache_format, "d_qk": d_qk, "narrow": narrow}
    for cache_format, d_qk in (("bf16", 576), ("bf16", 512), ("v32", 576), ("v4", 512))
    for narrow in (False, True)
]


def kernel(target: Target, *, cache_format: str, d_qk: int, narrow: bool):
    tile = target.tiles["sparse_mla_narrow" if narrow else "sparse_mla"]
    heads, keys = tile.rows, tile.columns
    records_ = records.of(target, cache_format, d_qk)
    rows, num_heads, topk = T.dynamic("rows, num_heads, topk")
    num_chunks, num_scales = T.dynamic("num_chunks, num_scales")

    @T.prim_func
    def sparse_mla_prefill(
        q: T.Tensor((rows, num_heads, d_qk), "bfloat16"),
        codes: T.Tensor((num_chunks, 16), records_.code_type),
        halves: T.Tensor((num_chunks, 8), "bfloat16"),
        scales: T.Tensor((num_scales, records_.scale_width), records_.scale_type),
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
            gather = gathering.allocate(records_, keys)
            softmax = attention.allocate(heads, keys)
            total = T.alloc_fragment((heads,), "float32")
            first_head = group * heads
            count = T.min(length[row], topk)
            views, paging = (codes, halves, scales), (capacity, page_size, page_chunks)
            T.copy(q[row, first_head, 0], q_tile)
            attention.begin(softmax)
            gathering.load_indices(gather, indices, row, 0, count)
            gathering.locate(gather, 0, start[row], paging)
            gathering.load_records(gather, views)
            gathering.load_indices(gather, indices, row, 1, count)
            for block in T.serial(T.ceildiv(T.max(count, 0), keys)):
                gathering.store_keys(gather, kv)
                gathering.locate(gather, block + 1, start[row], paging)
                gathering.load_records(gather, views)
                gathering.load_indices(gather, indices, row, block + 2, count)
                attention.attend(softmax, q_tile, kv, gather.valid, block % 2, sm_scale)
            T.reduce_sum(softmax.sums, total, dim=1)
            for h in T.Parallel(heads):
                if first_head + h < num_heads:
                    max_logits[row, first_head + h] = attention.max_logit(softmax.top[h], total[h])
                    lse[row, first_head + h] = attention.log_sum(softmax.top[h], total[h])
            for h in T.Parallel(heads):
                softmax.factor[h] = 0
                if first_head + h < num_heads:
                    softmax.factor[h] = 1 / (
                        total[h] + attention.exp(sink[first_head + h] - softmax.top[h])
                    )
            for h, d in T.Parallel(heads, D_V):
                if first_head + h < num_heads:
                    value = T.if_then_else(total[h] == 0, 0, softmax.out[h, d] * softmax.factor[h])
                    out[row, first_head + h, d] = T.cast(value, "bfloat16")

    return sparse_mla_prefill


def sparse_mla_prefill(
    run,
    q,
    kv,
    cache,
    indices,
    kv_start,
    topk_length,
    attn_sink,
    sm_scale,
    cache_format,
    out,
    max_logits,
    lse,
) -> None:
    """The op's schema; `run` is what runs kernels."""
    (rows, num_heads, d_qk), topk = q.shape, indices.shape[1]
    cache_format = cache_format or "bf16"
    pages = aligned(kv)[None] if cache is None else cache
    capacity = pages.shape[0] * pages.shape[1]
    if capacity * topk == 0:
        out.zero_()
        max_logits.fill_(-attention.INFINITY)
        lse.fill_(-attention.INFINITY)
        return
    if rows == 0:
        return
    if kv_start is None:
        kv_start = torch.zeros(rows, dtype=torch.int32, device=q.device)
    if topk_length is None:
        topk_length = torch.full((rows,), topk, dtype=torch.int32, device=q.device)
    if attn_sink is None:
        attn_sink = torch.full((num_heads,), -attention.INFINITY, device=q.device)
    pages = aligned_pages(pages)
    results = [t if t.is_contiguous() and t.data_ptr() % 16 == 0 else t.new_empty(t.shape) for t in (out, max_logits, lse)]
    run(
        kernel,
        {"cache_format": cache_format, "d_qk": d_qk, "narrow": num_heads <= 16},
        aligned(q),
        *records.of(run.target, cache_format, d_qk).views(pages),
        *(aligned(t) for t in (indices, kv_start, topk_length, attn_sink)),
        sm_scale,
        capacity,
        pages.shape[1],
        page_chunks(pages),
        *results,
    )
    for t, result in zip((out, max_logits, lse), results, strict=True):
        if t is not result:
            t.copy_(result)
