"""Reference of `merge_attention_states`: part by part, in fp32."""

from __future__ import annotations

import math

import torch


def merge_attention_states(
    outs: torch.Tensor,  # bfloat16|float32 [num_parts, num_rows, num_heads, d_v]
    lses: torch.Tensor,  # float32 [num_parts, num_rows, num_heads]
    attn_sink: torch.Tensor | None,  # float32 [num_heads]
    out: torch.Tensor,  # bfloat16|float32 [num_rows, num_heads, d_v]
    lse: torch.Tensor,  # float32 [num_rows, num_heads]
) -> None:
    largest = torch.full_like(lse, -math.inf)
    for part_lse in lses:
        largest = torch.maximum(largest, part_lse)  # keeps a NaN
    total = torch.zeros_like(lse)
    for part_lse in lses:
        total += torch.where(part_lse == -math.inf, 0.0, (part_lse - largest).exp())
    lse.copy_(torch.where(largest.isfinite(), largest + total.log(), largest))

    denominator = total if attn_sink is None else total * (1 + (attn_sink - lse).exp())
    merged = torch.zeros(out.shape, dtype=torch.float32, device=out.device)
    for part_out, part_lse in zip(outs, lses, strict=True):
        weight = (part_lse - largest).exp() / denominator
        empty = (part_lse == -math.inf)[:, :, None]
        merged += torch.where(empty, 0.0, weight[:, :, None] * part_out.float())
    out.copy_(merged)
