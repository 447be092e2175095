"""Attention over all keys, from attention over disjoint parts of them.

    lse = log sum_p exp(lses[p])
    out = sum_p exp(lses[p] - lse) outs[p]  x  1 / (1 + exp(attn_sink - lse))

A block takes a row and a head. What a head has is counted in vectors, so that accesses are aligned
whatever the strides are.
"""

import tilelang.language as T
import torch

from tilelang_kernels.pieces.arguments import ALIGNMENT, name_of, optional
from tilelang_kernels.toolchain.targets import Target

INFINITY = float("inf")
GROUP = 4  # parts that are loaded at once
CONFIGURATIONS = [
    {"dtype": dtype, "out_dtype": out_dtype, "vector": vector}
    for dtype, widest in (("bfloat16", 8), ("float32", 4))
    for out_dtype in ("bfloat16", "float32")
    for vector in (widest, 1)
]


def kernel(target: Target, *, dtype: str, out_dtype: str, vector: int):
    tile = target.tiles["merge_attention_states"]
    columns = tile.columns // vector
    parts, rows, heads = T.dynamic("parts, rows, heads")
    size, out_size = T.dynamic("size, out_size", "int64")
    lses_part, lses_row, lses_head = T.dynamic("lses_part, lses_row, lses_head", "int64")
    lse_row, lse_head = T.dynamic("lse_row, lse_head", "int64")

    @T.prim_func
    def merge_attention_states(
        outs: T.Tensor((size, vector), dtype),
        outs_part: T.int64,
        outs_row: T.int64,
        outs_head: T.int64,
        lses: T.StridedTensor((parts, rows, heads), (lses_part, lses_row, lses_head), "float32"),
        attn_sink: T.Tensor((heads,), "float32"),
        has_sink: T.int32,
        vectors: T.int32,  # of a head
        out: T.Tensor((out_size, vector), out_dtype),
        out_row: T.int64,
        out_head: T.int64,
        lse: T.StridedTensor((rows, heads), (lse_row, lse_head), "float32"),
    ):
        with T.Kernel(rows, heads, T.ceildiv(vectors, columns), threads=tile.threads) as (
            row,
            head,
            block,
        ):
            values = T.alloc_fragment((GROUP, columns, vector), dtype)
            merged = T.alloc_fragment((columns, vector), "float32")
            largest = T.alloc_var("float32", init=-INFINITY)
            total = T.alloc_var("float32", init=0.0)
            for p in T.serial(parts):
                part = lses[p, row, head]
                if part > largest or T.isnan(part):
                    largest = part
            for p in T.serial(parts):
                part = lses[p, row, head]
                if part != -INFINITY:
                    total += T.exp(part - largest)
            merged_lse = T.alloc_var("float32", init=largest)
            if T.abs(largest) < INFINITY:
                merged_lse = largest + T.log(total)
            if block == 0 and T.get_thread_binding() == 0:
                lse[row, head] = merged_lse

            share = T.alloc_var("float32", init=1 / total)
            if has_sink != 0:
                share = 1 / (total * (1 + T.exp(attn_sink[head] - merged_lse)))
            T.clear(merged)
            for group in T.serial(T.ceildiv(parts, GROUP)):
                # None of these loads depends on a branch, so that all are in flight.
                for i, c, j in T.Parallel(GROUP, columns, vector):
                    p = T.min(group * GROUP + i, parts - 1)
                    first = p * outs_part + row * outs_row + head * outs_head
                    values[i, c, j] = outs[first + T.min(block * columns + c, vectors - 1), j]
                for i in T.unroll(GROUP):
                    part = lses[T.min(group * GROUP + i, parts - 1), row, head]
                    if group * GROUP + i < parts and part != -INFINITY:
                        weight = T.exp(part - largest) * share
                        for c, j in T.Parallel(columns, vector):
                            merged[c, j] += weight * values[i, c, j]
            first = row * out_row + head * out_head + block * columns
            for c, j in T.Parallel(columns, vector):
                if block * columns + c < vectors:
                    out[first + c, j] = merged[c, j]

    return merge_attention_states


def is_whole(tensor: torch.Tensor, vector: int) -> bool:
    """Whether its rows are whole vectors, aligned."""
    steps = [tensor.shape[-1], *tensor.stride()[:-1], tensor.data_ptr() // tensor.element_size()]
    return all(step % vector == 0 for step in steps)


def in_vectors(tensor: torch.Tensor, vector: int) -> list:
    """What it spans, [size, vector], and in vectors its strides but the last dim's."""
    size = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    spanned = tensor.as_strided((size // vector, vector), (vector, 1))
    return [spanned, *(stride // vector for stride in tensor.stride()[:-1])]


def merge_attention_states(run, outs, lses, attn_sink, out, lse) -> None:
    """The op's schema; `run` is what runs kernels."""
    if outs.numel() == 0 and lses.numel():  # d_v is 0: there is an lse
        outs, out = (t.new_zeros((*t.shape[:-1], 1)) for t in (outs, out))
    if outs.numel() == 0:
        out.zero_()
        lse.fill_(-INFINITY)
        return
    vector = ALIGNMENT // outs.element_size()
    if not (is_whole(outs, vector) and is_whole(out, vector)):
        vector = 1
    run(
        kernel,
        {"dtype": name_of(outs.dtype), "out_dtype": name_of(out.dtype), "vector": vector},
        *in_vectors(outs, vector),
        lses,
        optional(attn_sink, lses[0, 0]),
        int(attn_sink is not None),
        outs.shape[-1] // vector,
        *in_vectors(out, vector),
        lse,
    )
