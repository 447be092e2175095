"""Cache record formats: byte offsets, scale encodings, page layouts. csrc/formats.h mirrors them.

Index cache, uint8 [num_pages, page_size, head_dim + 4], planar within a page: the page_size keys'
float8_e4m3fn values first (head_dim bytes each), then their page_size float32 scales.

Latent (MLA) caches, [num_pages, page_size, record]; `cache_format` names one of:

    v32   uint8, 656 B a token, contiguous: 512 e4m3 | 4 float32 scales (one per 128 dims) |
          64 bfloat16 RoPE dims. d_qk = 576.
    v4    uint8, 584 B a token, planar within a page: each token's 576 B of data first
          (448 e4m3 | 64 bfloat16 RoPE dims), then each token's 8 B of scales (7 ue8m0, one per 64
          dims, and a zero). d_qk = 512.
    bf16  bfloat16, 576 or 512 elements a token. d_qk = 576 or 512.

The value part of a key (d_v = 512) is its first 512 dims. Pages may lie further apart than their
size (stride 0 is free), within a page everything is packed. A *slot* is
page * page_size + offset in page; any slot outside [0, num_pages * page_size) is invalid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

D_V = 512
ROPE_DIM = 64
INDEX_SCALE_BYTES = 4
FP8_MAX = 448.0  # largest float8_e4m3fn
AMAX_FLOOR = 1e-4  # DeepSeek's quantiser never divides by less than this / 448
SCALE_FORMATS = ("ue8m0", "float32")  # power of two (rounded up), or amax / 448 as it is


@dataclass(frozen=True)
class MLACacheFormat:
    """One latent cache format; sizes in bytes except *_dim, which are in elements."""

    name: str
    dtype: torch.dtype
    nope_dim: int  # quantised dims
    group_dim: int  # dims that share a scale
    record: int  # last dim of the cache tensor
    data_bytes: int  # per token, scales of planar pages excluded
    scale_offset: int  # of a token's scales: in its record (v32), in its scale slot (v4)
    rope_offset: int  # of the RoPE dims in a token's data

    @property
    def d_qk(self) -> int:
        return self.nope_dim + ROPE_DIM

    @property
    def num_groups(self) -> int:
        return self.nope_dim // self.group_dim


V32 = MLACacheFormat("v32", torch.uint8, 512, 128, 656, 656, 512, 528)
V4 = MLACacheFormat("v4", torch.uint8, 448, 64, 584, 576, 0, 448)
FP8_FORMATS = {"v32": V32, "v4": V4}
CACHE_FORMATS = ("v32", "v4", "bf16")
V4_SCALE_BYTES = 8  # 7 scales and a pad byte


def check_cache_format(cache: torch.Tensor, cache_format: str, d_qk: int) -> str | None:
    """What is wrong with `cache` as a `cache_format` cache of keys of `d_qk` dims, or None."""
    if cache_format not in CACHE_FORMATS:
        return f"cache_format must be one of {', '.join(CACHE_FORMATS)}; got {cache_format!r}."
    if cache_format == "bf16":
        dtype, record, dims = torch.bfloat16, d_qk, (576, 512)
    else:
        fmt = FP8_FORMATS[cache_format]
        dtype, record, dims = fmt.dtype, fmt.record, (fmt.d_qk,)
    if d_qk not in dims:
        expected = " or ".join(map(str, dims))
        return f"keys of cache_format {cache_format!r} have d_qk = {expected}; got d_qk = {d_qk}."
    if cache.dtype != dtype or cache.shape[-1] != record:
        return (
            f"a {cache_format!r} cache is {str(dtype)[6:]} [num_pages, page_size, {record}]; "
            f"got {str(cache.dtype)[6:]} {list(cache.shape)}."
        )
    return None
