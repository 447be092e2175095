"""Reference of `indexer_q_rope_quant`."""

from __future__ import annotations

import torch

from dsa_kernels.reference.indexer_input import prepare, valid_positions
from dsa_kernels.reference.quantize import quantize_groups


def indexer_q_rope_quant(
    q: torch.Tensor,  # bfloat16|float32 [num_tokens, num_heads, head_dim]
    weights: torch.Tensor,  # bfloat16|float32 [num_tokens, num_heads]
    positions: torch.Tensor | None,  # int32|int64 [num_tokens]
    cos_sin: torch.Tensor | None,  # float32 [max_position, rope_dim]
    rope_layout: str,
    hadamard: bool,
    weights_scale: float,
    scale_format: str,
    q_out: torch.Tensor,  # float8_e4m3fn [num_tokens, num_heads, head_dim]
    weights_out: torch.Tensor,  # float32 [num_tokens, num_heads]
) -> None:
    x = prepare(q, positions, cos_sin, rope_layout, hadamard)
    codes, scale = quantize_groups(x, q.shape[-1], scale_format)
    q_out.copy_(codes)
    folded = weights.float() * scale[..., 0] * weights_scale
    valid = valid_positions(positions, cos_sin, q.shape[0])
    weights_out.copy_(folded.masked_fill(~valid[:, None], torch.nan))
