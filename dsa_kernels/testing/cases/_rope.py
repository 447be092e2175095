"""What the two ops in front of the indexer share: RoPE tables and positions."""

from __future__ import annotations

import torch

from dsa_kernels.testing.cases._common import HOSTILE_INDICES, dtype_of, integers, sprinkle

HOSTILE = ["normal", "normal", "zeros", "ties", "tiny", "huge", "nan", "inf"]
LAYOUTS = ["neox", "interleaved", "none"]


def rope(
    num_tokens: int,
    rope_layout: str,
    rope_dim: int,
    max_position: int,
    position_dtype: str,
    broken: float,
    generator: torch.Generator,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """positions, a share `broken` of them invalid, and cos_sin; both None without RoPE."""
    if rope_layout == "none":
        return None, None
    positions = integers(0, max_position - 1, (num_tokens,), generator, dtype_of(position_dtype))
    positions = sprinkle(positions, (*HOSTILE_INDICES, max_position), generator, broken)
    frequency = 10000.0 ** (-torch.arange(0, rope_dim, 2) / rope_dim)
    angle = torch.arange(max_position)[:, None] * frequency
    return positions, torch.cat([angle.cos(), angle.sin()], 1)


def random_rope(rng) -> dict:
    return dict(
        head_dim=(head_dim := rng.choice([64, 128])),
        rope_layout=rng.choice(LAYOUTS),
        rope_dim=rng.choice([64, 64, 32, 2, head_dim]),
        max_position=rng.choice([1, 50, 300]),
        position_dtype=rng.choice(["int32", "int64"]),
        broken=rng.choice([0.0, 0.0, 0.3]),
        hadamard=rng.random() < 0.5,
        scale_format=rng.choice(["ue8m0", "float32"]),
        dtype=rng.choice(["bfloat16", "float32"]),
        data=rng.choice(HOSTILE),
        pad=rng.choice([0, 0, 8]),
    )
