"""Latents, quantised, and their RoPE dims into a paged latent cache.

code = e4m3fn(x / scale),  scale = max(amax, 1e-4) / 448 of a group of dims
"""

import tilelang.language as T

from dsa_kernels.formats import ROPE_DIM
from tilelang_kernels.pieces import fp8, records
from tilelang_kernels.pieces.arguments import (
    aligned,
    aligned_pages,
    copy_back,
    name_of,
    page_chunks,
)
from tilelang_kernels.pieces.quantize import VECTOR, quantise, to_bfloat16
from tilelang_kernels.pieces.records import put_scale
from tilelang_kernels.toolchain.targets import Target

CONFIGURATIONS = records.CONVERSIONS


@T.macro
def put_codes(record, tile, source, first, valid, data, scale_chunk, ue8m0, codes, scales):
    """Rows of `source`, quantised."""
    x, scale = T.alloc_local((VECTOR,), "float32"), T.alloc_local((1,), "float32")
    vectors, lanes = record.quantised // VECTOR, record.group_dim // VECTOR
    for turn in T.serial(T.ceildiv(tile.rows * vectors, tile.threads)):
        at = turn * tile.threads + T.get_thread_binding()
        r, vector = at // vectors, at % vectors
        if r < tile.rows:
            for e in T.vectorized(VECTOR):
                x[e] = T.cast(source[first + r, vector * VECTOR + e], "float32")
            quantise(x, lanes, ue8m0, scale)
            if valid[r]:
                chunk, begin = data[r] + vector // 2, vector % 2 * VECTOR
                for e in T.vectorized(VECTOR):
                    codes[chunk, begin + e] = fp8.code_of(record.target, x[e])
                if vector % lanes == 0:
                    put_scale(record, scales, scale_chunk[r], vector // lanes, scale[0])


@T.macro
def put_halves(tile, source, first, valid, data, halves, first_chunk):
    """Rows of `source` become bfloat16, from chunk `first_chunk` of a record on."""
    x, rounded = T.alloc_local((VECTOR,), "float32"), T.alloc_local((VECTOR,), "bfloat16")
    vectors = source.shape[1] // VECTOR
    for turn in T.serial(T.ceildiv(tile.rows * vectors, tile.threads)):
        at = turn * tile.threads + T.get_thread_binding()
        r, vector = at // vectors, at % vectors
        if r < tile.rows:
            for e in T.vectorized(VECTOR):
                x[e] = T.cast(source[first + r, vector * VECTOR + e], "float32")
            for e in T.unroll(VECTOR):
                rounded[e] = to_bfloat16(x[e])
            if valid[r]:
                for e in T.vectorized(VECTOR):
                    halves[data[r] + first_chunk + vector, e] = rounded[e]


def kernel(target: Target, *, cache_format: str, d_qk: int, dtype: str):
    tile, record = target.tiles["mla_cache_store"], records.of(target, cache_format, d_qk)
    nope = d_qk - ROPE_DIM
    rope_chunk = record.first_half_chunk if record.quantised else nope // VECTOR
    num_tokens = T.dynamic("num_tokens")
    num_chunks, num_scale_chunks = T.dynamic("num_chunks, num_scale_chunks", "int64")

    @T.prim_func
    def mla_cache_store(
        kv_c: T.Tensor((num_tokens, nope), dtype),
        k_pe: T.Tensor((num_tokens, ROPE_DIM), dtype),
        slots: T.Tensor((num_tokens,), "int64"),
        ue8m0: T.int32,
        page_size: T.int64,
        page_chunks: T.int64,
        slot_count: T.int64,
        codes: T.Tensor((num_chunks, 16), record.code_type),
        halves: T.Tensor((num_chunks, 8), "bfloat16"),
        scales: T.Tensor((num_scale_chunks, record.scale_width), record.scale_type),
    ):
        with T.Kernel(T.ceildiv(num_tokens, tile.rows), threads=tile.threads) as block:
            valid = T.alloc_shared((tile.rows,), "bool")
            data = T.alloc_shared((tile.rows,), "int64")
            scale_chunk = T.alloc_shared((tile.rows,), "int64")
            first = block * tile.rows
            for r in T.Parallel(tile.rows):
                slot = T.if_then_else(first + r < num_tokens, slots[first + r], -1)
                valid[r] = slot >= 0 and slot < slot_count
                data[r], scale_chunk[r] = record.position(slot, page_size, page_chunks)
            if record.quantised:
                put_codes(record, tile, kv_c, first, valid, data, scale_chunk, ue8m0, codes, scales)
            else:
                put_halves(tile, kv_c, first, valid, data, halves, 0)
            put_halves(tile, k_pe, first, valid, data, halves, rope_chunk)

    return mla_cache_store


def mla_cache_store(run, kv_c, k_pe, slots, cache_format, scale_format, cache) -> None:
    """The op's schema; `run` is what runs kernels."""
    (num_pages, page_size), d_qk = cache.shape[:2], kv_c.shape[1] + k_pe.shape[1]
    if slots.numel() == 0 or num_pages * page_size == 0:
        return
    configuration = {"cache_format": cache_format, "d_qk": d_qk, "dtype": name_of(kv_c.dtype)}
    pages = aligned_pages(cache)
    run(
        kernel,
        configuration,
        aligned(kv_c),
        aligned(k_pe),
        aligned(slots.long()),
        int(scale_format == "ue8m0"),
        page_size,
        page_chunks(pages),
        num_pages * page_size,
        *records.of(run.target, cache_format, d_qk).views(pages),
    )
    copy_back(cache, pages)
