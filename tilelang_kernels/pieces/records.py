"""Records of latent caches in kernels: where a slot's lie, and what they hold.

A cache is passed as three arrays of chunks, which are the same memory: codes [n, 16], halves [n, 8]
(bfloat16) and scales ([n, 4] float32; of v4, [m, 8] ue8m0 bytes). A key's dims are `quantised`
ones, a code each and a scale for each `group_dim`, then the rest, as halves. Of "bf16", all are
halves.
"""

from typing import NamedTuple

import tilelang.language as T
import torch

from dsa_kernels.formats import FP8_FORMATS, V4, V4_SCALE_BYTES
from tilelang_kernels.pieces import fp8
from tilelang_kernels.pieces.arguments import ALIGNMENT, chunks
from tilelang_kernels.toolchain.targets import Target

FORMATS = (("bf16", 576), ("bf16", 512), ("v32", 576), ("v4", 512))  # and their d_qk
# All kernels of an op that converts between them and a dtype.
CONVERSIONS = [
    {"cache_format": cache_format, "d_qk": d_qk, "dtype": dtype}
    for cache_format, d_qk in FORMATS
    for dtype in ("bfloat16", "float32")
]


class Records(NamedTuple):
    """What a kernel for a target and a cache format is built with. A chunk is 16 bytes."""

    target: Target
    planar: bool  # scales lie behind all the data of a page, as bytes
    d_qk: int
    quantised: int  # dims
    group_dim: int
    record_chunks: int  # of data
    first_half_chunk: int
    first_scale_chunk: int  # where they lie in the record

    @property
    def code_type(self) -> str:
        return fp8.code_type(self.target)

    @property
    def scale_type(self) -> str:
        return "uint8" if self.planar else "float32"

    @property
    def scale_width(self) -> int:
        """Scales of a chunk of them."""
        return V4_SCALE_BYTES if self.planar else ALIGNMENT // 4

    def views(self, cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Codes, halves and scales of a cache made by `arguments.aligned_pages`."""
        scale_type, width = getattr(torch, self.scale_type), self.scale_width
        return (
            chunks(cache, fp8.torch_code_type(self.target)),
            chunks(cache, torch.bfloat16),
            chunks(cache, scale_type, width * scale_type.itemsize),
        )

    def position(self, slot, page_size, page_chunks):
        """Of a valid slot, int64: the first chunk of its record, and the chunk of its scales."""
        page = T.truncdiv(slot, page_size)
        return self.place(page, slot - page * page_size, page_size, page_chunks)

    def place(self, page, token, page_size, page_chunks):
        """`position`, of a token in its page."""
        begin, token = page * page_chunks, T.cast(token, "int64")
        data = begin + token * self.record_chunks
        if not self.planar:
            return data, data + self.first_scale_chunk
        per_chunk = ALIGNMENT // V4_SCALE_BYTES
        return data, (begin + page_size * self.record_chunks) * per_chunk + token

    def scale(self, scales, chunk, group):
        """float32, of a group of dims."""
        if not self.planar:
            return scales[chunk, group]
        exponent = T.cast(scales[chunk, group], "uint32")
        bits = T.if_then_else(exponent == 0, T.uint32(0x00400000), exponent << 23)  # 2^-127
        bits = T.if_then_else(exponent == 255, T.uint32(0x7FC00000), bits)
        return T.reinterpret(bits, "float32")

    def value(self, code, scale):
        """bfloat16, of a quantised dim."""
        return T.cast(fp8.code_value(self.target, code) * scale, "bfloat16")


@T.macro
def get_values(records: Records, codes, halves, chunk, begin, x):
    """float32 `x`, [8]: what the codes from `begin` on in a chunk stand for."""
    if records.code_type == "uint8":
        # As halves, because TileLang has no vector of zero bytes on AMD.
        pairs = T.alloc_local((4,), "bfloat16")
        for e in T.vectorized(4):
            pairs[e] = halves[chunk, begin // 2 + e]
        for e in T.unroll(8):
            pair = T.cast(T.reinterpret(pairs[e // 2], "uint16"), "uint32")
            x[e] = fp8.code_value(records.target, pair >> e % 2 * 8 & 0xFF)
    else:
        eight = T.alloc_local((8,), records.code_type)
        for e in T.vectorized(8):
            eight[e] = codes[chunk, begin + e]
        for e in T.vectorized(8):
            x[e] = fp8.code_value(records.target, eight[e])


@T.macro
def put_scale(records: Records, scales, chunk, group, scale):
    """Of a group. The byte behind v4's last is zero."""
    if records.planar:
        scales[chunk, group] = T.cast(T.reinterpret(scale, "uint32") >> 23, "uint8")
        if group == records.quantised // records.group_dim - 1:
            scales[chunk, group + 1] = T.uint8(0)
    else:
        scales[chunk, group] = scale


def of(target: Target, cache_format: str, d_qk: int) -> Records:
    if cache_format == "bf16":
        return Records(target, False, d_qk, 0, d_qk, d_qk * 2 // ALIGNMENT, 0, 0)
    fmt = FP8_FORMATS[cache_format]
    offsets = fmt.data_bytes, fmt.rope_offset, fmt.scale_offset
    return Records(
        target, fmt is V4, d_qk, fmt.nope_dim, fmt.group_dim, *(n // ALIGNMENT for n in offsets)
    )
