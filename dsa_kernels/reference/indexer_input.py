"""Steps of the indexer's input before quantisation: LayerNorm, RoPE, Hadamard.

fp32, one rounded operation at a time, in an order that csrc/cpu/indexer_input.h repeats; only the
sums of LayerNorm have a free order. Each step's result is rounded to the input's dtype.
"""

from __future__ import annotations

import torch


def layer_norm(
    x: torch.Tensor,  # float32 [..., head_dim]
    weight: torch.Tensor,  # [head_dim]
    bias: torch.Tensor,  # [head_dim]
    eps: float,
) -> torch.Tensor:
    """LayerNorm over the last dim, with biased variance."""
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    return centred * (variance + eps).sqrt().reciprocal() * weight.float() + bias.float()


def valid_positions(positions: torch.Tensor | None, cos_sin: torch.Tensor | None, num_tokens: int):
    """bool [num_tokens]: which positions lie in the table; all of them where there is no RoPE."""
    if positions is None:
        return torch.ones(num_tokens, dtype=torch.bool)
    return (positions >= 0) & (positions < cos_sin.shape[0])


def rotate(x: torch.Tensor, cos_sin: torch.Tensor, rope_layout: str) -> torch.Tensor:
    """RoPE of the first rope_dim dims of x; the other dims pass through.

    x: float32 [n, ..., head_dim]; cos_sin: float32 [n, rope_dim], the tokens' rows of the table.
    A pair is dims (i, i + rope_dim / 2) in layout "neox", (2 i, 2 i + 1) in "interleaved".
    """
    rope_dim = cos_sin.shape[1]
    pair = (2, -1) if rope_layout == "neox" else (-1, 2)
    axis = -2 if rope_layout == "neox" else -1
    first, second = x[..., :rope_dim].unflatten(-1, pair).unbind(axis)
    shape = (x.shape[0],) + (1,) * (x.dim() - 2) + (rope_dim // 2,)
    cos, sin = (part.reshape(shape) for part in cos_sin.chunk(2, dim=-1))
    rotated = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=axis)
    return torch.cat((rotated.flatten(-2), x[..., rope_dim:]), dim=-1)


def hadamard_transform(x: torch.Tensor) -> torch.Tensor:
    """Orthonormal Walsh-Hadamard transform of the last dim: butterflies of stride 1, 2, 4, ..."""
    dim = x.shape[-1]
    stride = 1
    while stride < dim:
        a, b = x.unflatten(-1, (-1, 2, stride)).unbind(-2)
        x = torch.stack((a + b, a - b), dim=-2).flatten(-3)
        stride *= 2
    return x * dim**-0.5


def prepare(
    x: torch.Tensor,  # bfloat16|float32 [num_tokens, ..., head_dim]
    positions: torch.Tensor | None,  # int32|int64 [num_tokens]
    cos_sin: torch.Tensor | None,  # float32 [max_position, rope_dim]
    rope_layout: str,
    hadamard: bool,
) -> torch.Tensor:
    """float32 of x's shape, ready to be quantised; NaN where a token's position is invalid."""
    y = x.float()
    if rope_layout != "none":
        valid = valid_positions(positions, cos_sin, x.shape[0])
        rotated = torch.full_like(y, torch.nan)
        rotated[valid] = rotate(y[valid], cos_sin[positions[valid].long()], rope_layout)
        y = rotated.to(x.dtype).float()
    if hadamard:
        y = hadamard_transform(y).to(x.dtype).float()
    return y
