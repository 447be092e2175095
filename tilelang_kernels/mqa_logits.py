"""Lightning-indexer scores of ragged queries against contiguous keys.

    logits[t, s] = k_scale[s] * sum_h weights[t, h] * relu(q[t, h] . k[s])

A block scores `keys` keys for `queries` query tokens: keys are rows of the product and all heads of
all the tokens its columns, so that a tile of keys is read once for them.
"""

import tilelang.language as T

from tilelang_kernels.targets import Target

NEGATIVE_INFINITY = -float("inf")


def kernel(
    target: Target,
    *,
    heads: int,
    dim: int,
    dtype: str,
    out_dtype: str,
    scaled: bool,
    compressed: bool,
    fill: bool,
    keys: int = 64,
    threads: int = 128,
):
    queries = max(1, 128 // heads)
    rows, seq_len, width, out_row = T.dynamic("rows, seq_len, width, out_row")
    product_dtype = "bfloat16" if "float8" in dtype and target.fp8 is None else dtype

    @T.prim_func
    def mqa_logits(
        q: T.Tensor((rows * heads, dim), dtype),
        k: T.Tensor((seq_len, dim), dtype),
        weights: T.Tensor((rows, heads), "float32"),
        k_scale: T.Tensor((seq_len,), "float32"),
        row_start: T.Tensor((rows,), "int32"),
        row_end: T.Tensor((rows,), "int32"),
        out: T.StridedTensor((rows, width), (out_row, 1), out_dtype),
    ):
        with T.Kernel(T.ceildiv(seq_len, keys), T.ceildiv(rows, queries), threads=threads) as (
            key_block,
            row_block,
        ):
            q_tile = T.alloc_shared((queries * heads, dim), product_dtype)
            k_tile = T.alloc_shared((keys, dim), product_dtype)
            dots = T.alloc_fragment((keys, queries * heads), "float32")
            terms = T.alloc_fragment((keys, queries, heads), "float32")
            scores = T.alloc_fragment((keys, queries), "float32")
            first_key, first_row = key_block * keys, row_block * queries
            T.copy(q[first_row * heads, 0], q_tile)
            T.copy(k[first_key, 0], k_tile)
            T.gemm(k_tile, q_tile, dots, transpose_B=True, clear_accum=True)
            for s, i, h in T.Parallel(keys, queries, heads):
                dot = dots[s, i * heads + h]
                relu = T.if_then_else(dot < 0, 0, dot)  # NaN stays NaN
                terms[s, i, h] = T.if_then_else(
                    first_row + i < rows, weights[first_row + i, h] * relu, 0
                )
            T.reduce_sum(terms, scores, dim=2)
            for s, i in T.Parallel(keys, queries):
                row, key = first_row + i, first_key + s
                if row < rows and key < seq_len:
                    start = T.max(row_start[row], 0)
                    column = key - start if compressed else key
                    valid = key >= start and key < row_end[row]
                    if valid and column < width:
                        out[row, column] = (
                            k_scale[key] * scores[s, i] if scaled else scores[s, i]
                        )
                    elif fill and not compressed:
                        out[row, column] = NEGATIVE_INFINITY

    return mqa_logits
