"""What sparse_mla_prefill and sparse_mla_decode share: online softmax over blocks of gathered keys.

The maximum of a row lives in [-LARGEST, LARGEST], so that no exponent is inf - inf: a row without a
score above -inf has the sum 0, a NaN score makes the sum NaN, a score of +inf makes it +inf.
"""

import tilelang.language as T

D_V = 512
LARGEST = 3.4028234663852886e38  # of float32
LOG2_E = 1.4426950408889634
INFINITY = float("inf")


def exp(x):
    """Of float32; NaN stays NaN."""
    return T.exp2(x * LOG2_E)


@T.macro
def attend(q, kv, valid, scores, weights, top, before, total, block_sum, out, sm_scale):
    """A block of keys joins the running softmax: out = sum_s exp(score_s - top) kv_s[:D_V].

    valid: by key; top, total: by head, the largest score and the sum of the weights so far.
    """
    heads, keys = scores.shape
    T.gemm(q, kv, scores, transpose_B=True, clear_accum=True)
    for h, s in T.Parallel(heads, keys):
        scores[h, s] = T.if_then_else(valid[s], scores[h, s] * sm_scale, -INFINITY)
    T.copy(top, before)
    T.reduce_max(scores, top, dim=1, clear=False)
    for h in T.Parallel(heads):
        top[h] = T.min(top[h], LARGEST)
    for h, s in T.Parallel(heads, keys):
        scores[h, s] = exp(scores[h, s] - top[h])
    T.reduce_sum(scores, block_sum, dim=1)
    for h in T.Parallel(heads):
        before[h] = exp(before[h] - top[h])
        total[h] = total[h] * before[h] + block_sum[h]
    for h, d in T.Parallel(heads, D_V):
        out[h, d] *= before[h]
    T.copy(scores, weights)
    T.gemm(weights, kv[:, :D_V], out)
