"""Sparse multi-latent attention over a paged cache: contract of `sparse_mla_decode`."""

from __future__ import annotations

import torch

from dsa_kernels._op import Op
from dsa_kernels.formats import D_V, check_cache_format
from dsa_kernels.ops.sparse_mla_prefill import check_attention_shape
from dsa_kernels.reference.sparse_mla_decode import sparse_mla_decode as reference


def _check(args: dict, sizes: dict) -> None:
    check_attention_shape(OP, sizes)
    for name in ("cache", "extra_cache"):
        if args[name] is not None:
            problem = check_cache_format(args[name], args["cache_format"], sizes["d_qk"])
            if problem is not None:
                OP.fail(f"{name}: {problem}")
    if (args["extra_cache"] is None) != (args["extra_indices"] is None):
        OP.fail("extra_cache and extra_indices must be given together.")
    if args["extra_topk_length"] is not None and args["extra_cache"] is None:
        OP.fail("extra_topk_length needs extra_cache and extra_indices.")


OP = Op(
    "sparse_mla_decode",
    "(Tensor q, Tensor cache, Tensor indices, Tensor? topk_length, Tensor? attn_sink, "
    "Tensor? extra_cache, Tensor? extra_indices, Tensor? extra_topk_length, float sm_scale, "
    "str cache_format, bool batch_invariant, Tensor(a!) out, Tensor(b!) lse) -> ()",
    tensors={
        "q": "bfloat16|float32(cpu) [batch, next_n, num_heads, d_qk]",
        "cache": "uint8|bfloat16 [num_pages | page_size, record]",
        "indices": ("int32 [batch, next_n, topk]", "Convert with .int()."),
        "topk_length": "int32 [batch, next_n]",
        "attn_sink": "float32 [num_heads]",
        "extra_cache": "=cache [extra_num_pages | extra_page_size, record]",
        "extra_indices": "int32 [batch, next_n, extra_topk]",
        "extra_topk_length": "int32 [batch, next_n]",
        "out": f"=q [batch, next_n, num_heads, {D_V}]",
        "lse": "float32 [batch, next_n, num_heads]",
    },
    reference=reference,
    check=_check,
)


def sparse_mla_decode(
    q: torch.Tensor,
    cache: torch.Tensor,
    indices: torch.Tensor,
    *,
    sm_scale: float,
    cache_format: str,
    topk_length: torch.Tensor | None = None,
    attn_sink: torch.Tensor | None = None,
    extra_cache: torch.Tensor | None = None,
    extra_indices: torch.Tensor | None = None,
    extra_topk_length: torch.Tensor | None = None,
    batch_invariant: bool = False,
    out: torch.Tensor | None = None,
    lse: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Absorbed multi-latent attention of each query token over selected slots of a paged cache.

    The formula, the index rules, the sink and empty rows are those of `sparse_mla_prefill`. One
    softmax runs over the selected keys of `cache` and, where given, those of `extra_cache`
    (DeepSeek-V4: a sliding window and compressed entries).

    Args:
        q: bfloat16 or float32 [batch, next_n, num_heads, d_qk]; 1 to 128 heads, d_qk 576 or 512,
            any next_n.
        cache: [num_pages, page_size, record], pages may lie apart (see dsa_kernels.formats).
        indices: int32 [batch, next_n, topk] physical slots, page * page_size + offset.
        sm_scale: factor on scores, without default; see `sparse_mla_prefill`.
        cache_format: "v32", "v4" or "bf16"; of both caches.
        topk_length: int32 [batch, next_n], how many indices of a row count; None means all.
        attn_sink: float32 [num_heads], natural units.
        extra_cache, extra_indices, extra_topk_length: the second scope, with its own page size.
        batch_invariant: demand that a row's bits do not depend on the batch. CPU and reference
            always keep that.
        out, lse: to write into; None allocates them.
        backend: exactly this backend, or None for the best available.

    Returns:
        out: q's dtype [batch, next_n, num_heads, 512].
        lse: float32 [batch, next_n, num_heads], natural log, without the sink.

    Raises:
        TypeError, ValueError: an argument that does not fit the table above, or requires grad.
    """
    if isinstance(q, torch.Tensor) and q.dim() == 4:
        rows = q.shape[:3]
        out = q.new_empty((*rows, D_V)) if out is None else out
        lse = q.new_empty(rows, dtype=torch.float32) if lse is None else lse
    OP(
        q,
        cache,
        indices,
        topk_length,
        attn_sink,
        extra_cache,
        extra_indices,
        extra_topk_length,
        sm_scale,
        cache_format,
        batch_invariant,
        out,
        lse,
        backend=backend,
    )
    return out, lse
