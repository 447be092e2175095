"""Index keys of a batch of requests, from their pages to contiguous codes and scales.

k_out, scale_out[cu_seq_lens[b] + i] = key at position seq_start[b] + i of request b
"""

import tilelang.language as T
import torch

from dsa_kernels.formats import INDEX_SCALE_BYTES
from tilelang_kernels.pieces.arguments import aligned, aligned_pages, chunks, copy_back, page_chunks
from tilelang_kernels.pieces.paging import INVALID, UNCLAIMED, locate, requests
from tilelang_kernels.toolchain.targets import Target

CONFIGURATIONS = [{"head_dim": head_dim} for head_dim in (64, 128)]


def kernel(target: Target, *, head_dim: int):
    tile = target.tiles["indexer_k_cache_gather"]
    batch, max_pages, num_rows = T.dynamic("batch, max_pages, num_rows")
    table_row, num_chunks, num_scales = T.dynamic("table_row, num_chunks, num_scales", "int64")

    @T.prim_func
    def indexer_k_cache_gather(
        codes: T.Tensor((num_chunks, 4), "int32"),
        scales: T.Tensor((num_scales,), "float32"),
        page_size: T.int64,
        num_pages: T.int32,
        page_chunks: T.int64,
        block_table: T.StridedTensor((batch, max_pages), (table_row, 1), "int32"),
        cu_seq_lens: T.Tensor((batch + 1,), "int32"),
        seq_start: T.Tensor((batch,), "int32"),
        k_out: T.Tensor((num_rows, head_dim // 4), "int32"),
        scale_out: T.Tensor((num_rows,), "float32"),
    ):
        with T.Kernel(T.ceildiv(num_rows, tile.rows), threads=tile.threads) as block:
            page = T.alloc_shared((tile.rows,), "int32")
            token = T.alloc_shared((tile.rows,), "int32")
            data = T.alloc_shared((tile.rows,), "int64")
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
                begin = page[r] * page_chunks
                data[r] = begin + token[r] * (head_dim // 16)
                if page[r] != UNCLAIMED:
                    scale = begin * 4 + page_size * (head_dim // 4) + token[r]
                    scale_out[first + r] = T.if_then_else(page[r] == INVALID, 0, scales[scale])
            for r, word in T.Parallel(tile.rows, head_dim // 4):
                if page[r] != UNCLAIMED:
                    four = codes[data[r] + word // 4, word % 4]
                    k_out[first + r, word] = T.if_then_else(page[r] == INVALID, 0, four)

    return indexer_k_cache_gather


def indexer_k_cache_gather(
    run, cache, block_table, cu_seq_lens, seq_start, k_out, scale_out
) -> None:
    """The op's schema; `run` is what runs kernels."""
    if scale_out.numel() == 0 or block_table.shape[0] == 0:
        return
    cache, num_pages, block_table, seq_start = requests(cache, block_table, seq_start)
    pages, codes, scales = aligned_pages(cache), aligned(k_out), aligned(scale_out)
    run(
        kernel,
        {"head_dim": cache.shape[2] - INDEX_SCALE_BYTES},
        chunks(pages, torch.int32),
        chunks(pages, torch.float32, 4).view(-1),
        cache.shape[1],
        num_pages,
        page_chunks(pages),
        block_table,
        aligned(cu_seq_lens),
        aligned(seq_start),
        codes.view(torch.int32),
        scales,
    )
    copy_back(k_out, codes)
    copy_back(scale_out, scales)
