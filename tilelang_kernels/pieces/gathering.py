"""Selected keys of a latent cache, a block at a time, into shared memory as bfloat16.

While a block is attended to, the records of the next one and the indices of the one after it are on
their way to registers.
"""

from typing import Any, NamedTuple

import tilelang.language as T

from tilelang_kernels.pieces.arguments import ALIGNMENT
from tilelang_kernels.pieces.fp8 import in_pair, in_pairs
from tilelang_kernels.pieces.records import Records

HALVES = ALIGNMENT // 2  # in a chunk


class Gather(NamedTuple):
    """Of a row's keys; each array but `valid` is of one block."""

    records: Records
    index: Any  # registers [keys]
    data: Any  # shared [keys]: the first chunk of a key's record, or -1
    scale: Any  # shared [keys]: the chunk of its scales
    valid: Any  # shared [2, keys]: whether there is a key, in every other block
    codes: Any  # registers [keys, chunks, 16]; or [keys, chunks, 8], two bytes in a bfloat16
    factors: Any  # registers [keys, chunks]: of codes
    halves: Any  # registers [keys, chunks, 8]


def allocate(records: Records, keys: int) -> Gather:
    # A power of two, so that threads share chunks evenly.
    code_chunks = 1 << (records.quantised // ALIGNMENT - 1).bit_length() if records.quantised else 1
    half_chunks = (records.d_qk - records.quantised) // HALVES
    return Gather(
        records,
        T.alloc_fragment((keys,), "int32"),
        T.alloc_shared((keys,), "int64"),
        T.alloc_shared((keys,), "int64"),
        T.alloc_shared((2, keys), "bool"),
        T.alloc_fragment((keys, code_chunks, HALVES), "bfloat16")
        if in_pairs(records.target)
        else T.alloc_fragment((keys, code_chunks, ALIGNMENT), records.code_type),
        T.alloc_fragment((keys, code_chunks), "float32"),
        T.alloc_fragment((keys, half_chunks, HALVES), "bfloat16"),
    )


@T.macro
def load_indices(gather: Gather, indices, row, block, count):
    """Of a block of a row, of which `count` indices are to be read."""
    (keys,) = gather.index.shape
    for s in T.Parallel(keys):
        i = block * keys + s
        gather.index[s] = T.if_then_else(i < count, indices[row, i], -1)


@T.macro
def locate(gather: Gather, block, paging):
    """Finds the records of the block whose indices are loaded."""
    base, capacity, page_size, page_chunks = paging
    for s in T.Parallel(gather.index.shape[0]):
        slot = T.cast(gather.index[s], "int64") + base
        valid = gather.index[s] >= 0 and slot >= 0 and slot < capacity
        data, scale = gather.records.position(slot, page_size, page_chunks)
        gather.valid[block % 2, s] = valid
        gather.data[s] = T.if_then_else(valid, data, -1)
        gather.scale[s] = scale


@T.macro
def load_records(gather: Gather, views):
    """Those that are located; zeros where there is no key."""
    codes, halves, scales = views
    records = gather.records
    if records.quantised:
        chunks = halves if in_pairs(records.target) else codes
        for s, c, e in T.Parallel(*gather.codes.shape):
            gather.codes[s, c, e] = T.if_then_else(
                gather.data[s] >= 0, chunks[gather.data[s] + c, e], T.cast(0, chunks.dtype)
            )
        for s, c in T.Parallel(*gather.factors.shape):
            group = T.min(c * ALIGNMENT, records.quantised - 1) // records.group_dim
            gather.factors[s, c] = T.if_then_else(
                gather.data[s] >= 0, records.scale(scales, gather.scale[s], group), 0
            )
    for s, c, e in T.Parallel(*gather.halves.shape):
        gather.halves[s, c, e] = T.if_then_else(
            gather.data[s] >= 0,
            halves[gather.data[s] + records.first_half_chunk + c, e],
            T.cast(0, "bfloat16"),
        )


def code_of(gather: Gather, s, c, e):
    if not in_pairs(gather.records.target):
        return gather.codes[s, c, e]
    return in_pair(gather.codes[s, c, e // 2], e % 2)


@T.macro
def store_keys(gather: Gather, kv):
    """kv [keys, d_qk]: those whose records are loaded."""
    records = gather.records
    if records.quantised:
        for s, c, e in T.Parallel(*gather.factors.shape, ALIGNMENT):
            if c < records.quantised // ALIGNMENT:
                value = records.value(code_of(gather, s, c, e), gather.factors[s, c])
                kv[s, c * ALIGNMENT + e] = value
    for s, c, e in T.Parallel(*gather.halves.shape):
        kv[s, records.quantised + c * HALVES + e] = gather.halves[s, c, e]


@T.macro
def begin(gather: Gather, indices, row, block, count, paging, views):
    """Loads a block's records, and the next block's indices."""
    load_indices(gather, indices, row, block, count)
    locate(gather, block, paging)
    load_records(gather, views)
    load_indices(gather, indices, row, block + 1, count)


@T.macro
def advance(gather: Gather, indices, row, block, count, paging, views):
    """Loads the records after `block`, whose keys are stored."""
    locate(gather, block + 1, paging)
    load_records(gather, views)
    load_indices(gather, indices, row, block + 2, count)
