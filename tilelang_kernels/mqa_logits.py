"""Lightning-indexer scores of ragged queries against contiguous keys.

    logits[t, s] = k_scale[s] * sum_h weights[t, h] * relu(q[t, h] . k[s])

A block scores a strip of `steps` tiles of keys for some query tokens: keys are rows of the product
and all heads of all the tokens its columns, so that a tile of keys is read once for them. Tiles
that no token's range reaches are left out.
"""

import math

import tilelang.language as T

from tilelang_kernels.pieces import scoring
from tilelang_kernels.pieces.arguments import aligned, name_of, row_bounds
from tilelang_kernels.toolchain.targets import Target

INFINITY, INT_MAX = float("inf"), 2**31 - 1
# All kernels of the op.
CONFIGURATIONS = [
    {"heads": heads, "dim": dim, "dtype": dtype, "out_dtype": out_dtype}
    for heads in (8, 16, 32, 64)
    for dim in (64, 128)
    for dtype in ("float8_e4m3fn", "bfloat16")
    for out_dtype in ("float32", "bfloat16")
]


def kernel(target: Target, *, heads: int, dim: int, dtype: str, out_dtype: str):
    tile = target.tiles["mqa_logits"]
    keys, tokens = tile.rows, max(1, tile.columns // heads)
    product, stored = scoring.product_type(target, dtype), scoring.word_type(target, dtype)
    shape = dim // scoring.elements(dtype), scoring.words(target, dtype)  # of a row in memory
    packing = target.packing(product)
    rows, seq_len, width, out_row = T.dynamic("rows, seq_len, width, out_row")

    @T.prim_func
    def mqa_logits(
        q: T.Tensor((rows * heads, *shape), stored),
        k: T.Tensor((seq_len, *shape), stored),
        weights: T.Tensor((rows, heads), "float32"),
        k_scale: T.Tensor((seq_len,), "float32"),
        row_start: T.Tensor((rows,), "int32"),
        row_end: T.Tensor((rows,), "int32"),
        compressed: T.int32,
        fill: T.int32,
        out: T.StridedTensor((rows, width), (out_row, 1), out_dtype),
    ):
        with T.Kernel(
            T.ceildiv(seq_len, keys * tile.steps), T.ceildiv(rows, tokens), threads=tile.threads
        ) as (strip, row_block):
            q_tile = T.alloc_shared((tokens * heads, dim), product)
            k_tile = T.alloc_shared((keys, dim), product)
            q_staged = scoring.staging(target, tokens * heads, dim, dtype)
            # Keys are on their way while k_tile is scored.
            k_staged = scoring.staging(target, keys, dim, dtype)
            dots = T.alloc_fragment((keys, tokens * heads), "float32")
            terms = T.alloc_fragment((keys, tokens, heads), "float32")
            scores = T.alloc_fragment((keys, tokens), "float32")
            lowest = T.alloc_var("int32", init=INT_MAX)
            highest = T.alloc_var("int32", init=0)

            first_row = row_block * tokens
            for t in T.serial(T.min(tokens, rows - first_row)):
                lowest = T.min(lowest, row_start[first_row + t])
                highest = T.max(highest, row_end[first_row + t])
            # Tiles of the strip, and those of them that a row's range reaches.
            begin = strip * tile.steps
            end = T.min(begin + tile.steps, T.ceildiv(seq_len, keys))
            first = T.alloc_var("int32", init=T.truncdiv(lowest, keys))
            first = T.max(T.min(first, end), begin)
            last = T.alloc_var("int32", init=T.truncdiv(highest + keys - 1, keys))
            last = T.max(T.min(last, end), first)

            scoring.fetch_rows(q, first_row * heads, rows * heads - 1, q_staged)
            scoring.put_operands(target, q_staged, q_tile, dtype)
            scoring.fetch_rows(k, first * keys, seq_len - 1, k_staged)
            for number in T.serial(first, last):
                first_key = number * keys
                scoring.put_operands(target, k_staged, k_tile, dtype)
                scoring.fetch_rows(k, first_key + keys, seq_len - 1, k_staged)
                T.gemm(k_tile, q_tile, dots, transpose_B=True, clear_accum=True, **packing)
                scoring.score_tile(dots, weights, first_row, rows, terms, scores)
                for s, t in T.Parallel(keys, tokens):
                    row, key = first_row + t, first_key + s
                    if row < rows and key < seq_len:
                        start = T.max(row_start[row], 0)
                        column = key - compressed * start
                        inside = key >= start and key < row_end[row]
                        score = k_scale[key] * (scoring.product_scale(target, dtype) * scores[s, t])
                        if (inside or fill != 0) and column >= 0 and column < width:
                            out[row, column] = T.if_then_else(inside, score, -INFINITY)
            if fill != 0:
                for number in T.serial(begin, end):
                    if number < first or number >= last:
                        for t, s in T.Parallel(tokens, keys):
                            if first_row + t < rows and number * keys + s < seq_len:
                                out[first_row + t, number * keys + s] = -INFINITY

    return mqa_logits


def mqa_logits(run, q, k, weights, k_scale, row_start, row_end, layout, fill, out) -> None:
    """The op's schema; `run` is what runs kernels."""
    (num_rows, heads, dim), seq_len = q.shape, k.shape[0]
    compressed = layout == "compressed"
    if fill and (compressed or seq_len == 0):  # else each column is a key's
        out.fill_(-math.inf)
    if out.numel() == 0 or seq_len == 0:
        return
    if k_scale is None:
        k_scale = weights.new_ones(seq_len)
    configuration = {
        "heads": heads,
        "dim": dim,
        "dtype": name_of(q.dtype),
        "out_dtype": name_of(out.dtype),
    }
    run(
        kernel,
        configuration,
        scoring.operands(run.target, q),
        scoring.operands(run.target, k),
        aligned(weights),
        aligned(k_scale),
        *row_bounds(row_start, row_end, num_rows, seq_len, q.device),
        int(compressed),
        int(fill and not compressed),
        out,
    )
