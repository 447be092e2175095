"""Score and select over the paged index cache: contract of `paged_indexer_topk`."""

from __future__ import annotations

import torch

from dsa_kernels._op import Op, has_dims
from dsa_kernels.ops.indexer_topk import check_workspace, workspace_bytes
from dsa_kernels.ops.paged_mqa_logits import SCORE_TENSORS, check_paged_shape, lengths_per_token
from dsa_kernels.ops.topk_indices import check_topk
from dsa_kernels.reference.paged_indexer_topk import paged_indexer_topk as reference


def check_max_seq_len(max_seq_len: int) -> None:
    OP.check_integer("max_seq_len", max_seq_len)
    if not 0 <= max_seq_len < 2**31:
        OP.fail(f"max_seq_len must be in [0, 2^31); got {max_seq_len}.")


def _check(args: dict, sizes: dict) -> None:
    check_paged_shape(OP, sizes)
    check_topk(OP, args["topk"])
    check_max_seq_len(args["max_seq_len"])
    check_workspace(OP, args, args["max_seq_len"], sizes["next_n"])


OP = Op(
    "paged_indexer_topk",
    "(Tensor q, Tensor cache, Tensor weights, Tensor seq_lens, Tensor block_table, int topk, "
    "int max_seq_len, Tensor(a!) workspace, Tensor(b!) out) -> ()",
    tensors={
        **SCORE_TENSORS,
        "workspace": "uint8 [workspace_bytes]",
        "out": "int32 [num_rows, topk]",
    },
    reference=reference,
    check=_check,
)


def paged_indexer_topk(
    q: torch.Tensor,
    cache: torch.Tensor,
    weights: torch.Tensor,
    seq_lens: torch.Tensor,
    block_table: torch.Tensor,
    topk: int,
    *,
    max_seq_len: int,
    out: torch.Tensor | None = None,
    workspace: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """The `topk` best cached keys of each query token, holding only a few rows of logits.

    Bitwise `topk_indices(paged_mqa_logits(...), topk, row_end=seq_lens)` of the same backend; a
    query token that sees at most `topk` keys is not scored. The workspace changes no result.

    Args:
        q, cache, weights, seq_lens, block_table: as in `paged_mqa_logits`.
        topk: how many keys to select, 1 to 4096.
        max_seq_len: a bound on seq_lens known to the host; keys past it do not exist.
        out: int32 [batch * next_n, topk] to write into; None allocates it.
        workspace: uint8 of at least next_n rows of float32 logits; None allocates it.
        backend: exactly this backend, or None for the best available.

    Returns:
        int32 [batch * next_n, topk]: positions in the request, ascending, padded with -1; see
        `indices_to_slots` for what attention takes.

    Raises:
        TypeError, ValueError: an argument that does not fit the table above, or requires grad.
    """
    if has_dims(q, 4) and has_dims(weights, 2):
        seq_lens = lengths_per_token(seq_lens, q.shape[1])
        if out is None:
            check_topk(OP, topk)
            out = q.new_empty((weights.shape[0], topk), dtype=torch.int32)
        if workspace is None:
            check_max_seq_len(max_seq_len)
            size = workspace_bytes(weights.shape[0], max_seq_len, q.shape[1])
            workspace = q.new_empty((size,), dtype=torch.uint8)
    OP(
        q,
        cache,
        weights,
        seq_lens,
        block_table,
        topk,
        max_seq_len,
        workspace,
        out,
        backend=backend,
    )
    return out
