"""The indexer's k into the paged index cache: contract of `indexer_k_cache_store`."""

from __future__ import annotations

import torch

from dsa_kernels._op import Op
from dsa_kernels.ops.indexer_q_rope_quant import check_indexer_input
from dsa_kernels.reference.indexer_k_cache_store import indexer_k_cache_store as reference


def _check(args: dict, sizes: dict) -> None:
    check_indexer_input(OP, args, sizes)
    if (args["norm_weight"] is None) != (args["norm_bias"] is None):
        OP.fail("norm_weight and norm_bias go together: pass both, or neither for a normed k.")
    if not args["norm_eps"] >= 0.0:
        OP.fail(f"norm_eps must not be negative; got {args['norm_eps']}.")


OP = Op(
    "indexer_k_cache_store",
    "(Tensor k, Tensor slots, Tensor? norm_weight, Tensor? norm_bias, float norm_eps, "
    "Tensor? positions, Tensor? cos_sin, str rope_layout, bool hadamard, str scale_format, "
    "Tensor(a!) cache) -> ()",
    tensors={
        "k": "bfloat16|float32 [num_tokens, head_dim]",
        "slots": "int32|int64 [num_tokens]",
        "norm_weight": "float32|bfloat16 [head_dim]",
        "norm_bias": "float32|bfloat16 [head_dim]",
        "positions": "int32|int64 [num_tokens]",
        "cos_sin": ("float32 [max_position, rope_dim]", "Convert with .float()."),
        "cache": "uint8 [num_pages | page_size, head_dim+4]",
    },
    reference=reference,
    check=_check,
)


def indexer_k_cache_store(
    k: torch.Tensor,
    cache: torch.Tensor,
    slots: torch.Tensor,
    *,
    rope_layout: str,
    hadamard: bool,
    norm_weight: torch.Tensor | None = None,
    norm_bias: torch.Tensor | None = None,
    norm_eps: float = 1e-6,
    positions: torch.Tensor | None = None,
    cos_sin: torch.Tensor | None = None,
    scale_format: str = "ue8m0",
    backend: str | None = None,
) -> None:
    """Norms, rotates and quantises the indexer's k, and writes it into the paged index cache.

    The formula is that of DeepSeek-V3.2's indexer and its quantiser act_quant. Each step is fp32
    and its result is rounded to k's dtype:

        x = (k - mean) / sqrt(variance + norm_eps) * norm_weight + norm_bias     if they are given
        x = RoPE(x) on the first rope_dim dims, the rest pass through
        x = Hadamard(x) * head_dim^-0.5                                          if hadamard
        scale = max(max |x|, 1e-4) / 448, rounded up to a power of two if "ue8m0"
        code = float8_e4m3fn(x / scale), to nearest even, saturating

    with the biased variance and one scale per token. max |x| ignores NaN, and a NaN of x stays a
    NaN code. An infinite x makes the scale infinite, so its own code NaN and the others zero.
    k that is normed and rotated already: rope_layout="none" and no norm_weight.

    Without LayerNorm, native and reference agree bitwise. Its sums have a free order, so behind it
    at most 1e-4 of the codes differ (measured on normal k: 2e-5 of bfloat16 with Hadamard, 2e-6
    without, 6e-6 of float32), each by one place, or by at most half a scale around zero, where
    places are finer than the rounding before. A "float32" scale may differ by 1e-6 of itself, a
    "ue8m0" one only where max |x| lies within rounding of a power of two times 448.

    Args:
        k: bfloat16|float32 [num_tokens, head_dim], head_dim 64 or 128; any row stride.
        cache: uint8 [num_pages, page_size, head_dim + 4], planar pages as in formats.py; written
            in place. Pages may lie further apart than their size, within a page all is packed.
        slots: int32|int64 [num_tokens], page * page_size + offset in page. A token whose slot is
            outside [0, num_pages * page_size) is skipped. Valid slots must be distinct.
        rope_layout: "neox" pairs dims (i, i + rope_dim / 2) (V3.2), "interleaved" (2 i, 2 i + 1)
            (GLM-5), "none" does not rotate.
        hadamard: a property of the cache: q and every k must agree.
        norm_weight, norm_bias: float32|bfloat16 [head_dim], both or neither.
        norm_eps: added to the variance.
        positions: int32|int64 [num_tokens]; required unless rope_layout is "none". A token whose
            position lies outside [0, max_position) is stored as NaN codes and a NaN scale.
        cos_sin: float32 [max_position, rope_dim]: rope_dim / 2 cosines, then as many sines, of each
            position; rope_dim is even, 2 to head_dim. Required unless rope_layout is "none".
        scale_format: "ue8m0" or "float32" (the scale as it is); stored as float32 either way.
        backend: exactly this backend, or None for the best available.

    Raises:
        TypeError, ValueError: an argument that does not fit the table above, or requires grad.
    """
    OP(
        k,
        slots,
        norm_weight,
        norm_bias,
        norm_eps,
        positions,
        cos_sin,
        rope_layout,
        hadamard,
        scale_format,
        cache,
        backend=backend,
    )
