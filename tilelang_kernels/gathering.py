"""Selected keys of a latent cache, a block at a time, into shared memory as bfloat16.

The records of the next block are in registers, and the indices of the one after it, while a block is
attended to: nothing waits for memory.
"""

from typing import Any, NamedTuple

import tilelang.language as T

from tilelang_kernels.arguments import ALIGNMENT
from tilelang_kernels.records import Records

HALVES = ALIGNMENT // 2  # in a chunk


class Gather(NamedTuple):
    """Of blocks of keys; by key in the block."""

    records: Records
    keys: int
    index: Any  # registers: of the block after the next
    valid: Any  # shared [2, keys]: of a block and the next
    data: Any  # shared: the first chunk of a key's record in the next block, or -1
    scale: Any  # shared: the chunk of its scales
    codes: Any  # registers [keys, chunks, 16], of the next block
    factors: Any  # registers [keys, chunks]: what codes are multiplied by
    halves: Any  # registers [keys, chunks, 8]


def allocate(records: Records, keys: int) -> Gather:
    code_chunks = max(1, records.quantised // ALIGNMENT)
    half_chunks = (records.d_qk - records.quantised) // HALVES
    return Gather(
        records,
        keys,
        T.alloc_fragment((keys,), "int32"),
        T.alloc_shared((2, keys), "bool"),
        T.alloc_shared((keys,), "int64"),
        T.alloc_shared((keys,), "int64"),
        T.alloc_fragment((keys, code_chunks, ALIGNMENT), records.code_type),
        T.alloc_fragment((keys, code_chunks), "float32"),
        T.alloc_fragment((keys, half_chunks, HALVES), "bfloat16"),
    )


@T.macro
def load_indices(gather: Gather, indices, row, block, count):
    """Of a block of a row, which has `count` indices."""
    for s in T.Parallel(gather.keys):
        i = block * gather.keys + s
        gather.index[s] = T.if_then_else(i < count, indices[row, i], -1)


@T.macro
def locate(gather: Gather, block, start, paging):
    """Where the block's records are, of which `load_indices` has the indices."""
    capacity, page_size, page_chunks = paging
    for s in T.Parallel(gather.keys):
        slot = T.cast(gather.index[s], "int64") + start
        valid = gather.index[s] >= 0 and slot >= 0 and slot < capacity
        data, scale = gather.records.position(slot, page_size, page_chunks)
        gather.valid[block % 2, s] = valid
        gather.data[s] = T.if_then_else(valid, data, -1)
        gather.scale[s] = scale


@T.macro
def load_records(gather: Gather, views):
    """Of the block that has been located; zeros where there is no key."""
    codes, halves, scales = views
    records = gather.records
    if records.quantised:
        for s, c, e in T.Parallel(*gather.codes.shape):
            gather.codes[s, c, e] = T.if_then_else(
                gather.data[s] >= 0,
                codes[gather.data[s] + c, e],
                T.cast(0, records.code_type),
            )
        for s, c in T.Parallel(*gather.factors.shape):
            group = c // (records.group_dim // ALIGNMENT)
            gather.factors[s, c] = T.if_then_else(
                gather.data[s] >= 0, records.scale(scales, gather.scale[s], group), 0
            )
    for s, c, e in T.Parallel(*gather.halves.shape):
        gather.halves[s, c, e] = T.if_then_else(
            gather.data[s] >= 0,
            halves[gather.data[s] + records.first_half_chunk + c, e],
            T.cast(0, "bfloat16"),
        )


@T.macro
def store_keys(gather: Gather, kv):
    """kv [keys, d_qk]: the keys whose records have been loaded."""
    records = gather.records
    if records.quantised:
        for s, c, e in T.Parallel(*gather.codes.shape):
            kv[s, c * ALIGNMENT + e] = records.value(gather.codes[s, c, e], gather.factors[s, c])
    for s, c, e in T.Parallel(*gather.halves.shape):
        kv[s, records.quantised + c * HALVES + e] = gather.halves[s, c, e]
