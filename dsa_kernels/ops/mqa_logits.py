"""Lightning-indexer scores of ragged queries against contiguous keys: contract of `mqa_logits`."""

from __future__ import annotations

import torch

from dsa_kernels._op import Op, has_dims
from dsa_kernels.reference.mqa_logits import mqa_logits as reference

NUM_HEADS = (8, 16, 32, 64)
HEAD_DIMS = (64, 128)
SCORE_TENSORS = {
    "q": "float8_e4m3fn|bfloat16|float32(cpu) [num_rows, num_heads, head_dim]",
    "k": "=q [seq_len, head_dim]",
    "weights": ("float32 [num_rows, num_heads]", "Convert with .float()."),
    "k_scale": "float32 [seq_len]",
    "row_start": "int32 [num_rows]",
    "row_end": "int32 [num_rows]",
}


def check_indexer_shape(op: Op, sizes: dict) -> None:
    """Head counts and dims of the models that have an indexer; the same for every scoring op."""
    if sizes["num_heads"] not in NUM_HEADS:
        op.fail(f"num_heads must be one of {NUM_HEADS}; got {sizes['num_heads']}.")
    if sizes["head_dim"] not in HEAD_DIMS:
        op.fail(f"head_dim must be one of {HEAD_DIMS}; got {sizes['head_dim']}.")


def _check(args: dict, sizes: dict) -> None:
    check_indexer_shape(OP, sizes)
    if args["layout"] not in ("full", "compressed"):
        OP.fail(f"layout must be 'full' or 'compressed'; got {args['layout']!r}.")
    if args["layout"] == "full" and sizes["width"] != sizes["seq_len"]:
        OP.fail(
            f"out must have seq_len = {sizes['seq_len']} columns in the full layout; "
            f"got {sizes['width']}. Leave width out, or pass layout='compressed'."
        )


OP = Op(
    "mqa_logits",
    "(Tensor q, Tensor k, Tensor weights, Tensor? k_scale, Tensor? row_start, Tensor? row_end, "
    "str layout, bool fill, Tensor(a!) out) -> ()",
    tensors={**SCORE_TENSORS, "out": "float32|bfloat16 [num_rows, width]"},
    reference=reference,
    check=_check,
)


def mqa_logits(
    q: torch.Tensor,
    k: torch.Tensor,
    weights: torch.Tensor,
    *,
    k_scale: torch.Tensor | None = None,
    row_start: torch.Tensor | None = None,
    row_end: torch.Tensor | None = None,
    layout: str = "full",
    width: int | None = None,
    fill: bool = True,
    out_dtype: torch.dtype = torch.float32,
    out: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Scores every key in each row's range: DeepSeek-V3.2's lightning indexer.

        logits[t, s] = k_scale[s] * sum_h weights[t, h] * relu(q[t, h] . k[s])

    fp32 accumulation, fp32 head sum, relu(NaN) = NaN. A row's result does not depend on the other
    rows. Source: DeepSeek-V3.2-Exp technical report, equation 1; q's quantisation scale and the
    constant factors (num_heads^-0.5, head_dim^-0.5) belong into `weights`.

    Args:
        q: float8_e4m3fn, bfloat16 or float32 [num_rows, num_heads, head_dim]; num_heads 8, 16, 32
            or 64, head_dim 64 or 128.
        k: q's dtype [seq_len, head_dim], shared by all heads.
        weights: float32 [num_rows, num_heads].
        k_scale: float32 [seq_len], the keys' quantisation scales; None means 1.
        row_start, row_end: int32 [num_rows], the keys [max(row_start, 0), min(row_end, seq_len))
            that each row scores; None means all. An empty or reversed range scores nothing.
        layout: "full": column s is key s. "compressed": column c is key row_start + c, and keys
            past `width` are dropped.
        width: columns in the compressed layout (default seq_len).
        fill: write -inf into columns without a key; else leave them untouched.
        out_dtype: float32, or bfloat16 (rounded to nearest once, from the fp32 result), of an `out`
            that is allocated here.
        out: [num_rows, width] to write into; None allocates it.
        backend: exactly this backend, or None for the best available.

    Returns:
        [num_rows, width] logits of out_dtype.

    Raises:
        TypeError, ValueError: an argument that does not fit the table above, or requires grad.
    """
    OP.check_size_of("width", width, out, 1)
    if out is None and has_dims(q, 3) and has_dims(k, 2):
        out = q.new_empty((q.shape[0], k.shape[0] if width is None else width), dtype=out_dtype)
    OP(q, k, weights, k_scale, row_start, row_end, layout, fill, out, backend=backend)
    return out
