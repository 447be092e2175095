"""Lightning-indexer scores of query tokens against their requests' keys in the paged cache.

    logits[t, s] = k_scale[s] * sum_h weights[t, h] * relu(q[t, h] . k[s])

A block scores a strip of `steps` tiles of keys for some query tokens of a request: keys are rows of
the product and all heads of all the tokens its columns, so that a tile of keys is read once for
them. Keys past every token's length are left out.
"""

import math

import tilelang.language as T
import torch

from tilelang_kernels.pieces import scoring
from tilelang_kernels.pieces.arguments import aligned, aligned_pages, chunks, name_of, page_chunks
from tilelang_kernels.pieces.fp8 import E4M3FN
from tilelang_kernels.toolchain.targets import Target

INFINITY = float("inf")
# All kernels of the op.
CONFIGURATIONS = [
    {"heads": heads, "dim": dim, "out_dtype": out_dtype}
    for heads in (8, 16, 32, 64)
    for dim in (64, 128)
    for out_dtype in ("float32", "bfloat16")
]


def kernel(target: Target, *, heads: int, dim: int, out_dtype: str):
    tile = target.tiles["paged_mqa_logits"]
    keys, tokens = tile.rows, max(1, tile.columns // heads)
    product, stored = scoring.product_type(target, E4M3FN), scoring.word_type(target, E4M3FN)
    batch, next_n, rows, max_pages, width = T.dynamic("batch, next_n, rows, max_pages, width")
    num_chunks, num_words = T.dynamic("num_chunks, num_words", "int64")
    out_row = T.dynamic("out_row", "int64")
    key_chunks, chunk = dim // scoring.elements(E4M3FN), scoring.words(target, E4M3FN)

    @T.prim_func
    def paged_mqa_logits(
        q: T.Tensor((rows * heads, key_chunks, chunk), stored),
        k: T.Tensor((num_chunks, chunk), stored),
        k_scale: T.Tensor((num_words, 1), "float32"),
        weights: T.Tensor((rows, heads), "float32"),
        seq_lens: T.Tensor((batch, next_n), "int32"),
        block_table: T.Tensor((batch, max_pages), "int32"),
        num_pages: T.int32,
        page_size: T.int32,
        page_stride: T.int64,  # in chunks of 16 bytes
        fill: T.int32,
        out: T.StridedTensor((rows, width), (out_row, 1), out_dtype),
    ):
        with T.Kernel(
            T.ceildiv(width, keys * tile.steps),
            T.ceildiv(next_n, tokens),
            batch,
            threads=tile.threads,
        ) as (strip, token_block, request):
            q_tile = T.alloc_shared((tokens * heads, dim), product)
            k_tile = T.alloc_shared((keys, dim), product)
            q_staged = scoring.staging(target, tokens * heads, dim, E4M3FN)
            k_staged = scoring.staging(target, keys, dim, E4M3FN)
            dots = T.alloc_fragment((keys, tokens * heads), "float32")
            terms = T.alloc_fragment((keys, tokens, heads), "float32")
            scores = T.alloc_fragment((keys, tokens), "float32")
            # Of each key: the chunk that its codes begin with, or -1 where it has no page.
            place = T.alloc_shared((keys,), "int64")
            scale = T.alloc_shared((keys,), "float32")
            longest = T.alloc_var("int32", init=0)

            first_token = token_block * tokens
            first_row = request * next_n + first_token
            last_row = first_row + T.min(tokens, next_n - first_token)
            for t in T.serial(T.min(tokens, next_n - first_token)):
                longest = T.max(longest, seq_lens[request, first_token + t])
            # Tiles of the strip, and those of them that a token sees.
            begin = strip * tile.steps
            end = T.min(begin + tile.steps, T.ceildiv(width, keys))
            last = T.alloc_var("int32", init=T.truncdiv(T.min(longest, width) + keys - 1, keys))
            last = T.max(T.min(last, end), begin)

            scoring.fetch_rows(q, first_row * heads, last_row * heads - 1, q_staged)
            scoring.put_operands(target, q_staged, q_tile, E4M3FN)
            for number in T.serial(begin, last):
                for s in T.Parallel(keys):
                    position = number * keys + s
                    block = T.truncdiv(position, page_size)
                    token = position - block * page_size
                    page = T.if_then_else(block < max_pages, block_table[request, block], -1)
                    exists = page >= 0 and page < num_pages
                    first = T.cast(page, "int64") * page_stride
                    word = (first + page_size * key_chunks) * 4 + token
                    place[s] = T.if_then_else(exists, first + token * key_chunks, -1)
                    scale[s] = T.if_then_else(exists, k_scale[word, 0], 0)
                for s, c, w in T.Parallel(*k_staged[0].shape):
                    k_staged[0][s, c, w] = T.if_then_else(
                        place[s] >= 0, k[place[s] + c, w], T.cast(0, stored)
                    )
                scoring.put_operands(target, k_staged, k_tile, E4M3FN)
                T.gemm(k_tile, q_tile, dots, transpose_B=True, clear_accum=True)
                scoring.score_tile(dots, weights, first_row, last_row, terms, scores)
                for s, t in T.Parallel(keys, tokens):
                    row, position = first_row + t, number * keys + s
                    if row < last_row and position < width:
                        inside = position < seq_lens[request, first_token + t]
                        score = scale[s] * (scoring.product_scale(target, E4M3FN) * scores[s, t])
                        if inside or fill != 0:
                            out[row, position] = T.if_then_else(
                                inside and place[s] >= 0, score, -INFINITY
                            )
            if fill != 0:
                for number in T.serial(last, end):
                    for t, s in T.Parallel(tokens, keys):
                        if first_row + t < last_row and number * keys + s < width:
                            out[first_row + t, number * keys + s] = -INFINITY

    return paged_mqa_logits


def paged_mqa_logits(run, q, cache, weights, seq_lens, block_table, fill, out) -> None:
    """The op's schema; `run` is what runs kernels."""
    heads, dim = q.shape[2:]
    num_pages, page_size, _ = cache.shape
    if out.numel() == 0:
        return
    if cache.numel() == 0 or block_table.numel() == 0:  # no key exists, so each seen one is -inf
        position = torch.arange(out.shape[1], device=out.device)
        out.masked_fill_((position < seq_lens.reshape(-1, 1)) | fill, -math.inf)
        return
    cache = aligned_pages(cache)
    run(
        kernel,
        {"heads": heads, "dim": dim, "out_dtype": name_of(out.dtype)},
        scoring.operands(run.target, q),
        chunks(cache, getattr(torch, scoring.word_type(run.target, E4M3FN))),
        chunks(cache, torch.float32, 4),
        *(aligned(t) for t in (weights, seq_lens, block_table)),
        num_pages,
        page_size,
        page_chunks(cache),
        int(fill),
        out,
    )
