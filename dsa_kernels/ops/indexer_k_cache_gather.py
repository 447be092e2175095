"""Pages of the index cache to contiguous keys: contract of `indexer_k_cache_gather`."""

from __future__ import annotations

import torch

from dsa_kernels._op import Op
from dsa_kernels.formats import INDEX_SCALE_BYTES
from dsa_kernels.ops.indexer_q_rope_quant import check_head_dim
from dsa_kernels.reference.indexer_k_cache_gather import indexer_k_cache_gather as reference


def _check(args: dict, sizes: dict) -> None:
    check_head_dim(OP, sizes)


OP = Op(
    "indexer_k_cache_gather",
    "(Tensor cache, Tensor block_table, Tensor cu_seq_lens, Tensor? seq_start, "
    "Tensor(a!) k_out, Tensor(b!) scale_out) -> ()",
    tensors={
        "cache": "uint8 [num_pages | page_size, head_dim+4]",
        "block_table": "int32 [batch, max_pages]",
        "cu_seq_lens": "int32 [batch+1]",
        "seq_start": "int32 [batch]",
        "k_out": "float8_e4m3fn [num_tokens, head_dim]",
        "scale_out": "float32 [num_tokens]",
    },
    reference=reference,
    check=_check,
)


def indexer_k_cache_gather(
    cache: torch.Tensor,
    block_table: torch.Tensor,
    cu_seq_lens: torch.Tensor,
    *,
    num_tokens: int | None = None,
    seq_start: torch.Tensor | None = None,
    k_out: torch.Tensor | None = None,
    scale_out: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gathers index keys from their pages into contiguous codes and scales, bitwise.

    Row cu_seq_lens[b] + i of the outputs takes position seq_start[b] + i of request b. Where a
    position has no valid page (its block_table entry lies outside [0, num_pages), or it lies
    outside [0, max_pages * page_size) itself), code and scale are 0. Rows of no request are left
    untouched; a row that two requests claim (cu_seq_lens falls) takes the later one's key.

    Args:
        cache: uint8 [num_pages, page_size, head_dim + 4], planar pages as in formats.py; head_dim
            64 or 128. Pages may lie further apart than their size, within a page all is packed.
        block_table: int32 [batch, max_pages], the pages of each request; any row stride.
        cu_seq_lens: int32 [batch + 1], cumulative lengths. Values are clamped into
            [0, num_tokens]; a span that is empty or negative gathers nothing.
        num_tokens: rows of the outputs; needed when neither output is given.
        seq_start: int32 [batch], the first position of each request; None means 0.
        k_out: float8_e4m3fn [num_tokens, head_dim] to write into; None allocates it, uninitialised.
        scale_out: float32 [num_tokens] to write into; None allocates it, uninitialised.
        backend: exactly this backend, or None for the best available.

    Returns:
        (k_out, scale_out): what `mqa_logits` takes as k and k_scale.

    Raises:
        TypeError, ValueError: an argument that does not fit the table above.
    """
    given = next((t for t in (k_out, scale_out) if isinstance(t, torch.Tensor) and t.dim()), None)
    if num_tokens is None:
        if given is None:
            OP.fail("num_tokens is needed when neither k_out nor scale_out is given.")
        num_tokens = given.shape[0]
    elif num_tokens < 0 or (given is not None and given.shape[0] != num_tokens):
        OP.fail(
            f"num_tokens must be the rows of k_out and scale_out, and not negative; "
            f"got {num_tokens}."
        )
    if isinstance(cache, torch.Tensor) and cache.dim() == 3:
        head_dim = max(cache.shape[2] - INDEX_SCALE_BYTES, 0)
        if k_out is None:
            k_out = cache.new_empty((num_tokens, head_dim), dtype=torch.float8_e4m3fn)
        if scale_out is None:
            scale_out = cache.new_empty((num_tokens,), dtype=torch.float32)
    OP(cache, block_table, cu_seq_lens, seq_start, k_out, scale_out, backend=backend)
    return k_out, scale_out
