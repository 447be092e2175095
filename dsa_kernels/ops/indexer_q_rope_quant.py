"""The indexer's q on its way to the logits: contract of `indexer_q_rope_quant`."""

from __future__ import annotations

import torch

from dsa_kernels._op import Op
from dsa_kernels.formats import SCALE_FORMATS
from dsa_kernels.reference.indexer_q_rope_quant import indexer_q_rope_quant as reference

HEAD_DIMS = (64, 128)
ROPE_LAYOUTS = ("neox", "interleaved", "none")


def check_head_dim(op: Op, sizes: dict) -> None:
    if sizes["head_dim"] not in HEAD_DIMS:
        op.fail(f"head_dim must be 64 or 128; got {sizes['head_dim']}.")


def check_indexer_input(op: Op, args: dict, sizes: dict) -> None:
    """Checks what the indexer's q and k have in common: head_dim, RoPE and the scale format."""
    check_head_dim(op, sizes)
    layout = args["rope_layout"]
    if layout not in ROPE_LAYOUTS:
        op.fail(f"rope_layout must be one of {', '.join(ROPE_LAYOUTS)}; got {layout!r}.")
    for name in ("positions", "cos_sin"):
        if layout == "none" and args[name] is not None:
            op.fail(f"{name} must be None with rope_layout 'none', which does not rotate.")
        if layout != "none" and args[name] is None:
            op.fail(f"{name} is required with rope_layout {layout!r}. Pass it, or 'none'.")
    if layout != "none":
        rope_dim = sizes["rope_dim"]
        if rope_dim < 2 or rope_dim % 2 != 0 or rope_dim > sizes["head_dim"]:
            op.fail(
                f"rope_dim must be even and in [2, head_dim = {sizes['head_dim']}]; "
                f"got {rope_dim} from cos_sin."
            )
    if args["scale_format"] not in SCALE_FORMATS:
        op.fail(
            f"scale_format must be one of {', '.join(SCALE_FORMATS)}; got {args['scale_format']!r}."
        )


def _check(args: dict, sizes: dict) -> None:
    check_indexer_input(OP, args, sizes)


OP = Op(
    "indexer_q_rope_quant",
    "(Tensor q, Tensor weights, Tensor? positions, Tensor? cos_sin, str rope_layout, "
    "bool hadamard, float weights_scale, str scale_format, Tensor(a!) q_out, "
    "Tensor(b!) weights_out) -> ()",
    tensors={
        "q": "bfloat16|float32 [num_tokens, num_heads, head_dim]",
        "weights": "bfloat16|float32 [num_tokens, num_heads]",
        "positions": "int32|int64 [num_tokens]",
        "cos_sin": ("float32 [max_position, rope_dim]", "Convert with .float()."),
        "q_out": "float8_e4m3fn [num_tokens, num_heads, head_dim]",
        "weights_out": "float32 [num_tokens, num_heads]",
    },
    reference=reference,
    check=_check,
)


def indexer_q_rope_quant(
    q: torch.Tensor,
    weights: torch.Tensor,
    *,
    rope_layout: str,
    hadamard: bool,
    positions: torch.Tensor | None = None,
    cos_sin: torch.Tensor | None = None,
    weights_scale: float = 1.0,
    scale_format: str = "ue8m0",
    q_out: torch.Tensor | None = None,
    weights_out: torch.Tensor | None = None,
    backend: str | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotates and quantises the indexer's q, and folds its scales into the head weights.

    The formula is that of DeepSeek-V3.2's indexer and its quantiser act_quant. Each step is fp32
    and its result is rounded to q's dtype:

        x = RoPE(q) on the first rope_dim dims, the rest pass through
        x = Hadamard(x) * head_dim^-0.5                              if hadamard
        scale = max(max |x|, 1e-4) / 448, rounded up to a power of two if "ue8m0"
        q_out = float8_e4m3fn(x / scale), to nearest even, saturating
        weights_out = (weights * scale) * weights_scale, in fp32

    with one scale per token and head. max |x| ignores NaN, and a NaN of x stays a NaN in q_out. An
    infinite x makes the scale infinite, so its own code NaN and the other codes of the head zero.

    Native and reference agree bitwise. On another backend, which may fuse RoPE's multiply-add, a
    code may be the adjacent one.

    Args:
        q: bfloat16|float32 [num_tokens, num_heads, head_dim], head_dim 64 or 128; last dim
            contiguous, other strides are free (a slice of a wider projection will do).
        weights: bfloat16|float32 [num_tokens, num_heads], the head weights.
        rope_layout: "neox" pairs dims (i, i + rope_dim / 2) (V3.2), "interleaved" (2 i, 2 i + 1)
            (GLM-5), "none" does not rotate.
        hadamard: whether the cache of k was written with it; q and k must agree.
        positions: int32|int64 [num_tokens]; required unless rope_layout is "none". A token whose
            position lies outside [0, max_position) gets NaN codes and NaN weights.
        cos_sin: float32 [max_position, rope_dim]: rope_dim / 2 cosines, then as many sines, of each
            position; rope_dim is even, 2 to head_dim. Required unless rope_layout is "none".
        weights_scale: a factor of the weights; V3.2's is head_dim^-0.5 * num_heads^-0.5. It does
            not change which keys are selected as long as it is positive.
        scale_format: "ue8m0" or "float32" (the scale as it is).
        q_out: float8_e4m3fn [num_tokens, num_heads, head_dim] to write into; None allocates it.
        weights_out: float32 [num_tokens, num_heads] to write into; None allocates it.
        backend: exactly this backend, or None for the best available.

    Returns:
        (q_out, weights_out): what `mqa_logits` and `paged_mqa_logits` take as q and weights.

    Raises:
        TypeError, ValueError: an argument that does not fit the table above, or requires grad.
    """
    if isinstance(q, torch.Tensor) and q.dim() == 3:
        if q_out is None:
            q_out = q.new_empty(q.shape, dtype=torch.float8_e4m3fn)
        if weights_out is None:
            weights_out = q.new_empty(q.shape[:2], dtype=torch.float32)
    OP(
        q,
        weights,
        positions,
        cos_sin,
        rope_layout,
        hadamard,
        weights_scale,
        scale_format,
        q_out,
        weights_out,
        backend=backend,
    )
    return q_out, weights_out
