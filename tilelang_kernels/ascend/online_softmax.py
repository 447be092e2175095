"""The vector core's part of attention on an Ascend NPU: an online softmax, a row after another.

A row is a query head's. State of a row, float32: the highest score so far; the total, over keys so
far, of exp(score - highest). Both lie one after another, as do factors and sinks.
"""

import tilelang.ascend.language as T
from tilelang.ascend.language import simd

LANES = 64  # of a vector of float32
LOWEST = -3.4028234663852886e38  # what maxima begin with: -inf less it is -inf, not NaN


@T.macro
def softmax(scores, slots, count, last_slot, sm_scale, top, total, factor):
    """scores [rows, keys] becomes exp(sm_scale * score - highest), 0 for keys that `count` and
    slots leave out; factor what sums of earlier keys are to be multiplied by."""
    heads, keys = scores.shape
    with T.SimdVF():
        every = simd.pset(32, "PAT_ALL")
        nothing = simd.vdup(-T.infinity("float32"), "float32", every)
        for h in T.serial(heads):
            before = simd.vld(top[h], "BRC_B32")
            lanes_top = simd.alloc_var("float32")
            lanes_top = before
            for j in range(0, keys, LANES):
                slot = simd.vld(slots[j], "NORM")
                listed = simd.update_mask(T.uint32(T.max(T.min(count - j, LANES), 0)), 32)
                valid = simd.vcmps(slot, T.int32(0), listed, "ge")
                valid = simd.vcmps(slot, last_slot, valid, "le")
                score = simd.vmuls(simd.vld(scores[h, j], "NORM"), sm_scale, every)
                score = simd.vsel(score, nothing, valid)
                simd.vsts(scores[h, j], score, every, "NORM_B32")
                lanes_top = simd.vmax(lanes_top, score, every)
            simd.vsts(factor[h], before, every, "ONEPT_B32")
            simd.vsts(top[h], simd.vcmax(lanes_top, every), every, "ONEPT_B32")
        simd.mem_bar("VST_VLD")
        for h in T.serial(heads):
            highest = simd.vld(top[h], "BRC_B32")
            earlier = simd.vexpdif(simd.vld(factor[h], "BRC_B32"), highest, every)
            added = simd.alloc_var("float32")
            added = simd.vdup(T.float32(0), "float32", every)
            for j in range(0, keys, LANES):
                p = simd.vexpdif(simd.vld(scores[h, j], "NORM"), highest, every)
                simd.vsts(scores[h, j], p, every, "NORM_B32")
                added = simd.vadd(added, p, every)
            kept = simd.vmul(simd.vld(total[h], "BRC_B32"), earlier, every)
            summed = simd.vadd(simd.vcadd(added, every), kept, every)
            simd.vsts(factor[h], earlier, every, "ONEPT_B32")
            simd.vsts(total[h], summed, every, "ONEPT_B32")


@T.macro
def normalise(sums, first, top, total, sink, part):
    """part = sums[:, first : first + columns] over the total and the sink's; 0 for an empty row."""
    heads, columns = part.shape
    with T.SimdVF():
        every = simd.pset(32, "PAT_ALL")
        zero = simd.vdup(T.float32(0), "float32", every)
        for h in T.serial(heads):
            chosen = simd.vld(total[h], "BRC_B32")
            sunk = simd.vexpdif(simd.vld(sink[h], "BRC_B32"), simd.vld(top[h], "BRC_B32"), every)
            some = simd.vcmps(chosen, T.float32(0), every, "ne")
            for d in range(0, columns, LANES):
                value = simd.vld(sums[h, first + d], "NORM")
                value = simd.vdiv(value, simd.vadd(chosen, sunk, every), every)
                value = simd.vcvt(simd.vsel(value, zero, some), part.dtype, every)
                simd.vsts(part[h, d], value, every, "PK_B32")


@T.macro
def logsumexp(top, total):
    """top becomes top + log(total): -inf for an empty row."""
    with T.SimdVF():
        every = simd.pset(32, "PAT_ALL")
        logarithm = simd.vln(simd.vld(total[0], "NORM"), every)
        summed = simd.vadd(simd.vld(top[0], "NORM"), logarithm, every)
        simd.vsts(top[0], summed, every, "NORM_B32")
