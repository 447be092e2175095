"""The quantiser of cache writers and of the indexer's input, bitwise that of the reference.

A thread has VECTOR dims; a group of dims is that many of neighbouring threads, its lanes.
"""

import tilelang.language as T

from dsa_kernels.formats import AMAX_FLOOR, FP8_MAX

VECTOR = 8


def to_bfloat16(x):
    """The nearest to float32 `x`; every NaN is 0x7fc0."""
    nan = T.reinterpret(T.uint16(0x7FC0), "bfloat16")
    return T.if_then_else(T.isnan(x), nan, T.cast(x, "bfloat16"))


def round_up_to_power_of_two(x):
    """Of positive normal float32; +inf stays."""
    bits = T.reinterpret(x, "uint32")
    return T.reinterpret((bits + 0x7FFFFF) & 0x7F800000, "float32")


@T.macro
def quantise(x, lanes, ue8m0, scale):
    """The scale of a group, [1], of which this thread has `x`, which becomes x / scale."""
    scale[0] = T.float32(AMAX_FLOOR)
    for e in T.unroll(VECTOR):
        scale[0] = T.max(scale[0], T.if_then_else(T.isnan(x[e]), T.float32(0), T.abs(x[e])))
    for i in T.unroll(lanes.bit_length() - 1):
        scale[0] = T.max(scale[0], T.shfl_xor(scale[0], 1 << i))
    scale[0] = scale[0] / T.float32(FP8_MAX)
    if ue8m0 != 0:
        scale[0] = round_up_to_power_of_two(scale[0])
    for e in T.unroll(VECTOR):
        x[e] = x[e] / scale[0]
