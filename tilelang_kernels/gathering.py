"""Selected keys, read from a latent cache of any format into shared memory as bfloat16.

A cache, or contiguous keys as a cache of one page, is given as three views of the same memory, each
an array of whole chunks: codes [num_chunks, 16], halves [num_chunks, 8] and scales.
"""

from typing import Any, NamedTuple

import tilelang.language as T
import torch

from dsa_kernels.formats import FP8_FORMATS, ROPE_DIM, V4, V4_SCALE_BYTES
from tilelang_kernels.arguments import ALIGNMENT, aligned_pages, chunks, page_chunks
from tilelang_kernels.fp8 import code_type, code_value
from tilelang_kernels.targets import Target

HALVES = ALIGNMENT // 2  # in a chunk


class Selection(NamedTuple):
    """A block of keys, by position in it, in shared memory."""

    valid: Any
    record: Any  # the first chunk of a key's data
    scale: Any  # the chunk of its scales


def allocate(keys: int) -> Selection:
    return Selection(
        T.alloc_shared((keys,), "bool"),
        T.alloc_shared((keys,), "int64"),
        T.alloc_shared((keys,), "int64"),
    )


def scale_type(cache_format: str) -> tuple[str, int]:
    """Of the view `scales`: type and width."""
    return ("uint8", V4_SCALE_BYTES) if cache_format == "v4" else ("float32", 4)


def record_bytes(cache_format: str, d_qk: int) -> int:
    """From one key's data to the next's."""
    return FP8_FORMATS[cache_format].data_bytes if cache_format in FP8_FORMATS else 2 * d_qk


def ue8m0_value(exponent):
    bits = T.cast(exponent, "uint32")
    shifted = T.if_then_else(bits == 0, T.uint32(0x00400000), bits << 23)
    return T.reinterpret(T.if_then_else(bits == 255, T.uint32(0x7FC00000), shifted), "float32")


@T.macro
def locate(selection: Selection, cache_format, d_qk, indices, row, first, count, start, paging):
    """Entries first, first + 1, ... of a row of indices, of which it has `count`.

    paging: capacity, page size, and chunks from one page to the next.
    """
    capacity, page_size, page_chunks = paging
    (keys,) = selection.valid.shape
    for s in T.Parallel(keys):
        index = T.if_then_else(first + s < count, indices[row, first + s], -1)
        slot = T.cast(index, "int64") + start
        page = T.truncdiv(slot, page_size)
        token = slot - page * page_size
        record = page * page_chunks + token * (record_bytes(cache_format, d_qk) // ALIGNMENT)
        selection.valid[s] = index >= 0 and slot >= 0 and slot < capacity
        selection.record[s] = record
        if cache_format == "v4":
            per_chunk = ALIGNMENT // V4_SCALE_BYTES
            scales = page * page_chunks * per_chunk + page_size * (V4.data_bytes // V4_SCALE_BYTES)
            selection.scale[s] = scales + token
        elif cache_format == "v32":
            selection.scale[s] = record + FP8_FORMATS["v32"].scale_offset // ALIGNMENT


@T.macro
def gather(target, cache_format, selection: Selection, views, kv):
    """kv [keys, d_qk]: the keys, zeros where there is none."""
    codes, halves, scales = views
    valid, record, scale = selection
    keys, d_qk = kv.shape
    zero = T.cast(0, "bfloat16")
    if cache_format == "bf16":
        for part, s, c, e in T.Parallel(d_qk // ROPE_DIM, keys, ROPE_DIM // HALVES, HALVES):
            chunk = part * (ROPE_DIM // HALVES) + c
            kv[s, chunk * HALVES + e] = T.if_then_else(valid[s], halves[record[s] + chunk, e], zero)
    else:
        fmt = FP8_FORMATS[cache_format]
        for g, s, c, e in T.Parallel(fmt.num_groups, keys, fmt.group_dim // ALIGNMENT, ALIGNMENT):
            chunk = g * (fmt.group_dim // ALIGNMENT) + c
            factor = scales[scale[s], g]
            if cache_format == "v4":
                value = code_value(target, codes[record[s] + chunk, e]) * ue8m0_value(factor)
            else:
                value = code_value(target, codes[record[s] + chunk, e]) * factor
            kv[s, chunk * ALIGNMENT + e] = T.if_then_else(valid[s], T.cast(value, "bfloat16"), zero)
        for s, c, e in T.Parallel(keys, ROPE_DIM // HALVES, HALVES):
            kv[s, fmt.nope_dim + c * HALVES + e] = T.if_then_else(
                valid[s], halves[record[s] + fmt.rope_offset // ALIGNMENT + c, e], zero
            )


def views(cache: torch.Tensor, target: Target, cache_format: str) -> list[torch.Tensor]:
    """Of a cache whose pages are aligned."""
    name, width = scale_type(cache_format)
    scales = getattr(torch, name)
    return [
        chunks(cache, getattr(torch, code_type(target))),
        chunks(cache, torch.bfloat16),
        chunks(cache, scales, width * scales.itemsize),
    ]
