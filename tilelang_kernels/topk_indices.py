"""Exact indices of the k best scores of each row, by radix selection.

A block takes a row. Histograms of three digits of the scores' keys give the key of the k-th best
score and how many of its ties are wanted. The row is then read once more: what is above that key,
and the first ties, become bits of two maps, whose prefix sums are places in the output. No buffer
depends on the scores, and atomics only count and set bits, so that their order shows nowhere.
"""

import tilelang.language as T
import torch

from tilelang_kernels.arguments import aligned, chunks
from tilelang_kernels.targets import Target

CONFIGURATIONS = [{}]
BINS = 2048  # digits of 11 bits
LOADS = 4  # of 16 bytes, in flight a thread
ABSENT, NAN = 0, 1  # keys; those of numbers are larger


def key_of(score):
    """uint32 in the contract's order."""
    bits = T.reinterpret(score, "uint32")
    # -0.0, the sign alone, gets +0.0's key.
    number = T.if_then_else(bits > T.uint32(0x80000000), ~bits, bits | T.uint32(0x80000000))
    is_nan = (bits & T.uint32(0x7FFFFFFF)) > T.uint32(0x7F800000)
    return T.if_then_else(is_nan, T.uint32(NAN), number)


def kernel(target: Target):
    threads, wave = target.tiles["topk_indices"].threads, target.wave
    own_bins = BINS // threads
    tile, segment = 4 * LOADS * threads, 32 * threads
    rows, seq_len, topk = T.dynamic("rows, seq_len, topk")
    row_stride, out_stride = T.dynamic("row_stride, out_stride", "int64")
    num_chunks = T.dynamic("num_chunks", "int64")

    @T.macro
    def sum_of_threads_before(sums, value):
        tx = T.get_thread_binding()
        sums[tx // wave, tx % wave] = value
        T.cumsum(sums, dim=1)
        before = T.alloc_var("int32")
        before = sums[tx // wave, tx % wave] - value
        for w in T.serial(tx // wave):
            before += sums[w, wave - 1]
        return before

    @T.macro
    def load_keys(keys, vectors, scores, row, start, count, first):
        """Of the tile whose first vector, aligned to 16 bytes, begins at candidate `first`."""
        tx = T.get_thread_binding()
        x = T.alloc_local((LOADS, 4), "float32")
        for load in T.unroll(LOADS):
            index = first + 4 * (load * threads + tx)
            if index >= 0 and index + 4 <= count:
                for j in T.vectorized(4):
                    x[load, j] = vectors[(row * row_stride + start + index) // 4, j]
            else:
                for j in T.unroll(4):
                    if index + j >= 0 and index + j < count:
                        x[load, j] = scores[row, start + index + j]
        for load in T.unroll(LOADS):
            for j in T.unroll(4):
                index = first + 4 * (load * threads + tx) + j
                present = index >= 0 and index < count
                keys[load, j] = T.if_then_else(present, key_of(x[load, j]), T.uint32(ABSENT))

    @T.prim_func
    def topk_indices(
        vectors: T.Tensor((num_chunks, 4), "float32"),
        scores: T.StridedTensor((rows, seq_len), (row_stride, 1), "float32"),
        row_start: T.Tensor((rows,), "int32"),
        row_end: T.Tensor((rows,), "int32"),
        out: T.StridedTensor((rows, topk), (out_stride, 1), "int32"),
    ):
        with T.Kernel(rows, threads=threads) as row:
            histogram = T.alloc_shared((BINS,), "int32")
            sums = T.alloc_shared((threads // wave, wave), "int32")
            chosen = T.alloc_shared((2,), "int32")
            above = T.alloc_shared((threads,), "uint32")
            tied = T.alloc_shared((threads,), "uint32")
            keys = T.alloc_local((LOADS, 4), "uint32")
            tx = T.get_thread_binding()
            start = T.max(row_start[row], 0)
            count = T.max(T.min(row_end[row], seq_len), 0) - start
            if count <= topk:
                for i in T.serial(T.ceildiv(topk, threads)):
                    if i * threads + tx < topk:
                        index = i * threads + tx
                        out[row, index] = T.if_then_else(index < count, index, -1)
            else:
                shift = T.cast((row * row_stride + start) % 4, "int32")
                threshold = T.alloc_var("uint32", init=0)
                known = T.alloc_var("uint32", init=0)  # bits of threshold
                wanted = T.alloc_var("int32", init=topk)  # of keys that agree with those bits
                for digit in T.serial(3):
                    low = T.max(21 - 11 * digit, 0)
                    for i in T.unroll(own_bins):
                        histogram[i * threads + tx] = 0
                    for t in T.serial(T.ceildiv(count + shift, tile)):
                        load_keys(keys, vectors, scores, row, start, count, t * tile - shift)
                        for load in T.unroll(LOADS):
                            for j in T.unroll(4):
                                if (keys[load, j] & known) == threshold:
                                    bin = T.cast(keys[load, j] >> low, "int32") % BINS
                                    T.atomic_add(histogram[bin], 1)
                    own = T.alloc_var("int32")
                    own = 0
                    for i in T.unroll(own_bins):
                        own += histogram[BINS - 1 - own_bins * tx - i]
                    larger = T.alloc_var("int32")
                    larger = sum_of_threads_before(sums, own)
                    for i in T.unroll(own_bins):
                        bin = BINS - 1 - own_bins * tx - i
                        if larger < wanted and wanted <= larger + histogram[bin]:
                            chosen[0] = bin
                            chosen[1] = wanted - larger
                        larger += histogram[bin]
                    T.sync_threads()
                    threshold = threshold | (T.cast(chosen[0], "uint32") << low)
                    known = T.uint32(0xFFFFFFFF) << low
                    wanted = chosen[1]
                    T.sync_threads()

                taken = T.alloc_var("int32", init=0)  # in the segments before
                ties = T.alloc_var("int32", init=0)
                for s in T.serial(T.ceildiv(count + shift, segment)):
                    above[tx] = 0
                    tied[tx] = 0
                    for t in T.serial(segment // tile):
                        first = s * segment + t * tile - shift
                        load_keys(keys, vectors, scores, row, start, count, first)
                        for load in T.unroll(LOADS):
                            vector = (t * LOADS + load) * threads + tx
                            bits = T.alloc_local((2,), "uint32")
                            bits[0] = 0
                            bits[1] = 0
                            for j in T.unroll(4):
                                bits[0] = bits[0] | (
                                    T.cast(keys[load, j] > threshold, "uint32") << j
                                )
                                bits[1] = bits[1] | (
                                    T.cast(keys[load, j] == threshold, "uint32") << j
                                )
                            if bits[0] != 0:
                                T.atomic_or(above[vector // 8], bits[0] << (vector % 8 * 4))
                            if bits[1] != 0:
                                T.atomic_or(tied[vector // 8], bits[1] << (vector % 8 * 4))
                    T.sync_threads()
                    counts = T.cast(T.popcount(above[tx]), "int32") | (
                        T.cast(T.popcount(tied[tx]), "int32") << 16
                    )
                    before = T.alloc_var("int32")
                    before = sum_of_threads_before(sums, counts)
                    tie = T.alloc_var("int32")
                    tie = ties + (before >> 16)
                    place = T.alloc_var("int32")
                    place = taken + (before & 0xFFFF) + T.min(tie, wanted)
                    todo = T.alloc_var("uint32")
                    todo = above[tx]
                    if tie < wanted:
                        todo = todo | tied[tx]
                    while todo != 0:
                        lowest = todo & (T.uint32(0) - todo)
                        todo = todo ^ lowest
                        if (tied[tx] & lowest) == 0 or tie < wanted:
                            out[row, place] = (
                                s * segment
                                - shift
                                + 32 * tx
                                + T.cast(T.popcount(lowest - 1), "int32")
                            )
                            place += 1
                        if (tied[tx] & lowest) != 0:
                            tie += 1
                    for w in T.serial(threads // wave):
                        taken += sums[w, wave - 1] & 0xFFFF
                        ties += sums[w, wave - 1] >> 16
                    T.sync_threads()

    return topk_indices


def topk_indices(run, scores, row_start, row_end, topk, out) -> None:
    """The op's schema; `run` is what runs kernels."""
    num_rows, seq_len = scores.shape
    if num_rows == 0:
        return
    if row_start is None:
        row_start = torch.zeros(num_rows, dtype=torch.int32, device=scores.device)
    if row_end is None:
        row_end = torch.full((num_rows,), seq_len, dtype=torch.int32, device=scores.device)
    if scores.data_ptr() % 16:
        scores = scores.clone()
    vectors = chunks(scores[:, :, None], torch.float32)
    run(kernel, {}, vectors, scores, aligned(row_start), aligned(row_end), out)
