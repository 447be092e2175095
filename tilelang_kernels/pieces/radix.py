"""Radix selection by the threads of a block: histograms of keys' digits, bit maps, prefix sums."""

import tilelang.language as T

from tilelang_kernels.pieces.keys import LOADS, load_keys

DIGITS, BINS = 3, 2048  # of 11 bits each; the last has a bit in common with the one before


def lowest_bit(digit):
    return T.max(11 * (DIGITS - 1 - digit) - 1, 0)


def bits_above(digit):
    """A mask of them."""
    mask = T.uint32(0xFFFFFFFF) << lowest_bit(digit - 1)
    return T.if_then_else(digit == 0, T.uint32(0), mask)


@T.macro
def count_keys(histogram, candidates, first, last, digit, threshold):
    """Histogram of a digit of the keys that agree with threshold above it."""
    threads, tx = T.get_thread_extent(), T.get_thread_binding()
    for i in T.unroll(BINS // threads):
        histogram[i * threads + tx] = 0
    T.sync_threads()
    for t in T.serial(T.ceildiv(last - first, 4 * LOADS * threads)):
        keys = load_keys(candidates, first + 4 * LOADS * threads * t)
        for load in T.unroll(LOADS):
            for j in T.unroll(4):
                if (keys[load, j] & bits_above(digit)) == threshold:
                    bin = T.cast(keys[load, j] >> lowest_bit(digit), "int32") % BINS
                    T.atomic_add(histogram[bin], 1)
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
def choose_bin(chosen, histogram, sums, digit, threshold: T.Ref, wanted: T.Ref):
    """Of the `wanted`-th largest key. Then threshold has that digit, and wanted is the key's rank
    among those that have it. chosen: both, shared."""
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
    wanted = chosen[1]


@T.macro
def mark_keys(above, tied, candidates, first, threshold):
    """Sets bits of two maps, of a word a thread, for as many candidates from `first` on."""
    threads, tx = T.get_thread_extent(), T.get_thread_binding()
    above[tx] = 0
    tied[tx] = 0
    T.sync_threads()
    for t in T.serial(8 // LOADS):
        keys = load_keys(candidates, first + 4 * LOADS * threads * t)
        for load in T.unroll(LOADS):
            bit = 4 * ((t * LOADS + load) * threads + tx)
            larger, equal = T.alloc_var("uint32"), T.alloc_var("uint32")
            larger, equal = 0, 0
            for j in T.unroll(4):
                one = T.uint32(1) << j
                larger = larger | T.if_then_else(keys[load, j] > threshold, one, T.uint32(0))
                equal = equal | T.if_then_else(keys[load, j] == threshold, one, T.uint32(0))
            # Eight threads share a word, and none of its bits: sums are unions.
            if larger != 0:
                T.atomic_add(above[bit // 32], larger << (bit % 32))
            if equal != 0:
                T.atomic_add(tied[bit // 32], equal << (bit % 32))
    T.sync_threads()


@T.macro
def write_marked(out, row, above, tied, sums, first, taken: T.Ref, ties: T.Ref, wanted):
    """Indices of the candidates from `first` on that are above, and of the first `wanted` tied.

    taken, ties: how many are before; then, with these.
    """
    tx = T.get_thread_binding()
    tie_bits = T.alloc_var("uint32", init=tied[tx])
    both = T.popcount(above[tx]) + (T.popcount(tie_bits) << 16)
    before = T.alloc_var("int32", init=sum_before(sums, T.cast(both, "int32")))
    tie = T.alloc_var("int32", init=ties + (before >> 16))
    place = T.alloc_var("int32", init=taken + before % 65536 + T.min(tie, wanted))
    bits = T.alloc_var("uint32", init=above[tx] | T.if_then_else(tie < wanted, tie_bits, 0))
    while bits != 0:
        bit = T.alloc_var("uint32", init=bits & (~bits + 1))  # the lowest
        bits = bits ^ bit
        is_tie = T.alloc_var("bool", init=(tie_bits & bit) != 0)
        if not is_tie or tie < wanted:
            out[row, place] = first + 32 * tx + T.cast(T.popcount(bit - 1), "int32")
            place += 1
        if is_tie:
            tie += 1
    for w in T.serial(sums.shape[0]):
        taken += sums[w, sums.shape[1] - 1] % 65536
        ties += sums[w, sums.shape[1] - 1] >> 16
