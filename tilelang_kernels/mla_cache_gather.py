"""Keys of a batch of requests, from a paged latent cache, dequantised.

out[cu_seq_lens[b] + i] = key at position seq_start[b] + i of request b
"""

import tilelang.language as T

from tilelang_kernels.pieces import records
from tilelang_kernels.pieces.arguments import (
    aligned,
    aligned_pages,
    copy_back,
    name_of,
    page_chunks,
)
from tilelang_kernels.pieces.paging import INVALID, UNCLAIMED, locate, requests
from tilelang_kernels.pieces.quantize import VECTOR
from tilelang_kernels.pieces.records import get_values
from tilelang_kernels.toolchain.targets import Target

CONFIGURATIONS = records.CONVERSIONS


def kernel(target: Target, *, cache_format: str, d_qk: int, dtype: str):
    tile, record = target.tiles["mla_cache_gather"], records.of(target, cache_format, d_qk)
    vectors = d_qk // VECTOR
    first_half_chunk = record.first_half_chunk - record.quantised // VECTOR  # as if of vector 0
    batch, max_pages, num_rows = T.dynamic("batch, max_pages, num_rows")
    table_row, num_chunks, num_scale_chunks = T.dynamic(
        "table_row, num_chunks, num_scale_chunks", "int64"
    )

    @T.prim_func
    def mla_cache_gather(
        codes: T.Tensor((num_chunks, 16), record.code_type),
        halves: T.Tensor((num_chunks, 8), "bfloat16"),
        scales: T.Tensor((num_scale_chunks, record.scale_width), record.scale_type),
        page_size: T.int64,
        num_pages: T.int32,
        page_chunks: T.int64,
        block_table: T.StridedTensor((batch, max_pages), (table_row, 1), "int32"),
        cu_seq_lens: T.Tensor((batch + 1,), "int32"),
        seq_start: T.Tensor((batch,), "int32"),
        out: T.Tensor((num_rows, d_qk), dtype),
    ):
        with T.Kernel(T.ceildiv(num_rows, tile.rows), threads=tile.threads) as block:
            page = T.alloc_shared((tile.rows,), "int32")
            token = T.alloc_shared((tile.rows,), "int32")
            data = T.alloc_shared((tile.rows,), "int64")
            scale = T.alloc_shared((tile.rows,), "int64")
            x = T.alloc_local((VECTOR,), "float32")
            first = block * tile.rows
            locate(
                first,
                num_rows,
                cu_seq_lens,
                seq_start,
                block_table,
                page_size,
                num_pages,
                page,
                token,
            )
            for r in T.Parallel(tile.rows):
                data[r], scale[r] = record.place(page[r], token[r], page_size, page_chunks)
            for turn in T.serial(T.ceildiv(tile.rows * vectors, tile.threads)):
                at = turn * tile.threads + T.get_thread_binding()
                r, vector = at // vectors, at % vectors
                if r < tile.rows and page[r] != UNCLAIMED:
                    T.clear(x)
                    if page[r] != INVALID:
                        if vector * VECTOR < record.quantised:
                            chunk, begin = data[r] + vector // 2, vector % 2 * VECTOR
                            get_values(record, codes, halves, chunk, begin, x)
                            group = vector * VECTOR // record.group_dim
                            factor = record.scale(scales, scale[r], group)
                            for e in T.unroll(VECTOR):
                                x[e] *= factor
                        else:
                            chunk = data[r] + first_half_chunk + vector
                            for e in T.vectorized(VECTOR):
                                x[e] = T.cast(halves[chunk, e], "float32")
                    for e in T.vectorized(VECTOR):
                        out[first + r, vector * VECTOR + e] = T.cast(
                            T.cast(x[e], "bfloat16"), dtype
                        )

    return mla_cache_gather


def mla_cache_gather(run, cache, block_table, cu_seq_lens, seq_start, cache_format, out) -> None:
    """The op's schema; `run` is what runs kernels."""
    if out.numel() == 0 or block_table.shape[0] == 0:
        return
    cache, num_pages, block_table, seq_start = requests(cache, block_table, seq_start)
    configuration = {
        "cache_format": cache_format,
        "d_qk": out.shape[1],
        "dtype": name_of(out.dtype),
    }
    pages, rows = aligned_pages(cache), aligned(out)
    run(
        kernel,
        configuration,
        *records.of(run.target, cache_format, out.shape[1]).views(pages),
        cache.shape[1],
        num_pages,
        page_chunks(pages),
        block_table,
        aligned(cu_seq_lens),
        aligned(seq_start),
        rows,
    )
    copy_back(out, rows)
