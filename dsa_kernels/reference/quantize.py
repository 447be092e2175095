"""The quantiser that cache writers and the indexer's input share.

It is fp32, one rounded operation at a time; csrc/cpu/quantize.h repeats it bitwise.
"""

from __future__ import annotations

import torch

from dsa_kernels.formats import AMAX_FLOOR, FP8_MAX


def round_up_to_power_of_two(x: torch.Tensor) -> torch.Tensor:
    """2^ceil(log2(x)) of positive normal float32 by exponent bits, so exact; +inf stays."""
    bits = x.view(torch.int32)
    exponent = (bits >> 23) + ((bits & 0x7FFFFF) != 0).int()
    return (exponent << 23).view(torch.float32)


def to_fp8(x: torch.Tensor) -> torch.Tensor:
    """float8_e4m3fn nearest (ties to even) to float32 `x`, saturating; every NaN is code 0x7f."""
    x = torch.where(x.isnan(), torch.full_like(x, torch.nan), x.clamp(-FP8_MAX, FP8_MAX))
    return x.to(torch.float8_e4m3fn)


def quantize_groups(
    x: torch.Tensor,  # float32 [..., dim]
    group_dim: int,
    scale_format: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantises each run of `group_dim` dims with one scale, as DeepSeek's act_quant does.

    scale = max(amax, 1e-4) / 448, with amax = max |x| over what is not NaN; "ue8m0" rounds it up to
    a power of two. code = to_fp8(x / scale), a true division. An infinite x makes the scale
    infinite: its own code is then NaN and the other codes of the group are zeros.

    Returns float8_e4m3fn [..., dim] and float32 [..., dim / group_dim].
    """
    groups = x.unflatten(-1, (-1, group_dim))
    magnitude = groups.abs()
    amax = torch.where(groups.isnan(), 0.0, magnitude).amax(-1)
    scale = amax.clamp_min(AMAX_FLOOR) / FP8_MAX
    if scale_format == "ue8m0":
        scale = round_up_to_power_of_two(scale)
    return to_fp8(groups / scale[..., None]).flatten(-2), scale
