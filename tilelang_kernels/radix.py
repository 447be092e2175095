"""Radix selection by the threads of a block: scores as keys, histograms, bit maps, prefix sums."""

from typing import NamedTuple

import tilelang.language as T

DIGITS, BINS = 3, 2048  # of 11 bits each; the last has a bit in common with the one before
ABSENT, NAN = 0, 1  # keys; those of numbers are larger


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


def lowest_bit(digit):
    return T.max(11 * (DIGITS - 1 - digit) - 1, 0)


@T.macro
def load_keys(keys, candidates, first):
    """Of candidates from `first` on, which is aligned: 4 to each thread, then the next 4."""
    loads, threads, tx = keys.shape[0], T.get_thread_extent(), T.get_thread_binding()
    loaded = T.alloc_local((loads, 4), "float32")
    for load in T.unroll(loads):
        index = first + 4 * (load * threads + tx)
        if index >= 0 and index + 4 <= candidates.count:
            for j in T.vectorized(4):
                loaded[load, j] = candidates.vectors[(candidates.begin + index) // 4, j]
        else:
            for j in T.unroll(4):
                if index + j >= 0 and index + j < candidates.count:
                    loaded[load, j] = candidates.scores[candidates.begin + index + j]
    for load in T.unroll(loads):
        for j in T.unroll(4):
            index = first + 4 * (load * threads + tx) + j
            present = index >= 0 and index < candidates.count
            keys[load, j] = T.if_then_else(present, key_of(loaded[load, j]), T.uint32(ABSENT))


@T.macro
def count_keys(histogram, keys, candidates, first, last, digit, threshold, known):
    """Histogram of a digit of candidates' keys that have the `known` bits of threshold."""
    threads, tile = T.get_thread_extent(), 4 * keys.shape[0] * T.get_thread_extent()
    for i in T.unroll(BINS // threads):
        histogram[i * threads + T.get_thread_binding()] = 0
    T.sync_threads()
    for t in T.serial(T.ceildiv(last - first, tile)):
        load_keys(keys, candidates, first + t * tile)
        for load in T.unroll(keys.shape[0]):
            for j in T.unroll(4):
                if (keys[load, j] & known) == threshold:
                    bin = T.cast(keys[load, j] >> lowest_bit(digit), "int32") % BINS
                    T.atomic_add(histogram[bin], 1)
    T.sync_threads()


@T.macro
def mark_keys(above, tied, keys, candidates, first, threshold):
    """Sets bits of two maps of a word a thread, for as many candidates, from `first` on."""
    threads, loads = T.get_thread_extent(), keys.shape[0]
    above[T.get_thread_binding()] = 0
    tied[T.get_thread_binding()] = 0
    T.sync_threads()
    for t in T.serial(32 // (4 * loads)):
        load_keys(keys, candidates, first + 4 * loads * threads * t)
        for load in T.unroll(loads):
            # Eight threads share a word. Each adds other bits to it.
            place = 4 * ((t * loads + load) * threads + T.get_thread_binding())
            larger, equal = T.alloc_var("uint32"), T.alloc_var("uint32")
            larger, equal = 0, 0
            for j in T.unroll(4):
                larger = larger | (T.cast(keys[load, j] > threshold, "uint32") << (place % 32 + j))
                equal = equal | (T.cast(keys[load, j] == threshold, "uint32") << (place % 32 + j))
            if larger != 0:
                T.atomic_add(above[place // 32], larger)
            if equal != 0:
                T.atomic_add(tied[place // 32], equal)
    T.sync_threads()


@T.macro
def sum_before(sums, value):
    """Of the values of the threads before. sums: int32 [waves, threads of one], shared."""
    wave, lane = T.get_thread_binding() // sums.shape[1], T.get_thread_binding() % sums.shape[1]
    sums[wave, lane] = value
    T.cumsum(sums, dim=1)
    total = T.alloc_var("int32", init=sums[wave, lane] - value)
    for w in T.serial(wave):
        total += sums[w, sums.shape[1] - 1]
    return total


@T.macro
def choose_bin(chosen, histogram, sums, digit, threshold: T.Ref, known: T.Ref, wanted: T.Ref):
    """Of the `wanted`-th largest key; then threshold has this digit, and it is the new wanted-th
    largest of the keys that do. chosen: the bin and that number, shared."""
    own = BINS // T.get_thread_extent()
    last = BINS - 1 - own * T.get_thread_binding()
    count = T.alloc_var("int32", init=0)
    for i in T.unroll(own):
        count += histogram[last - i]
    larger = T.alloc_var("int32", init=sum_before(sums, count))
    for i in T.unroll(own):
        if larger < wanted and wanted <= larger + histogram[last - i]:
            chosen[0] = last - i
            chosen[1] = wanted - larger
        larger += histogram[last - i]
    T.sync_threads()
    threshold = threshold | (T.cast(chosen[0], "uint32") << lowest_bit(digit))
    known = T.uint32(0xFFFFFFFF) << lowest_bit(digit)
    wanted = chosen[1]
