"""Lightning-indexer scores over the paged index cache: contract of `paged_mqa_logits`."""

from __future__ import annotations

import torch

from dsa_kernels._op import Op, has_dims
from dsa_kernels.ops.mqa_logits import check_indexer_shape
from dsa_kernels.reference.paged_mqa_logits import paged_mqa_logits as reference

SCORE_TENSORS = {
    "q": (
        "float8_e4m3fn [batch, next_n, num_heads, head_dim]",
        "Quantise with indexer_q_rope_quant.",
    ),
    "cache": "uint8 [num_pages | page_size, head_dim+4]",
    "weights": ("float32 [num_rows, num_heads]", "Convert with .float()."),
    "seq_lens": "int32 [batch, next_n]",
    "block_table": "int32 [batch, max_pages]",
}


def check_paged_shape(op: Op, sizes: dict) -> None:
    check_indexer_shape(op, sizes)
    if sizes["num_rows"] != sizes["batch"] * sizes["next_n"]:
        op.fail(
            f"weights must have batch * next_n = {sizes['batch'] * sizes['next_n']} rows; "
            f"got {sizes['num_rows']}."
        )


def lengths_per_token(seq_lens: torch.Tensor, next_n: int) -> torch.Tensor:
    """Lengths per request [batch] as keys seen by each query token [batch, next_n]; 2-D passes.

    The last token sees all seq_lens[b] keys, each earlier one a key less.
    """
    if not isinstance(seq_lens, torch.Tensor) or seq_lens.dim() != 1:
        return seq_lens
    # Clamped first: INT_MIN - next_n would wrap around to a huge length.
    behind = torch.arange(next_n - 1, -1, -1, dtype=seq_lens.dtype, device=seq_lens.device)
    return seq_lens.clamp(min=0)[:, None] - behind


def _check(args: dict, sizes: dict) -> None:
    check_paged_shape(OP, sizes)


OP = Op(
    "paged_mqa_logits",
    "(Tensor q, Tensor cache, Tensor weights, Tensor seq_lens, Tensor block_table, bool fill, "
    "Tensor(a!) out) -> ()",
    tensors={**SCORE_TENSORS, "out": "float32|bfloat16 [num_rows, max_seq_len]"},
    reference=reference,
    check=_check,
)


def paged_mqa_logits(
    q: torch.Tensor,
    cache: torch.Tensor,
    weights: torch.Tensor,
    seq_lens: torch.Tensor,
    block_table: torch.Tensor,
    *,
    max_seq_len: int | None = None,
    fill: bool = True,
    out_dtype: torch.dtype = torch.float32,
    out: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Scores the cached keys of each request: `mqa_logits` over the paged index cache.

    Args:
        q: float8_e4m3fn [batch, next_n, num_heads, head_dim], any next_n; num_heads 8, 16, 32 or
            64, head_dim 64 or 128.
        cache: uint8 [num_pages, page_size, head_dim + 4], as `indexer_k_cache_store` writes it;
            pages may lie apart.
        weights: float32 [batch * next_n, num_heads], q's scales folded in.
        seq_lens: int32 [batch, next_n], how many keys each query token sees; or [batch], cached
            keys of each request including those of the query tokens, of which token i sees
            seq_lens[b] - (next_n - 1 - i). Zero or negative means none.
        block_table: int32 [batch, max_pages], the pages of each request. A key on an entry outside
            [0, num_pages), or past the table, scores -inf.
        max_seq_len: columns of the result; keys past it are not scored. Needed without `out`.
        fill: write -inf into columns past a row's length; else leave them untouched.
        out_dtype: float32, or bfloat16 (rounded to nearest once, from the fp32 result), of an `out`
            that is allocated here.
        out: [batch * next_n, max_seq_len] to write into; None allocates it.
        backend: exactly this backend, or None for the best available.

    Returns:
        [batch * next_n, max_seq_len] logits of out_dtype; column s is position s of the request.

    Raises:
        TypeError, ValueError: an argument that does not fit the table above, or requires grad.
    """
    if max_seq_len is not None:
        OP.check_integer("max_seq_len", max_seq_len)
    elif out is None:
        OP.fail("max_seq_len must be given where out is not.", TypeError)
    OP.check_size_of("max_seq_len", max_seq_len, out, 1)
    if has_dims(q, 4) and has_dims(weights, 2):
        seq_lens = lengths_per_token(seq_lens, q.shape[1])
        if out is None:
            out = q.new_empty((weights.shape[0], max_seq_len), dtype=out_dtype)
    OP(q, cache, weights, seq_lens, block_table, fill, out, backend=backend)
    return out
