"""From rows of gathered keys to the places in a paged cache that they come from."""

import tilelang.language as T
import torch

# In place of a page: the row is zeros; no request claims the row.
INVALID, UNCLAIMED = -1, -2


@T.macro
def locate(
    first_row, num_rows, cu_seq_lens, seq_start, block_table, page_size, num_pages, page, token
):
    """Page and token of the rows from `first_row` on, one for each element of `page`, int32.

    Requests may overlap and come in any order: a row is its last claimant's.
    """
    rows, (batch, max_pages) = page.shape[0], block_table.shape
    request = T.alloc_shared((rows,), "int32")
    T.fill(request, -1)
    thread, threads = T.get_thread_binding(), T.get_thread_extent()
    for turn in T.serial(T.ceildiv(batch, threads)):
        b = turn * threads + thread
        if b < batch:
            begin = T.max(cu_seq_lens[b], first_row)
            end = T.min(cu_seq_lens[b + 1], T.min(first_row + rows, num_rows))
            for row in T.serial(begin, end):
                T.atomic_max(request[row - first_row], b)
    if thread < rows:
        # Variables, as TileLang's simplifier takes minutes over the expressions nested.
        b, found = T.alloc_var("int32"), T.alloc_var("int32")
        position, block = T.alloc_var("int64"), T.alloc_var("int64")
        b = request[thread]
        found, position, block = UNCLAIMED, 0, 0
        if b >= 0:
            found = INVALID
            position = T.cast(seq_start[b], "int64") + first_row + thread
            position -= T.max(cu_seq_lens[b], 0)
            block = T.truncdiv(position, page_size)
            if position >= 0 and block < max_pages:
                found = block_table[b, block]
                if found < 0 or found >= num_pages:
                    found = INVALID
        page[thread] = found
        token[thread] = T.cast(position - block * page_size, "int32")
    T.sync_threads()


def requests(cache: torch.Tensor, block_table: torch.Tensor, seq_start: torch.Tensor | None):
    """The same arguments of a gather, and the number of pages, such that kernels need not mind
    that there is no page, no entry for a page, or no `seq_start`."""
    num_pages = cache.shape[0] if cache.shape[1] else 0
    if num_pages == 0:
        cache = cache.new_zeros(1, 1, cache.shape[2])
    if block_table.shape[1] == 0:
        block_table = block_table.new_full((len(block_table), 1), INVALID)
    if seq_start is None:
        seq_start = torch.zeros(len(block_table), dtype=torch.int32, device=cache.device)
    return cache, num_pages, block_table, seq_start
