"""Steps of the indexer's input before quantisation: LayerNorm, RoPE, Hadamard.

A thread has VECTOR dims of a row, in `x`; neighbouring threads, its lanes, have the row. All
threads of a block take part. Each step is float32 and rounded to `dtype`, as in the reference.
"""

import tilelang.language as T
import torch

from tilelang_kernels.pieces.arguments import aligned
from tilelang_kernels.pieces.quantize import VECTOR
from tilelang_kernels.toolchain.targets import Target

# All kernels of an op that takes such input.
INPUTS = [
    {"head_dim": head_dim, "dtype": dtype}
    for head_dim in (64, 128)
    for dtype in ("bfloat16", "float32")
]


def rope_arguments(positions, cos_sin, rope_layout, num_tokens, device):
    """As kernels take them: int64 positions, the table, the number of pairs, interleaved or not."""
    if rope_layout == "none":
        positions = torch.zeros(num_tokens, dtype=torch.int64, device=device)
        return positions, torch.zeros(1, 2, device=device), 0, 0
    if cos_sin.shape[0] == 0:  # no position is valid
        positions, cos_sin = torch.full_like(positions, -1), cos_sin.new_zeros(1, cos_sin.shape[1])
    pairs, interleaved = cos_sin.shape[1] // 2, int(rope_layout == "interleaved")
    return aligned(positions.long()), aligned(cos_sin), pairs, interleaved


def nan():
    """float32 0x7fc00000; CUDA's own constant is another one."""
    return T.reinterpret(T.uint32(0x7FC00000), "float32")


def rounded(x, dtype: str):
    return T.cast(T.cast(x, dtype), "float32")


def product(target: Target, a, b):
    """Rounded on CUDA. TileLang has none for HIP, whose compiler may fuse it with a sum."""
    return T.ieee_mul(a, b) if target.kind == "cuda" else a * b


@T.macro
def sum_of_row(x, lanes, total):
    total[0] = 0
    for e in T.unroll(VECTOR):
        total[0] += x[e]
    for i in T.unroll(lanes.bit_length() - 1):
        total[0] += T.shfl_xor(total[0], 1 << i)


@T.macro
def layer_norm(target, dtype, x, lanes, lane, weight, bias, eps):
    """With biased variance."""
    total, squares = T.alloc_local((1,), "float32"), T.alloc_local((VECTOR,), "float32")
    sum_of_row(x, lanes, total)
    for e in T.unroll(VECTOR):
        x[e] = x[e] - total[0] / (lanes * VECTOR)
        squares[e] = x[e] * x[e]
    sum_of_row(squares, lanes, total)
    total[0] = 1 / T.sqrt(total[0] / (lanes * VECTOR) + eps)
    for e in T.unroll(VECTOR):
        scaled = product(target, x[e] * total[0], weight[lane * VECTOR + e])
        x[e] = rounded(scaled + bias[lane * VECTOR + e], dtype)


@T.macro
def rotate(target, dtype, x, exchange, r, lane, cos_sin, position, pairs, interleaved):
    """RoPE of the first 2 * pairs dims; all are NaN where the position lies outside the table.

    exchange: [rows, head_dim] of shared memory, of which r is this row. A pair is dims
    (i, i + pairs), or (2 i, 2 i + 1).
    """
    for e in T.vectorized(VECTOR):
        exchange[r, lane * VECTOR + e] = x[e]
    T.sync_threads()
    for e in T.unroll(VECTOR):
        dim = lane * VECTOR + e
        if position < 0 or position >= cos_sin.shape[0]:
            x[e] = nan()
        elif dim < 2 * pairs:
            second = T.if_then_else(interleaved != 0, dim % 2, T.cast(dim >= pairs, "int32"))
            pair = T.if_then_else(interleaved != 0, dim // 2, dim - second * pairs)
            partner = T.if_then_else(interleaved != 0, dim ^ 1, dim + pairs - 2 * second * pairs)
            cosine = product(target, x[e], cos_sin[position, pair])
            sine = product(target, exchange[r, partner], cos_sin[position, pairs + pair])
            x[e] = rounded(T.if_then_else(second != 0, cosine + sine, cosine - sine), dtype)


@T.macro
def hadamard_transform(dtype, x, lanes, lane):
    """Orthonormal: butterflies of stride 1, 2, 4, ..."""
    y = T.alloc_local((VECTOR,), "float32")
    for i in T.unroll(VECTOR.bit_length() - 1):
        for e in T.unroll(VECTOR):
            y[e] = T.if_then_else(e >> i & 1 != 0, x[e ^ 1 << i] - x[e], x[e] + x[e ^ 1 << i])
        for e in T.unroll(VECTOR):
            x[e] = y[e]
    for i in T.unroll(lanes.bit_length() - 1):
        for e in T.unroll(VECTOR):
            y[e] = T.shfl_xor(x[e], 1 << i)
            x[e] = T.if_then_else(lane >> i & 1 != 0, y[e] - x[e], x[e] + y[e])
    for e in T.unroll(VECTOR):
        x[e] = rounded(x[e] * T.float32((lanes * VECTOR) ** -0.5), dtype)
