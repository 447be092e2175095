"""Exact indices of the k best scores of each row, by radix selection.

Histograms of three digits of the scores' keys give the key of the k-th best score, and how many of
its ties are wanted. The row is then read once more: what is above that key, and its ties, become
bits of two maps, whose prefix sums are places in the output. No buffer's size depends on scores,
and atomics only count and set bits, so that their order shows nowhere.

A block takes a row, from counting to writing. Where rows are few, each is sliced among blocks: a
launch for each digit leaves a histogram of every slice, which the launches after it add up.
"""

import tilelang.language as T

from tilelang_kernels.pieces import radix
from tilelang_kernels.pieces.arguments import ALIGNMENT, row_bounds
from tilelang_kernels.pieces.keys import Candidates
from tilelang_kernels.pieces.radix import BINS, DIGITS
from tilelang_kernels.toolchain.targets import Target

CONFIGURATIONS = [{"phase": phase} for phase in ("whole", "count", "write")]
BLOCKS = 128  # that rows are sliced to fill
MAX_SLICES, MIN_SLICE = 16, 16384  # of a row; scores of one


@T.macro
def add_slices(histogram, earlier, passed, counts, row, slice, digit):
    """histogram: a row's; earlier: what the slices before have in the bins of this thread."""
    own, threads, tx = earlier.shape[0], T.get_thread_extent(), T.get_thread_binding()
    total = T.alloc_local((own,), "int32")
    T.clear(total)
    T.clear(earlier)
    for s in T.serial(counts.shape[1]):
        for i in T.unroll(own):
            count = counts[row, s, digit, i * threads + tx]
            total[i] += count
            if s < slice:
                earlier[i] += count
    for i in T.unroll(own):
        histogram[i * threads + tx] = total[i]
    if tx == 0:
        passed[0] = 0


@T.macro
def pass_slices(passed, earlier, chosen):
    """passed: how many keys of the slices before are above the chosen bin, and how many in it."""
    above = T.alloc_var("int32")
    above = 0
    for i in T.unroll(earlier.shape[0]):
        bin = i * T.get_thread_extent() + T.get_thread_binding()
        if bin > chosen[0]:
            above += earlier[i]
        if bin == chosen[0]:
            passed[1] = earlier[i]
    T.atomic_add(passed[0], above)
    T.sync_threads()


def kernel(target: Target, *, phase: str):
    tile, wave = target.tiles["topk_indices"], target.wave
    threads, stretch = tile.threads, tile.columns  # whose bits the maps hold
    rows, topk = T.dynamic("rows, topk")
    slices = 1 if phase == "whole" else T.dynamic("slices")
    size, num_vectors, out_row = T.dynamic("size, num_vectors, out_row", "int64")

    @T.prim_func
    def topk_indices(
        scores: T.Tensor((size,), "float32"),
        vectors: T.Tensor((num_vectors, 4), "float32"),
        score_row: T.int64,
        seq_len: T.int32,
        row_start: T.Tensor((rows,), "int32"),
        row_end: T.Tensor((rows,), "int32"),
        counts: T.Tensor((1 if phase == "whole" else rows, slices, DIGITS, BINS), "int32"),
        counted: T.int32,  # digits, in the launches before
        out: T.StridedTensor((rows, topk), (out_row, 1), "int32"),
    ):
        with T.Kernel(rows, slices, threads=threads) as (row, slice):
            T.annotate_min_blocks_per_sm(2)
            histogram = T.alloc_shared((BINS,), "int32")
            sums = T.alloc_shared((threads // wave, wave), "int32")
            chosen = T.alloc_shared((2,), "int32")
            passed = T.alloc_shared((2,), "int32")
            above = T.alloc_shared((threads,), "uint32")
            tied = T.alloc_shared((threads,), "uint32")
            earlier = T.alloc_local((BINS // threads,), "int32")
            tx = T.get_thread_binding()
            start = T.alloc_var("int32", init=T.max(row_start[row], 0))
            count = T.alloc_var("int32", init=T.max(T.min(row_end[row], seq_len), 0) - start)
            if count <= topk:
                for i in T.serial(T.ceildiv(topk, threads)):
                    index = i * threads + tx
                    if phase != "count" and slice == 0 and index < topk:
                        out[row, index] = T.if_then_else(index < count, index, -1)
            else:
                begin = T.alloc_var("int64", init=row * score_row + start)
                candidates = Candidates(scores, vectors, begin, count)
                skew = T.cast(begin % 4, "int32")
                share = stretch * T.ceildiv(T.ceildiv(count + skew, stretch), slices)
                first = T.alloc_var("int32", init=slice * share - skew)
                last = T.alloc_var("int32", init=T.min(first + share, count))
                threshold = T.alloc_var("uint32", init=0)  # its digits that are known
                wanted = T.alloc_var("int32", init=topk)  # of the keys that have them
                taken = T.alloc_var("int32", init=0)
                ties = T.alloc_var("int32", init=0)
                if phase == "whole":
                    for digit in T.serial(DIGITS):
                        radix.count_keys(histogram, candidates, first, last, digit, threshold)
                        radix.choose_bin(chosen, histogram, sums, digit, threshold, wanted)
                else:
                    for digit in T.serial(T.min(counted, DIGITS)):
                        add_slices(histogram, earlier, passed, counts, row, slice, digit)
                        radix.choose_bin(chosen, histogram, sums, digit, threshold, wanted)
                        pass_slices(passed, earlier, chosen)
                        taken += passed[0]
                        ties = passed[1]
                if phase == "count":
                    radix.count_keys(histogram, candidates, first, last, counted, threshold)
                    for i in T.unroll(BINS // threads):
                        counts[row, slice, counted, i * threads + tx] = histogram[i * threads + tx]
                else:
                    for s in T.serial(T.ceildiv(last - first, stretch)):
                        here = first + s * stretch
                        radix.mark_keys(above, tied, candidates, here, threshold)
                        radix.write_marked(out, row, above, tied, sums, here, taken, ties, wanted)

    return topk_indices


def topk_indices(run, scores, row_start, row_end, topk, out) -> None:
    """The op's schema; `run` is what runs kernels."""
    num_rows, seq_len = scores.shape
    if scores.numel() == 0:
        out.fill_(-1)
        return
    if scores.data_ptr() % ALIGNMENT:
        scores = scores.clone()
    size = (num_rows - 1) * scores.stride(0) + seq_len
    flat, vectors = scores.as_strided((size,), (1,)), scores.as_strided((size // 4, 4), (4, 1))
    bounds = row_bounds(row_start, row_end, num_rows, seq_len, scores.device)
    rows = scores.stride(0), seq_len, *bounds
    slices = max(1, min(BLOCKS // num_rows, MAX_SLICES, seq_len // MIN_SLICE))
    counts = out.new_empty(num_rows if slices > 1 else 1, slices, DIGITS, BINS)
    phases = ["whole"] if slices == 1 else ["count"] * DIGITS + ["write"]
    for counted, phase in enumerate(phases):
        run(kernel, {"phase": phase}, flat, vectors, *rows, counts, counted, out)
