"""Reference of `mla_cache_store`."""

from __future__ import annotations

import torch

from dsa_kernels.formats import FP8_FORMATS, V4
from dsa_kernels.reference.mla_cache_gather import pages_of, record_bytes
from dsa_kernels.reference.quantize import quantize_groups


def to_bfloat16(x: torch.Tensor) -> torch.Tensor:
    """bfloat16 nearest to `x`; every NaN is 0x7fc0 (torch's own conversions differ on NaN)."""
    nan = torch.tensor(0x7FC0, dtype=torch.int16, device=x.device).view(torch.bfloat16)
    return torch.where(x.isnan(), nan, x.bfloat16())


def mla_cache_store(
    kv_c: torch.Tensor,  # bfloat16|float32 [num_tokens, nope_dim]
    k_pe: torch.Tensor,  # kv_c's dtype [num_tokens, 64]
    slots: torch.Tensor,  # int32|int64 [num_tokens]
    cache_format: str,
    scale_format: str,
    cache: torch.Tensor,  # uint8|bfloat16 [num_pages | page_size, record]
) -> None:
    num_pages, page_size = cache.shape[:2]
    slots = slots.long()
    valid = (slots >= 0) & (slots < num_pages * page_size)
    slots, kv_c, rope = slots[valid], kv_c[valid], to_bfloat16(k_pe[valid])
    if cache_format == "bf16":
        size = max(page_size, 1)
        cache[slots // size, slots % size] = torch.cat([to_bfloat16(kv_c), rope], dim=1)
        return
    fmt = FP8_FORMATS[cache_format]
    codes, scales = quantize_groups(kv_c.float(), fmt.group_dim, scale_format)
    codes, rope = codes.view(torch.uint8), rope.view(torch.uint8)
    if fmt is V4:
        exponents = (scales.view(torch.int32) >> 23).byte()
        parts = [codes, rope, exponents, torch.zeros_like(exponents[:, :1])]
    else:
        parts = [codes, scales.view(torch.uint8), rope]
    page, byte = record_bytes(cache, slots, cache_format)
    pages_of(cache)[page, byte] = torch.cat(parts, dim=1)
