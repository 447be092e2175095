"""The indexer's k, normed, rotated and quantised, into the paged index cache.

x = Hadamard(RoPE(LayerNorm(k))),  code = e4m3fn(x / scale)
"""

import tilelang.language as T
import torch

from tilelang_kernels.pieces import fp8
from tilelang_kernels.pieces.arguments import (
    aligned,
    aligned_pages,
    chunks,
    copy_back,
    name_of,
    page_chunks,
)
from tilelang_kernels.pieces.indexer_input import (
    INPUTS,
    hadamard_transform,
    layer_norm,
    nan,
    rope_arguments,
    rotate,
)
from tilelang_kernels.pieces.quantize import VECTOR, quantise
from tilelang_kernels.toolchain.targets import Target

CONFIGURATIONS = INPUTS


def kernel(target: Target, *, head_dim: int, dtype: str):
    threads, lanes = target.tiles["indexer_k_cache_store"].threads, head_dim // VECTOR
    rows = threads // lanes
    num_tokens, max_position, rope_dim = T.dynamic("num_tokens, max_position, rope_dim")
    num_chunks, num_scales = T.dynamic("num_chunks, num_scales", "int64")

    @T.prim_func
    def indexer_k_cache_store(
        k: T.Tensor((num_tokens, head_dim), dtype),
        slots: T.Tensor((num_tokens,), "int64"),
        norm_weight: T.Tensor((head_dim,), "float32"),
        norm_bias: T.Tensor((head_dim,), "float32"),
        norm_eps: T.float32,
        has_norm: T.int32,
        positions: T.Tensor((num_tokens,), "int64"),
        cos_sin: T.Tensor((max_position, rope_dim), "float32"),
        pairs: T.int32,
        interleaved: T.int32,
        hadamard: T.int32,
        ue8m0: T.int32,
        page_size: T.int64,
        page_chunks: T.int64,
        slot_count: T.int64,
        codes: T.Tensor((num_chunks, 16), fp8.code_type(target)),
        scales: T.Tensor((num_scales,), "float32"),
    ):
        with T.Kernel(T.ceildiv(num_tokens, rows), threads=threads) as block:
            exchange = T.alloc_shared((rows, head_dim), "float32")
            x, scale = T.alloc_local((VECTOR,), "float32"), T.alloc_local((1,), "float32")
            slot, position = T.alloc_var("int64"), T.alloc_var("int64")
            begin, place = T.alloc_var("int64"), T.alloc_var("int64")
            r, lane = T.get_thread_binding() // lanes, T.get_thread_binding() % lanes
            row = block * rows + r
            for e in T.vectorized(VECTOR):
                x[e] = T.cast(k[row, lane * VECTOR + e], "float32")
            if has_norm != 0:
                layer_norm(target, dtype, x, lanes, lane, norm_weight, norm_bias, norm_eps)
            position = positions[row]
            rotate(target, dtype, x, exchange, r, lane, cos_sin, position, pairs, interleaved)
            if hadamard != 0:
                hadamard_transform(dtype, x, lanes, lane)
            quantise(x, lanes, ue8m0, scale)
            slot = T.if_then_else(row < num_tokens, slots[row], -1)
            if slot >= 0 and slot < slot_count:
                begin = T.truncdiv(slot, page_size)
                place = slot - begin * page_size
                begin *= page_chunks
                for e in T.vectorized(VECTOR):
                    codes[begin + place * (head_dim // 16) + lane // 2, lane % 2 * VECTOR + e] = (
                        fp8.code_of(target, x[e])
                    )
                if lane == 0:
                    scales[begin * 4 + page_size * (head_dim // 4) + place] = T.if_then_else(
                        position >= 0 and position < max_position, scale[0], nan()
                    )

    return indexer_k_cache_store


def indexer_k_cache_store(
    run,
    k,
    slots,
    norm_weight,
    norm_bias,
    norm_eps,
    positions,
    cos_sin,
    rope_layout,
    hadamard,
    scale_format,
    cache,
) -> None:
    """The op's schema; `run` is what runs kernels."""
    (num_tokens, head_dim), (num_pages, page_size, _) = k.shape, cache.shape
    if num_tokens == 0 or num_pages * page_size == 0:
        return
    has_norm = norm_weight is not None
    if not has_norm:
        norm_weight = norm_bias = k.new_zeros(head_dim)
    positions, cos_sin, pairs, interleaved = rope_arguments(
        positions, cos_sin, rope_layout, num_tokens, k.device
    )
    pages = aligned_pages(cache)
    run(
        kernel,
        {"head_dim": head_dim, "dtype": name_of(k.dtype)},
        aligned(k),
        aligned(slots.long()),
        aligned(norm_weight.float()),
        aligned(norm_bias.float()),
        norm_eps,
        int(has_norm),
        positions,
        cos_sin,
        pairs,
        interleaved,
        int(hadamard),
        int(scale_format == "ue8m0"),
        page_size,
        page_chunks(pages),
        num_pages * page_size,
        chunks(pages, fp8.torch_code_type(run.target)),
        chunks(pages, torch.float32, 4).view(-1),
    )
    copy_back(cache, pages)
