"""Score and select in bounded memory: contract of `indexer_topk`."""

from __future__ import annotations

import torch

from dsa_kernels._op import Op, has_dims
from dsa_kernels.ops.mqa_logits import SCORE_TENSORS, check_indexer_shape
from dsa_kernels.ops.topk_indices import check_topk
from dsa_kernels.reference.indexer_topk import indexer_topk as reference

WORKSPACE_BUDGET = 16 << 20  # bytes; a single row may need more


def workspace_bytes(num_rows: int, seq_len: int, rows_together: int = 1) -> int:
    """Bytes of workspace that a call takes: float32 logits of as many rows as fit the budget.

    rows_together: rows that are scored in one piece, so the least that the workspace must hold.
    """
    rows = max(rows_together, min(num_rows, WORKSPACE_BUDGET // max(4 * seq_len, 1)))
    return 4 * rows * seq_len


def check_workspace(op: Op, args: dict, seq_len: int, rows_together: int) -> None:
    workspace, least = args["workspace"], 4 * seq_len * rows_together
    if workspace.numel() < least:
        op.fail(
            f"workspace must have at least {least} bytes (float32 logits of {rows_together} "
            f"row(s) of {seq_len} keys); got {workspace.numel()}. See workspace_bytes()."
        )
    # A traced tensor has no address to ask for; what the compiler allocates is aligned.
    if not torch.compiler.is_compiling() and workspace.storage_offset() % 4 != 0:
        op.fail("workspace must be aligned to 4 bytes.")


def _check(args: dict, sizes: dict) -> None:
    check_indexer_shape(OP, sizes)
    check_topk(OP, args["topk"])
    check_workspace(OP, args, sizes["seq_len"], 1)


OP = Op(
    "indexer_topk",
    "(Tensor q, Tensor k, Tensor weights, Tensor? k_scale, Tensor? row_start, Tensor? row_end, "
    "int topk, Tensor(a!) workspace, Tensor(b!) out) -> ()",
    tensors={
        **SCORE_TENSORS,
        "workspace": "uint8 [workspace_bytes]",
        "out": "int32 [num_rows, topk]",
    },
    reference=reference,
    check=_check,
)


def indexer_topk(
    q: torch.Tensor,
    k: torch.Tensor,
    weights: torch.Tensor,
    topk: int,
    *,
    k_scale: torch.Tensor | None = None,
    row_start: torch.Tensor | None = None,
    row_end: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    workspace: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """The `topk` best keys of each row, without ever holding [num_rows, seq_len] logits.

    Bitwise `topk_indices(mqa_logits(q, k, weights, ...), topk, ...)` of the same backend; a row
    of at most `topk` keys is not scored at all. The result does not depend on the workspace.

    Args:
        q, k, weights, k_scale, row_start, row_end: as in `mqa_logits`.
        topk: how many keys to select, 1 to 4096.
        out: int32 [num_rows, topk] to write into; None allocates it.
        workspace: uint8 [workspace_bytes(num_rows, seq_len)] (ops.indexer_topk), or at least one
            row of float32 logits; None allocates it.
        backend: exactly this backend, or None for the best available.

    Returns:
        int32 [num_rows, topk]: indices relative to row_start, ascending, padded at the end with -1.

    Raises:
        TypeError, ValueError: an argument that does not fit the table above, or requires grad.
    """
    if has_dims(q, 3) and has_dims(k, 2):
        if out is None:
            check_topk(OP, topk)
            out = q.new_empty((q.shape[0], topk), dtype=torch.int32)
        if workspace is None:
            size = workspace_bytes(q.shape[0], k.shape[0])
            workspace = q.new_empty((size,), dtype=torch.uint8)
    OP(q, k, weights, k_scale, row_start, row_end, topk, workspace, out, backend=backend)
    return out
