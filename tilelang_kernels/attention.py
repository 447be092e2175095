"""What sparse_mla_prefill and sparse_mla_decode share: online softmax over blocks of gathered keys.

The maximum of a row lives in [-LARGEST, LARGEST], so that no exponent is inf - inf: a row without a
score above -inf has the sum 0, a NaN score makes the sum NaN, a score of +inf makes it +inf.
"""

from typing import Any, NamedTuple

import tilelang.language as T

from dsa_kernels.formats import D_V


LARGEST = 3.4028234663852886e38  # of float32
LOG2_E = 1.4426950408889634
INFINITY, NAN = float("inf"), float("nan")


def exp(x):
    """Of float32; NaN stays NaN."""
    return T.exp2(x * LOG2_E)


class Softmax(NamedTuple):
    """A tile of heads over the keys seen so far."""

    scores: Any  # [heads, keys] of the last block; then its weights, exp(score - top)
    sums: Any  # [heads, keys], of weights, by position in the block
    top: Any  # [heads], the largest score
    factor: Any  # [heads]
    out: Any  # [heads, D_V], the sum of weight x value
    weights: Any  # [heads, keys] in shared memory


def allocate(heads: int, keys: int) -> Softmax:
    return Softmax(
        T.alloc_fragment((heads, keys), "float32"),
        T.alloc_fragment((heads, keys), "float32"),
        T.alloc_fragment((heads,), "float32"),
        T.alloc_fragment((heads,), "float32"),
        T.alloc_fragment((heads, D_V), "float32"),
        T.alloc_shared((heads, keys), "bfloat16"),
    )


@T.macro
def begin(softmax: Softmax):
    T.fill(softmax.out, 0)
    T.fill(softmax.sums, 0)
    T.fill(softmax.top, -LARGEST)


@T.macro
def attend(softmax: Softmax, q, kv, valid, which, sm_scale):
    """A block of keys joins. q [heads, d_qk], kv [keys, d_qk], valid [:, keys]"""
    scores, sums, top, factor, out, weights = softmax
    heads, keys = scores.shape
    T.gemm(q, kv, scores, transpose_B=True, clear_accum=True)
    for h, s in T.Parallel(heads, keys):
        scores[h, s] = T.if_then_else(valid[which, s], scores[h, s] * sm_scale, -INFINITY)
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
    T.gemm(weights, kv[:, :D_V], out)


def max_logit(top, total):
    """Of a row whose largest score is `top` and whose weights add up to `total`."""
    return T.if_then_else(
        total == 0, -INFINITY, T.if_then_else(total < INFINITY, top, total)
    )


def log_sum(top, total):
    return T.if_then_else(
        total == 0, -INFINITY, T.if_then_else(total < INFINITY, top + T.log(total), NAN)
    )


def divided(out, top, total, sink):
    """An output with the sink in its denominator."""
    return T.if_then_else(total == 0, 0, out / (total + exp(sink - top)))
