"""Online softmax of a tile of heads over blocks of keys.

The largest score so far lies in [-LARGEST, LARGEST], so that no exponent is inf - inf. The weights
then say by their sum what a row has: 0 where no score is above -inf, NaN where a score is NaN, and
+inf where one is +inf.
"""

from typing import Any, NamedTuple

import tilelang.language as T

from dsa_kernels.formats import D_V
from tilelang_kernels.toolchain.targets import Target

LARGEST = 3.4028234663852886e38  # of float32
LOG2_E = 1.4426950408889634
INFINITY, NAN = float("inf"), float("nan")


def exp(x):
    return T.exp2(x * LOG2_E)


class Softmax(NamedTuple):
    """Of the keys so far; registers, but for `weights`."""

    scores: Any  # [heads, keys] of a block, then its weights, exp(score - top)
    sums: Any  # [heads, keys], of weights, by place in the block
    top: Any  # [heads]: the largest score
    total: Any  # [heads]: the sum of weights, when all keys have been seen
    factor: Any  # [heads]: what brings earlier weights to a new `top`; in the end, of the output
    out: Any  # [heads, D_V]: the sum of weight x value
    weights: Any  # [heads, keys]: of a block, in shared memory


def allocate(heads: int, keys: int) -> Softmax:
    return Softmax(
        T.alloc_fragment((heads, keys), "float32"),
        T.alloc_fragment((heads, keys), "float32"),
        T.alloc_fragment((heads,), "float32"),
        T.alloc_fragment((heads,), "float32"),
        T.alloc_fragment((heads,), "float32"),
        T.alloc_fragment((heads, D_V), "float32"),
        T.alloc_shared((heads, keys), "bfloat16"),
    )


def allocate_queries(target: Target, heads: int, d_qk: int):
    """AMD has registers for a tile of queries, and shared memory only for keys."""
    place = T.alloc_fragment if target.kind == "hip" else T.alloc_shared
    return place((heads, d_qk), "bfloat16")


def gemm_options(target: Target, heads: int) -> dict:
    """Waves share heads before they share keys or dims: a row's maximum is in fewer of them."""
    policy = T.GemmWarpPolicy.FullRow if heads >= 64 else T.GemmWarpPolicy.Square
    return {"policy": policy, **target.packing("bfloat16")}


@T.macro
def begin(softmax: Softmax):
    T.fill(softmax.out, 0)
    T.fill(softmax.sums, 0)
    T.fill(softmax.top, -LARGEST)


@T.macro
def attend(target: Target, softmax: Softmax, q, kv, valid, block, sm_scale):
    """A block of keys joins: q [heads, d_qk], kv [keys, d_qk]; valid [2, keys], by turns."""
    scores, sums, top, _, factor, out, weights = softmax
    heads, keys = scores.shape
    options = gemm_options(target, heads)
    T.gemm(q, kv, scores, transpose_B=True, clear_accum=True, **options)
    for h, s in T.Parallel(heads, keys):
        scores[h, s] = T.if_then_else(valid[block % 2, s], scores[h, s] * sm_scale, -INFINITY)
    T.copy(top, factor)
    T.reduce_max(scores, top, dim=1, clear=False)
    for h in T.Parallel(heads):
        top[h] = T.min(top[h], LARGEST)
        factor[h] = exp(factor[h] - top[h])
    for h, s in T.Parallel(heads, keys):
        scores[h, s] = exp(scores[h, s] - top[h])
        sums[h, s] = sums[h, s] * factor[h] + scores[h, s]
    for h, d in T.Parallel(heads, D_V):
        out[h, d] *= factor[h]
    T.copy(scores, weights)
    T.gemm(weights, kv[:, :D_V], out, **options)


@T.macro
def finish(softmax: Softmax, sink, has_sink, part, row, first_head, out, max_logits, lse):
    """Writes heads of a part of a row; max_logits and lse are [parts, rows, num_heads]."""
    _, sums, top, total, factor, sum_of_values, _ = softmax
    heads, num_heads = top.shape[0], out.shape[2]
    T.reduce_sum(sums, total, dim=1)
    for h in T.Parallel(heads):
        if first_head + h < num_heads:
            is_finite = total[h] < INFINITY
            max_logits[part, row, first_head + h] = T.if_then_else(
                total[h] == 0, -INFINITY, T.if_then_else(is_finite, top[h], total[h])
            )
            lse[part, row, first_head + h] = T.if_then_else(
                total[h] == 0,
                -INFINITY,
                T.if_then_else(is_finite, top[h] + T.log(total[h]), NAN),
            )
    for h in T.Parallel(heads):
        weight = T.if_then_else(
            has_sink != 0 and first_head + h < num_heads, exp(sink[first_head + h] - top[h]), 0
        )
        factor[h] = 1 / (total[h] + weight)
    for h, d in T.Parallel(heads, D_V):
        if first_head + h < num_heads:
            value = T.if_then_else(total[h] == 0, 0, sum_of_values[h, d] * factor[h])
            out[part, row, first_head + h, d] = T.cast(value, out.dtype)
