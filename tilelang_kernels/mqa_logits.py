"""Lightning-indexer scores of ragged queries against contiguous keys.

    logits[t, s] = k_scale[s] * sum_h weights[t, h] * relu(q[t, h] . k[s])

A block scores `keys` keys for `queries` query tokens: keys are rows of the product and all heads of
all the tokens its columns, so that a tile of keys is read once for them.
"""

import math

import tilelang.language as T
import torch

from tilelang_kernels.arguments import aligned, name_of
from tilelang_kernels.targets import Target, product_type

INFINITY = float("inf")
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
    keys, queries = tile.rows, max(1, tile.columns // heads)
    product = product_type(target, dtype)
    rows, seq_len, width, out_row = T.dynamic("rows, seq_len, width, out_row")

    @T.prim_func
    def mqa_logits(
        q: T.Tensor((rows * heads, dim), dtype),
        k: T.Tensor((seq_len, dim), dtype),
        weights: T.Tensor((rows, heads), "float32"),
        k_scale: T.Tensor((seq_len,), "float32"),
        row_start: T.Tensor((rows,), "int32"),
        row_end: T.Tensor((rows,), "int32"),
        compressed: T.int32,
        fill: T.int32,
        out: T.StridedTensor((rows, width), (out_row, 1), out_dtype),
    ):
        with T.Kernel(T.ceildiv(seq_len, keys), T.ceildiv(rows, queries), threads=tile.threads) as (
            key_block,
            row_block,
        ):
            q_tile = T.alloc_shared((queries * heads, dim), product)
            k_tile = T.alloc_shared((keys, dim), product)
            dots = T.alloc_fragment((keys, queries * heads), "float32")
            terms = T.alloc_fragment((keys, queries, heads), "float32")
            scores = T.alloc_fragment((keys, queries), "float32")
            first_key, first_row = key_block * keys, row_block * queries
            T.copy(q[first_row * heads, 0], q_tile)
            T.copy(k[first_key, 0], k_tile)
            T.gemm(k_tile, q_tile, dots, transpose_B=True, clear_accum=True)
            for s, t, h in T.Parallel(keys, queries, heads):
                dot = dots[s, t * heads + h]
                relu = T.if_then_else(dot < 0, 0, dot)  # NaN stays NaN
                terms[s, t, h] = T.if_then_else(
                    first_row + t < rows, weights[first_row + t, h] * relu, 0
                )
            T.reduce_sum(terms, scores, dim=2)
            for s, t in T.Parallel(keys, queries):
                row, key = first_row + t, first_key + s
                if row < rows and key < seq_len:
                    start = T.max(row_start[row], 0)
                    column = key - compressed * start
                    if key >= start and key < row_end[row] and column < width:
                        out[row, column] = k_scale[key] * scores[s, t]
                    elif fill != 0:
                        out[row, key] = -INFINITY

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
    if row_start is None:
        row_start = torch.zeros(num_rows, dtype=torch.int32, device=q.device)
    if row_end is None:
        row_end = torch.full((num_rows,), seq_len, dtype=torch.int32, device=q.device)
    configuration = {
        "heads": heads,
        "dim": dim,
        "dtype": name_of(q.dtype),
        "out_dtype": name_of(out.dtype),
    }
    run(
        kernel,
        configuration,
        aligned(q).view(-1, dim),
        *(aligned(t) for t in (k, weights, k_scale, row_start, row_end)),
        int(compressed),
        int(fill and not compressed),
        out,
    )
