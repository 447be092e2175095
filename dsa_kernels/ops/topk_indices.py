"""Exact top-k selection per row: contract of `topk_indices`."""

from __future__ import annotations

import torch

from dsa_kernels._op import Op, has_dims
from dsa_kernels.reference.topk_indices import topk_indices as reference

MAX_TOPK = 4096


def check_topk(op: Op, topk: int) -> None:
    op.check_integer("topk", topk)
    if not 1 <= topk <= MAX_TOPK:
        op.fail(f"topk must be in [1, {MAX_TOPK}]; got {topk}.")


OP = Op(
    "topk_indices",
    "(Tensor scores, Tensor? row_start, Tensor? row_end, int topk, Tensor(a!) out) -> ()",
    tensors={
        "scores": (
            "float32 [num_rows, seq_len]",
            "Convert with .float() or pass out_dtype=torch.float32 to mqa_logits.",
        ),
        "row_start": "int32 [num_rows]",
        "row_end": "int32 [num_rows]",
        "out": "int32 [num_rows, topk]",
    },
    reference=reference,
    check=lambda args, sizes: check_topk(OP, args["topk"]),
)


def topk_indices(
    scores: torch.Tensor,
    topk: int,
    *,
    row_start: torch.Tensor | None = None,
    row_end: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Indices of the `topk` best scores of each row, exact and deterministic.

    The order is total: larger value first, equal values by smaller index, -0.0 equal to +0.0, NaN
    below -inf. Row r's candidates are columns [max(row_start[r], 0), min(row_end[r], seq_len)); a
    row with at most `topk` of them selects all. The result is bitwise the same on every backend.

    Args:
        scores: float32 [num_rows, seq_len]; any row stride, last dim contiguous. Values outside a
            row's range are never read.
        topk: how many to select, 1 to 4096.
        row_start: int32 [num_rows], first candidate of each row; None means 0.
        row_end: int32 [num_rows], one past the last candidate; None means seq_len. A range that is
            empty or reversed selects nothing.
        out: int32 [num_rows, topk] to write into; None allocates it.
        backend: exactly this backend, or None for the best available.

    Returns:
        int32 [num_rows, topk]: indices relative to row_start, ascending, padded at the end with -1.

    Raises:
        TypeError, ValueError: an argument that does not fit the table above, or requires grad.
    """
    if out is None and has_dims(scores, 2):
        check_topk(OP, topk)
        out = scores.new_empty((scores.shape[0], topk), dtype=torch.int32)
    OP(scores, row_start, row_end, topk, out, backend=backend)
    return out
