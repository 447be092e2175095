"""Scores as integers that are ordered as selection orders scores."""

from typing import NamedTuple

import tilelang.language as T

ABSENT, NAN = 0, 1  # keys; those of numbers are larger
LOADS = 4  # of 4 scores, in flight a thread


class Candidates(NamedTuple):
    """scores[begin : begin + count]; vectors: the same memory, 4 scores at a time."""

    scores: object
    vectors: object
    begin: object
    count: object


def key_of(score):
    """uint32, larger for what is better: NaN < -inf < ... < -0 = +0 < ... < inf."""
    bits = T.reinterpret(score, "uint32")
    # -0.0, the sign alone, gets +0.0's key.
    number = T.if_then_else(bits > T.uint32(0x80000000), ~bits, bits | T.uint32(0x80000000))
    is_nan = (bits & T.uint32(0x7FFFFFFF)) > T.uint32(0x7F800000)
    return T.if_then_else(is_nan, T.uint32(NAN), number)


@T.macro
def load_keys(candidates, first):
    """Of candidates from `first` on, which is aligned: 4 to each thread, LOADS times in turn."""
    threads, tx = T.get_thread_extent(), T.get_thread_binding()
    loaded = T.alloc_local((LOADS, 4), "float32")
    keys = T.alloc_local((LOADS, 4), "uint32")
    # No load depends on a branch of its own, so that all are in flight.
    if first >= 0 and first + 4 * LOADS * threads <= candidates.count:
        for load in T.unroll(LOADS):
            vector = (candidates.begin + first) // 4 + load * threads + tx
            for j in T.vectorized(4):
                loaded[load, j] = candidates.vectors[vector, j]
        for load in T.unroll(LOADS):
            for j in T.unroll(4):
                keys[load, j] = key_of(loaded[load, j])
    else:
        for load in T.unroll(LOADS):
            for j in T.unroll(4):
                index = first + 4 * (load * threads + tx) + j
                nearest = T.max(T.min(index, candidates.count - 1), 0)
                loaded[load, j] = candidates.scores[candidates.begin + nearest]
        for load in T.unroll(LOADS):
            for j in T.unroll(4):
                index = first + 4 * (load * threads + tx) + j
                present = index >= 0 and index < candidates.count
                keys[load, j] = T.if_then_else(present, key_of(loaded[load, j]), T.uint32(ABSENT))
    return keys
