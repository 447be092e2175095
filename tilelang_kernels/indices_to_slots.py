"""Positions in a request to slots of the paged cache, through the request's row of the block table.

    slots[r, i] = table[b, indices[r, i] // page_size] * page_size + indices[r, i] % page_size

A block takes a row, and counts the slots that are valid.
"""

import tilelang.language as T

from tilelang_kernels.pieces.arguments import optional
from tilelang_kernels.toolchain.targets import Target

CONFIGURATIONS = [{}]
MAX_SLOT = 2**31 - 1


def kernel(target: Target):
    tile = target.tiles["indices_to_slots"]
    columns = tile.columns
    rows, topk, batch, max_pages = T.dynamic("rows, topk, batch, max_pages")
    index_row, table_row, slot_row, count_row = T.dynamic(
        "index_row, table_row, slot_row, count_row", "int64"
    )

    @T.prim_func
    def indices_to_slots(
        indices: T.StridedTensor((rows, topk), (index_row, 1), "int32"),
        block_table: T.StridedTensor((batch, max_pages), (table_row, 1), "int32"),
        row_request: T.Tensor((rows,), "int32"),
        rows_per_request: T.int32,  # or 0: row_request says
        page_size: T.int32,
        slots: T.StridedTensor((rows, topk), (slot_row, 1), "int32"),
        counts: T.StridedTensor((rows,), (count_row,), "int32"),
    ):
        with T.Kernel(rows, threads=tile.threads) as row:
            index = T.alloc_fragment((columns,), "int32")
            logical = T.alloc_fragment((columns,), "int32")
            page = T.alloc_fragment((columns,), "int32")
            valid = T.alloc_fragment((columns,), "int32")
            count = T.alloc_fragment((1,), "int32")
            request = T.alloc_var("int32")
            if rows_per_request > 0:
                request = T.truncdiv(row, rows_per_request)
            else:
                request = row_request[row]
            served = request >= 0 and request < batch
            table = T.if_then_else(served, request, 0)
            T.clear(valid)
            for block in T.serial(T.ceildiv(topk, columns)):
                # Where there is nothing to load, the nearest is: no load waits for a branch.
                for i in T.Parallel(columns):
                    index[i] = indices[row, T.min(block * columns + i, topk - 1)]
                for i in T.Parallel(columns):
                    logical[i] = T.truncdiv(index[i], page_size)
                    page[i] = block_table[table, T.max(T.min(logical[i], max_pages - 1), 0)]
                for i in T.Parallel(columns):
                    if block * columns + i < topk:
                        known = served and index[i] >= 0 and logical[i] < max_pages
                        offset = index[i] - logical[i] * page_size
                        slot = T.cast(page[i], "int64") * page_size + offset
                        fits = known and page[i] >= 0 and slot <= MAX_SLOT
                        slots[row, block * columns + i] = T.if_then_else(
                            fits, T.cast(slot, "int32"), -1
                        )
                        valid[i] += T.cast(fits, "int32")
            T.reduce_sum(valid, count)
            if T.get_thread_binding() == 0:
                counts[row] = count[0]

    return indices_to_slots


def indices_to_slots(run, indices, block_table, row_request, page_size, slots, counts) -> None:
    """The op's schema; `run` is what runs kernels."""
    num_rows, batch = indices.shape[0], block_table.shape[0]
    if slots.numel() == 0 or block_table.numel() == 0:
        slots.fill_(-1)
        counts.zero_()
        return
    rows_per_request = num_rows // batch if row_request is None else 0
    row_request = optional(row_request, counts)
    run(kernel, {}, indices, block_table, row_request, rows_per_request, page_size, slots, counts)
