"""Sparse multi-latent attention of ragged queries.

    p = softmax(sm_scale * q . k_i  over valid i in indices[t]);  out = sum_i p_i k_i[:512]

A block takes a tile of a row's heads, and all its keys or, for sparse_mla_decode, a part of them.
"""

import tilelang.language as T

from dsa_kernels.formats import D_V
from tilelang_kernels.pieces import attention, gathering, records
from tilelang_kernels.pieces.arguments import (
    aligned,
    aligned_pages,
    copy_back,
    name_of,
    optional,
    page_chunks,
    writable,
)
from tilelang_kernels.toolchain.targets import Target

NARROW = 16  # heads that the smaller tile has
CONFIGURATIONS = [
    {"cache_format": cache_format, "d_qk": d_qk, "narrow": narrow, "out_dtype": "bfloat16"}
    for cache_format, d_qk in records.FORMATS
    for narrow in (False, True)
]


def tile_of(target: Target, narrow: bool):
    return target.tiles["sparse_mla_narrow" if narrow else "sparse_mla"]


def kernel(target: Target, *, cache_format: str, d_qk: int, narrow: bool, out_dtype: str):
    tile, record = tile_of(target, narrow), records.of(target, cache_format, d_qk)
    heads, keys = tile.rows, tile.columns
    rows, num_heads, topk, parts = T.dynamic("rows, num_heads, topk, parts")
    num_chunks, num_scales = T.dynamic("num_chunks, num_scales", "int64")

    @T.prim_func
    def sparse_mla(
        q: T.Tensor((rows, num_heads, d_qk), "bfloat16"),
        codes: T.Tensor((num_chunks, 16), record.code_type),
        halves: T.Tensor((num_chunks, 8), "bfloat16"),
        scales: T.Tensor((num_scales, record.scale_width), record.scale_type),
        capacity: T.int64,
        page_size: T.int64,
        page_chunks: T.int64,
        indices: T.Tensor((rows, topk), "int32"),
        start: T.Tensor((rows,), "int32"),
        has_start: T.int32,
        length: T.Tensor((rows,), "int32"),
        has_length: T.int32,
        sink: T.Tensor((num_heads,), "float32"),
        has_sink: T.int32,
        sm_scale: T.float32,
        keys_of_part: T.int32,
        first_part: T.int32,
        num_parts: T.int32,
        out: T.Tensor((parts, rows, num_heads, D_V), out_dtype),
        max_logits: T.Tensor((parts, rows, num_heads), "float32"),
        lse: T.Tensor((parts, rows, num_heads), "float32"),
    ):
        with T.Kernel(rows * T.ceildiv(num_heads, heads), num_parts, threads=tile.threads) as (
            row_group,
            part,
        ):
            q_tile = attention.allocate_queries(target, heads, d_qk)
            kv = T.alloc_shared((keys, d_qk), "bfloat16")
            gather = gathering.allocate(record, keys)
            softmax = attention.allocate(heads, keys)
            groups = T.ceildiv(num_heads, heads)
            row = T.alloc_var("int32", init=T.truncdiv(row_group, groups))
            first_head = T.alloc_var("int32", init=(row_group - row * groups) * heads)
            base = T.if_then_else(has_start != 0, start[row], 0)
            length_of_row = T.if_then_else(has_length != 0, length[row], topk)
            count = T.min(T.min(length_of_row, topk), (part + 1) * keys_of_part)
            first, last = part * keys_of_part // keys, T.ceildiv(T.max(count, 0), keys)
            views, paging = (codes, halves, scales), (base, capacity, page_size, page_chunks)
            T.copy(q[row, first_head, 0], q_tile)
            attention.begin(softmax)
            gathering.begin(gather, indices, row, first, count, paging, views)
            for block in T.serial(first, last):
                gathering.store_keys(gather, kv)
                gathering.advance(gather, indices, row, block, count, paging, views)
                attention.attend(target, softmax, q_tile, kv, gather.valid, block, sm_scale)
            attention.finish(
                softmax, sink, has_sink, first_part + part, row, first_head, out, max_logits, lse
            )

    return sparse_mla


def launch(
    run, q, cache, indices, start, length, sink, sm_scale, cache_format, parts, out, max_logits, lse
) -> None:
    """Of a cache that is not empty. parts: keys in each, the first in out, how many."""
    narrow = q.shape[1] <= NARROW
    cache, row = aligned_pages(cache), indices[:, 0]
    run(
        kernel,
        {
            "cache_format": cache_format,
            "d_qk": q.shape[2],
            "narrow": narrow,
            "out_dtype": name_of(out.dtype),
        },
        aligned(q),
        *records.of(run.target, cache_format, q.shape[2]).views(cache),
        cache.shape[0] * cache.shape[1],
        cache.shape[1],
        page_chunks(cache),
        aligned(indices),
        optional(start, row),
        int(start is not None),
        optional(length, row),
        int(length is not None),
        optional(sink, lse[0, 0]),
        int(sink is not None),
        sm_scale,
        *parts,
        out,
        max_logits,
        lse,
    )


def sparse_mla_prefill(
    run, q, kv, cache, indices, kv_start, topk_length, attn_sink, sm_scale, cache_format, out,
    max_logits, lse,
) -> None:  # fmt: skip
    """The op's schema; `run` is what runs kernels."""
    rows, topk = indices.shape
    cache = aligned(kv)[None] if cache is None else cache
    if rows * topk * cache.shape[0] * cache.shape[1] == 0:
        out.zero_()
        max_logits.fill_(-attention.INFINITY)
        lse.fill_(-attention.INFINITY)
        return
    results = [writable(t) for t in (out, max_logits, lse)]
    launch(
        run, q, cache, indices, kv_start, topk_length, attn_sink, sm_scale, cache_format or "bf16",
        (topk, 0, 1), *(result[None] for result in results),
    )  # fmt: skip
    for tensor, result in zip((out, max_logits, lse), results, strict=True):
        copy_back(tensor, result)
