"""Positions in a request to physical cache slots: contract of `indices_to_slots`."""

from __future__ import annotations

import torch

from dsa_kernels._op import Op
from dsa_kernels.reference.indices_to_slots import indices_to_slots as reference

MAX_PAGE_SIZE = 2**31 - 1


def _check(args: dict, sizes: dict) -> None:
    if not 1 <= args["page_size"] <= MAX_PAGE_SIZE:
        OP.fail(f"page_size must be in [1, {MAX_PAGE_SIZE}]; got {args['page_size']}.")
    if args["row_request"] is not None:
        return
    num_rows, batch = sizes["num_rows"], sizes["batch"]
    if num_rows % batch if batch else num_rows:
        OP.fail(
            "without row_request, rows are grouped evenly over the requests, so num_rows must be a "
            f"multiple of batch; got {num_rows} rows for a batch of {batch}. Pass row_request."
        )


OP = Op(
    "indices_to_slots",
    "(Tensor indices, Tensor block_table, Tensor? row_request, int page_size, "
    "Tensor(a!) slots, Tensor(b!) counts) -> ()",
    tensors={
        "indices": ("int32 [num_rows, topk]", "Convert with .int()."),
        "block_table": ("int32 [batch, max_pages]", "Convert with .int()."),
        "row_request": "int32 [num_rows]",
        "slots": "int32 [num_rows, topk]",
        "counts": "int32 [num_rows]",
    },
    reference=reference,
    check=_check,
)


def indices_to_slots(
    indices: torch.Tensor,
    block_table: torch.Tensor,
    *,
    page_size: int,
    row_request: torch.Tensor | None = None,
    slots: torch.Tensor | None = None,
    counts: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Physical slots of selected positions, through the block table of each row's request.

        slots[r, i] = block_table[b, indices[r, i] // page_size] * page_size
                      + indices[r, i] % page_size,    b = row_request[r]

    A slot is -1 where the index is negative or past the table, the table entry is negative, the row
    belongs to no request, or the slot does not fit int32. Entries keep their place in the row; the
    ops that take slots mask -1 wherever it stands. Source: the paged KV cache of vLLM
    (block_table and slot_mapping). Every row's result is independent of the other rows.

    Args:
        indices: int32 [num_rows, topk], token positions within each row's request, as
            `topk_indices` gives them; any value is safe.
        block_table: int32 [batch, max_pages], physical page of each logical page of a request. An
            entry past the cache is not seen here: it gives a slot that the ops taking it mask.
        page_size: tokens per page, at least 1.
        row_request: int32 [num_rows], the request of each row; a row whose request is outside
            [0, batch) gets -1 only. None groups rows evenly: request = row // (num_rows // batch).
        slots: int32 [num_rows, topk] to write into, not overlapping indices; None allocates it.
        counts: int32 [num_rows] to write into; None allocates it.
        backend: exactly this backend, or None for the best available.

    Returns:
        slots: int32 [num_rows, topk].
        counts: int32 [num_rows], how many slots of each row are not -1.

    Raises:
        TypeError, ValueError: an argument that does not fit the table above, or requires grad.
    """
    if isinstance(indices, torch.Tensor) and indices.dim() == 2:
        slots = indices.new_empty(indices.shape, dtype=torch.int32) if slots is None else slots
        if counts is None:
            counts = indices.new_empty(indices.shape[0], dtype=torch.int32)
    OP(indices, block_table, row_request, page_size, slots, counts, backend=backend)
    return slots, counts
