"""The indexer's q, rotated and quantised; its scales become factors of the head weights.

x = Hadamard(RoPE(q)),  q_out = e4m3fn(x / scale),  weights_out = weights * scale * weights_scale
"""

import tilelang.language as T

from tilelang_kernels.pieces import fp8
from tilelang_kernels.pieces.arguments import aligned, copy_back, name_of, writable
from tilelang_kernels.pieces.indexer_input import (
    INPUTS,
    hadamard_transform,
    nan,
    rope_arguments,
    rotate,
)
from tilelang_kernels.pieces.quantize import VECTOR, quantise
from tilelang_kernels.toolchain.targets import Target

CONFIGURATIONS = INPUTS


def kernel(target: Target, *, head_dim: int, dtype: str):
    threads, lanes = target.tiles["indexer_q_rope_quant"].threads, head_dim // VECTOR
    rows = threads // lanes
    num_rows, num_tokens, max_position, rope_dim = T.dynamic(
        "num_rows, num_tokens, max_position, rope_dim"
    )

    @T.prim_func
    def indexer_q_rope_quant(
        q: T.Tensor((num_rows, head_dim), dtype),
        weights: T.Tensor((num_rows,), "float32"),
        positions: T.Tensor((num_tokens,), "int64"),
        cos_sin: T.Tensor((max_position, rope_dim), "float32"),
        num_heads: T.int32,
        pairs: T.int32,
        interleaved: T.int32,
        hadamard: T.int32,
        weights_scale: T.float32,
        ue8m0: T.int32,
        q_out: T.Tensor((num_rows, head_dim), fp8.code_type(target)),
        weights_out: T.Tensor((num_rows,), "float32"),
    ):
        with T.Kernel(T.ceildiv(num_rows, rows), threads=threads) as block:
            exchange = T.alloc_shared((rows, head_dim), "float32")
            x, scale = T.alloc_local((VECTOR,), "float32"), T.alloc_local((1,), "float32")
            position = T.alloc_var("int64")
            r, lane = T.get_thread_binding() // lanes, T.get_thread_binding() % lanes
            row = block * rows + r
            for e in T.vectorized(VECTOR):
                x[e] = T.cast(q[row, lane * VECTOR + e], "float32")
            position = positions[T.truncdiv(row, num_heads)]
            rotate(target, dtype, x, exchange, r, lane, cos_sin, position, pairs, interleaved)
            if hadamard != 0:
                hadamard_transform(dtype, x, lanes, lane)
            quantise(x, lanes, ue8m0, scale)
            if row < num_rows:
                for e in T.vectorized(VECTOR):
                    q_out[row, lane * VECTOR + e] = fp8.code_of(target, x[e])
                if lane == 0:
                    weights_out[row] = T.if_then_else(
                        position >= 0 and position < max_position,
                        weights[row] * scale[0] * weights_scale,
                        nan(),
                    )

    return indexer_q_rope_quant


def indexer_q_rope_quant(
    run,
    q,
    weights,
    positions,
    cos_sin,
    rope_layout,
    hadamard,
    weights_scale,
    scale_format,
    q_out,
    weights_out,
) -> None:
    """The op's schema; `run` is what runs kernels."""
    num_tokens, num_heads, head_dim = q.shape
    if q.numel() == 0:
        return
    positions, cos_sin, pairs, interleaved = rope_arguments(
        positions, cos_sin, rope_layout, num_tokens, q.device
    )
    codes, factors = writable(q_out), writable(weights_out)
    run(
        kernel,
        {"head_dim": head_dim, "dtype": name_of(q.dtype)},
        aligned(q).view(-1, head_dim),
        aligned(weights.float()).view(-1),
        positions,
        cos_sin,
        num_heads,
        pairs,
        interleaved,
        int(hadamard),
        weights_scale,
        int(scale_format == "ue8m0"),
        codes.view(fp8.torch_code_type(run.target)).view(-1, head_dim),
        factors.view(-1),
    )
    copy_back(q_out, codes)
    copy_back(weights_out, factors)
