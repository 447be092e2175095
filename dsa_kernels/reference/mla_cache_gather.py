"""Reference of `mla_cache_gather`, and the record reader that attention shares."""

from __future__ import annotations

import torch

from dsa_kernels.formats import FP8_FORMATS, ROPE_DIM, V4, V4_SCALE_BYTES
from dsa_kernels.reference.paging import gathered_rows


def ue8m0_to_float(exponent: torch.Tensor) -> torch.Tensor:
    """2^(e - 127) as float32 of uint8 `exponent`; e = 0 is subnormal, e = 255 is NaN (e8m0)."""
    bits = exponent.int() << 23
    bits = bits.masked_fill(exponent == 0, 0x00400000).masked_fill(exponent == 255, 0x7FC00000)
    return bits.view(torch.float32)


def pages_of(cache: torch.Tensor) -> torch.Tensor:
    """[num_pages, page_size * record]: a view of `cache`, which is packed within a page."""
    num_pages, page_size, record = cache.shape
    return cache.view(num_pages, page_size * record)


def record_bytes(
    cache: torch.Tensor, slots: torch.Tensor, cache_format: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the bytes of records lie in `pages_of(cache)`: pages [n, 1], bytes in page [n, record].

    cache: uint8 [num_pages | page_size, record]; slots: int64 [n], all valid. The order is data
    first, then the scales of a planar page.
    """
    fmt = FP8_FORMATS[cache_format]
    page_size = max(cache.shape[1], 1)  # a cache without slots has no valid slot either
    page, token = (slots // page_size)[:, None], (slots % page_size)[:, None]
    byte = token * fmt.data_bytes + torch.arange(fmt.data_bytes, device=cache.device)
    if fmt is V4:
        scale = token * V4_SCALE_BYTES + torch.arange(V4_SCALE_BYTES, device=cache.device)
        byte = torch.cat([byte, page_size * fmt.data_bytes + scale], dim=1)
    return page, byte


def read_records(cache: torch.Tensor, slots: torch.Tensor, cache_format: str) -> torch.Tensor:
    """float32 [n, d_qk]: the keys in `slots`, each value the bf16 rounding of fp32 code x scale.

    cache: uint8|bfloat16 [num_pages | page_size, record]; slots: int64 [n], all valid.
    """
    if cache_format == "bf16":
        page_size = max(cache.shape[1], 1)
        return cache[slots // page_size, slots % page_size].float()
    fmt = FP8_FORMATS[cache_format]
    page, byte = record_bytes(cache, slots, cache_format)
    record = pages_of(cache)[page, byte]
    codes = record[:, : fmt.nope_dim].view(torch.float8_e4m3fn).float()
    if fmt is V4:
        scales = ue8m0_to_float(record[:, fmt.data_bytes :][:, : fmt.num_groups])
    else:
        scales = record[:, fmt.scale_offset : fmt.scale_offset + 4 * fmt.num_groups]
        scales = scales.contiguous().view(torch.float32)
    nope = codes.unflatten(1, (-1, fmt.group_dim)) * scales[:, :, None]
    rope = record[:, fmt.rope_offset : fmt.rope_offset + 2 * ROPE_DIM].contiguous()
    return torch.cat([nope.flatten(1).bfloat16(), rope.view(torch.bfloat16)], dim=1).float()


def mla_cache_gather(
    cache: torch.Tensor,  # uint8|bfloat16 [num_pages | page_size, record]
    block_table: torch.Tensor,  # int32 [batch, max_pages]
    cu_seq_lens: torch.Tensor,  # int32 [batch+1]
    seq_start: torch.Tensor | None,  # int32 [batch]
    cache_format: str,
    out: torch.Tensor,  # bfloat16|float32 [num_tokens, d_qk]
) -> None:
    num_pages, page_size = cache.shape[:2]
    for rows, slots in gathered_rows(
        block_table, cu_seq_lens, seq_start, out.shape[0], num_pages, page_size
    ):
        valid = slots >= 0
        keys = out.new_zeros(slots.numel(), out.shape[1])
        keys[valid] = read_records(cache, slots[valid], cache_format).to(out.dtype)
        out[rows] = keys
