"""Lightning-indexer scores of ragged queries against contiguous keys, on an Ascend NPU.

    logits[t, s] = k_scale[s] * sum_h weights[t, h] * relu(q[t, h] . k[s])

The Cube multiplies all heads of a few query tokens with a tile of keys; each of the two vector
cores beside it gets half of the tokens of the product, and a thread of it sums up the heads for a
key. All of the op, but for strides: q, k, weights and ranges are contiguous.
"""

import tilelang.ascend.language as T

CORES = 32  # blocks, each of a Cube and two vector cores
PRODUCTS, KEYS = 128, 128  # rows and columns of a product
INFINITY, INT_MAX = float("inf"), 2**31 - 1
CONFIGURATIONS = [
    {"heads": heads, "dim": dim, "dtype": dtype, "out_dtype": out_dtype}
    for heads in (8, 16, 32, 64)
    for dim in (64, 128)
    for dtype in ("float8_e4m3fn", "bfloat16")
    for out_dtype in ("float32", "bfloat16")
]


def kernel(*, heads: int, dim: int, dtype: str, out_dtype: str):
    tokens = PRODUCTS // heads
    own_tokens = tokens // 2  # of a vector core
    rows, seq_len, width, out_row = T.dynamic("rows, seq_len, width, out_row")

    @T.macro
    def score(products, token, key, row, weights):
        """Of a thread's key."""
        total = T.alloc_var("float32", init=0.0)
        for h in T.serial(heads):
            dot = products[token * heads + h, key]
            relu = T.if_then_else(dot < 0, T.float32(0), dot)  # NaN stays NaN
            total += weights[row, h] * relu
        return total

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
        with T.MixedKernel(CORES) as (core, vector_core):
            q_tile = T.alloc_l1((PRODUCTS, dim), dtype)
            k_tile = T.alloc_l1((KEYS, dim), dtype)
            dots = T.alloc_l0c((PRODUCTS, KEYS), "float32")
            products = T.alloc_shared((PRODUCTS // 2, KEYS), "float32")

            row_blocks = T.ceildiv(rows, tokens)
            for turn in T.serial(T.truncdiv(row_blocks + CORES - 1 - core, CORES)):
                first_row = (turn * CORES + core) * tokens
                # Keys that a row's range reaches, or all to be filled.
                lowest = T.alloc_var("int32", init=INT_MAX)
                highest = T.alloc_var("int32", init=0)
                for t in T.serial(T.min(tokens, rows - first_row)):
                    lowest = T.min(lowest, row_start[first_row + t])
                    highest = T.max(highest, row_end[first_row + t])
                begin = T.if_then_else(fill != 0, 0, T.max(lowest, 0))
                end = T.if_then_else(fill != 0, seq_len, T.min(highest, seq_len))
                T.copy(q[first_row * heads, 0], q_tile)
                for tile in T.Pipelined(
                    T.truncdiv(begin, KEYS), T.ceildiv(end, KEYS), num_stages=2
                ):
                    T.copy(k[tile * KEYS, 0], k_tile)
                    T.gemm(q_tile, k_tile, dots, transpose_B=True, clear_accum=True)
                    T.dual_copy(dots, products)
                    with T.SimtVF(threads=KEYS):
                        for s in T.Parallel(KEYS):
                            key = tile * KEYS + s
                            for t in T.serial(own_tokens):
                                row = first_row + vector_core * own_tokens + t
                                if key < seq_len and row < rows:
                                    start = T.max(row_start[row], 0)
                                    column = key - compressed * start
                                    inside = key >= start and key < row_end[row]
                                    if (inside or fill != 0) and column >= 0 and column < width:
                                        total = score(products, t, s, row, weights)
                                        value = T.if_then_else(
                                            inside, k_scale[key] * total, -INFINITY
                                        )
                                        out[row, column] = T.cast(value, out_dtype)

    return mqa_logits
