"""Log-sum-exp merge of partial attention results: contract of `merge_attention_states`."""

from __future__ import annotations

import torch

from dsa_kernels._op import Op
from dsa_kernels.reference.merge_attention_states import merge_attention_states as reference

OP = Op(
    "merge_attention_states",
    "(Tensor outs, Tensor lses, Tensor? attn_sink, Tensor(a!) out, Tensor(b!) lse) -> ()",
    tensors={
        "outs": "bfloat16|float32 [num_parts, num_rows, num_heads, d_v]",
        "lses": ("float32 [num_parts, num_rows, num_heads]", "Convert with .float()."),
        "attn_sink": ("float32 [num_heads]", "Convert with .float()."),
        "out": "bfloat16|float32 [num_rows, num_heads, d_v]",
        "lse": "float32 [num_rows, num_heads]",
    },
    reference=reference,
)


def merge_attention_states(
    outs: torch.Tensor,
    lses: torch.Tensor,
    *,
    attn_sink: torch.Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    out: torch.Tensor | None = None,
    lse: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over all keys, from attention over disjoint parts of them.

        lse = log sum_p exp(lses[p])
        out = sum_p exp(lses[p] - lse) outs[p]  x  1 / (1 + exp(attn_sink - lse))

    A part whose lse is -inf saw no key and contributes nothing, even where its out is NaN. Where
    all parts are empty (or there are none), out is 0 and lse is -inf, whatever the sink. Where an
    lse is NaN or +inf, lse is that (NaN first) and out is NaN. Parts are merged in index order in
    fp32, the lse shifted by its maximum, and out is rounded once; a row's result does not depend on
    the other rows. Source: the split-KV merge of FlashDecoding; DeepSeek-V4's sink.

    Backends agree to the tolerance rule of `dsa_kernels.testing.assert_close_to_gold`, because
    their exp and log differ in the last bits.

    Args:
        outs: bfloat16 or float32 [num_parts, num_rows, num_heads, d_v], each part normalised on its
            own and without a sink; any strides but a contiguous last dim.
        lses: float32 [num_parts, num_rows, num_heads], natural log, without the sink.
        attn_sink: float32 [num_heads], natural units; it enters once, here, and not in lse. -inf is
            no sink, +inf makes out 0.
        out_dtype: bfloat16 or float32, of an `out` that is allocated here; None means outs' dtype.
        out: [num_rows, num_heads, d_v] to write into; None allocates it.
        lse: float32 [num_rows, num_heads] to write into; None allocates it.
        backend: exactly this backend, or None for the best available.

    Returns:
        out: [num_rows, num_heads, d_v].
        lse: float32 [num_rows, num_heads].

    Raises:
        TypeError, ValueError: an argument that does not fit the table above, or requires grad.
    """
    if isinstance(outs, torch.Tensor) and outs.dim() == 4:
        out = outs.new_empty(outs.shape[1:], dtype=out_dtype) if out is None else out
        lse = outs.new_empty(outs.shape[1:3], dtype=torch.float32) if lse is None else lse
    OP(outs, lses, attn_sink, out, lse, backend=backend)
    return out, lse
