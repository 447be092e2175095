"""Sparse multi-latent attention of ragged queries: contract of `sparse_mla_prefill`."""

from __future__ import annotations

import torch

from dsa_kernels._op import Op
from dsa_kernels.formats import D_V, check_cache_format
from dsa_kernels.reference.sparse_mla_prefill import sparse_mla_prefill as reference

MAX_HEADS = 128
D_QK = (576, 512)


def check_attention_shape(op: Op, sizes: dict) -> None:
    """Head counts and dims, the same for prefill and decode."""
    if not 1 <= sizes["num_heads"] <= MAX_HEADS:
        op.fail(f"num_heads must be in [1, {MAX_HEADS}]; got {sizes['num_heads']}.")
    if sizes["d_qk"] not in D_QK:
        op.fail(
            f"d_qk must be 576 (latent 512 + RoPE 64) or 512; got {sizes['d_qk']}. "
            "Other latent ranks are not covered."
        )


def _check(args: dict, sizes: dict) -> None:
    check_attention_shape(OP, sizes)
    if (args["kv"] is None) == (args["cache"] is None):
        OP.fail("exactly one of kv and cache must be given.")
    if args["cache"] is None:
        if args["cache_format"] != "":
            OP.fail("cache_format needs a paged cache; got contiguous kv.")
        return
    problem = check_cache_format(args["cache"], args["cache_format"], sizes["d_qk"])
    if problem is not None:
        OP.fail(problem)
    if args["kv_start"] is not None:
        OP.fail(
            "kv_start must be None with a paged cache, whose indices are physical slots; "
            "see indices_to_slots."
        )


OP = Op(
    "sparse_mla_prefill",
    "(Tensor q, Tensor? kv, Tensor? cache, Tensor indices, Tensor? kv_start, Tensor? topk_length, "
    "Tensor? attn_sink, float sm_scale, str cache_format, "
    "Tensor(a!) out, Tensor(b!) max_logits, Tensor(c!) lse) -> ()",
    tensors={
        "q": "bfloat16|float32(cpu) [num_queries, num_heads, d_qk]",
        "kv": "=q [num_kv, d_qk]",
        "cache": "uint8|bfloat16 [num_pages | page_size, record]",
        "indices": ("int32 [num_queries, topk]", "Convert with .int()."),
        "kv_start": "int32 [num_queries]",
        "topk_length": "int32 [num_queries]",
        "attn_sink": "float32 [num_heads]",
        "out": f"=q [num_queries, num_heads, {D_V}]",
        "max_logits": "float32 [num_queries, num_heads]",
        "lse": "float32 [num_queries, num_heads]",
    },
    reference=reference,
    check=_check,
)


def sparse_mla_prefill(
    q: torch.Tensor,
    kv: torch.Tensor,
    indices: torch.Tensor,
    *,
    sm_scale: float,
    kv_start: torch.Tensor | None = None,
    topk_length: torch.Tensor | None = None,
    attn_sink: torch.Tensor | None = None,
    cache_format: str | None = None,
    out: torch.Tensor | None = None,
    max_logits: torch.Tensor | None = None,
    lse: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Absorbed multi-latent attention of each query over its own selected keys.

        p = softmax(sm_scale * q . k_i  over valid i in indices[t]);  out = sum_i p_i k_i[:512]

    With a sink, `out` alone is scaled by 1 / (1 + exp(attn_sink - lse)). Source: DeepSeek-V2's MLA
    in its absorbed (MQA) form, DeepSeek-V3.2's token selection, DeepSeek-V4's sink.

    A valid index is 0 <= i < capacity; anything else is masked and never dereferenced. Duplicates
    count each time. A row without a valid key gives out = 0, max_logits = lse = -inf, and so does
    one whose scores are all -inf. Scores accumulate in fp32; a backend may round probabilities to
    bfloat16 before they meet bfloat16 values. A row's result does not depend on the other rows.

    Args:
        q: bfloat16 or float32 [num_queries, num_heads, d_qk]; 1 to 128 heads, d_qk 576 or 512.
        kv: contiguous keys of q's dtype [num_kv, d_qk]; or, with cache_format, a paged cache
            [num_pages, page_size, record] (see dsa_kernels.formats).
        indices: int32 [num_queries, topk], relative to kv_start; physical slots for a paged cache.
        sm_scale: factor on scores. It belongs to the un-absorbed head dim (192^-0.5 x mscale^2 for
            DeepSeek-V3.2), so there is no default.
        kv_start: int32 [num_queries], the key that index 0 means; None means 0.
        topk_length: int32 [num_queries], how many indices of a row count; entries past it are not
            read. None means topk; zero or less means none.
        attn_sink: float32 [num_heads], natural units; -inf is no sink, +inf makes out 0.
        cache_format: None for contiguous kv; "v32", "v4" or "bf16" for a paged cache.
        out, max_logits, lse: to write into; None allocates them.
        backend: exactly this backend, or None for the best available.

    Returns:
        out: q's dtype [num_queries, num_heads, 512].
        max_logits: float32 [num_queries, num_heads], the largest scaled score.
        lse: float32 [num_queries, num_heads], natural log, without the sink.

    Raises:
        TypeError, ValueError: an argument that does not fit the table above, or requires grad.
    """
    if isinstance(q, torch.Tensor) and q.dim() == 3:
        rows = q.shape[:2]
        out = q.new_empty((*rows, D_V)) if out is None else out
        max_logits = q.new_empty(rows, dtype=torch.float32) if max_logits is None else max_logits
        lse = q.new_empty(rows, dtype=torch.float32) if lse is None else lse
    paged = cache_format is not None
    OP(
        q,
        None if paged else kv,
        kv if paged else None,
        indices,
        kv_start,
        topk_length,
        attn_sink,
        sm_scale,
        cache_format if paged else "",
        out,
        max_logits,
        lse,
        backend=backend,
    )
    return out, max_logits, lse
