"""Sparse multi-latent attention over a paged cache, on an Ascend NPU.

    p = softmax(sm_scale * q . k over the selected keys),  out = sum p * k[:512]

A block takes all selected keys of up to 64 heads of a query token, a tile at a time. Vector cores
gather: each has half of the tile's records copied from the cache, those of invalid slots left zero,
and hands them to the Cube; that multiplies, and each vector core gets the scores of half of the
heads. It takes the softmax online, hands p back, and adds the Cube's sums to its own, rescaled.

Of the op: bfloat16 caches of one scope, any page size and distance, with the sink. Not covered:
caches of fp8 ("v32", "v4"), the second scope, and splits of a token's keys over blocks.
"""

import tilelang.ascend.language as T

from tilelang_kernels.ascend.online_softmax import LANES, LOWEST, logsumexp, normalise, softmax

CORES = 32  # blocks, each of a Cube and two vector cores
KEYS = 128  # of a tile
RECORDS = 16  # that a vector core gathers at a time
COLUMNS = 128  # of the sum over keys, at a time
D_V = 512
CONFIGURATIONS = [
    {"heads": heads, "d_qk": d_qk} for heads in (16, 32, 64, 128) for d_qk in (512, 576)
]


def kernel(*, heads: int, d_qk: int):
    dtype = "bfloat16"
    block_heads = min(64, max(32, heads))
    own_heads = block_heads // 2  # of a vector core
    head_blocks = -(-heads // block_heads)
    depth = 96 if d_qk % 128 else 128  # of dims of q and k, at a time
    rows, topk, num_pages, page_size = T.dynamic("rows, topk, num_pages, page_size")
    page_stride = T.dynamic("page_stride", "int64")

    @T.macro
    def gather(cache, slots, first, count, last_slot, records, keys):
        """The records of slots[first:first + KEYS / 2], of which those below `count` are listed."""
        for part in T.serial(KEYS // 2 // RECORDS):
            with T.SimdVF():
                T.fill(records, 0)
            start = first + part * RECORDS
            for i in T.serial(RECORDS):
                slot = T.int32(slots[start + i])
                if start + i < count and slot >= 0 and slot <= last_slot:
                    page, offset = T.truncdiv(slot, page_size), T.truncmod(slot, page_size)
                    T.copy(cache[page, offset, :], records[i, :])
            T.copy(records, keys[start : start + RECORDS, :])

    @T.prim_func
    def sparse_mla_decode(
        q: T.Tensor((rows, heads, d_qk), dtype),
        cache: T.StridedTensor((num_pages, page_size, d_qk), (page_stride, d_qk, 1), dtype),
        indices: T.Tensor((rows, topk), "int32"),
        topk_length: T.Tensor((rows,), "int32"),
        attn_sink: T.Tensor((heads,), "float32"),  # -inf for none
        sm_scale: T.float32,
        last_slot: T.int32,  # num_pages * page_size - 1, or INT_MAX
        out: T.Tensor((rows, heads, D_V), dtype),
        lse: T.Tensor((rows, heads), "float32"),
    ):
        with T.MixedKernel(CORES) as (core, vector_core):
            q_tile = T.alloc_l1((block_heads, d_qk), dtype)
            keys = T.alloc_l1((KEYS, d_qk), dtype)
            p = T.alloc_l1((block_heads, KEYS), dtype)
            q_left = T.alloc_l0a((block_heads, depth), dtype)
            k_right = T.alloc_l0b((KEYS, depth), dtype)
            p_left = T.alloc_l0a((block_heads, KEYS), dtype)
            v_right = T.alloc_l0b((KEYS, COLUMNS), dtype)
            dots = T.alloc_l0c((block_heads, KEYS), "float32")
            products = T.alloc_l0c((block_heads, COLUMNS), "float32")
            slots = T.alloc_shared((KEYS,), "int32")
            records = T.alloc_shared((RECORDS, d_qk), dtype)
            scores = T.alloc_shared((own_heads, KEYS), "float32")
            top = T.alloc_shared((LANES,), "float32")
            total = T.alloc_shared((LANES,), "float32")
            factor = T.alloc_shared((LANES,), "float32")
            sink = T.alloc_shared((LANES,), "float32")
            sums = T.alloc_shared((own_heads, D_V), "float32")
            added = T.alloc_shared((own_heads, COLUMNS), "float32")
            part = T.alloc_shared((own_heads, COLUMNS), dtype)

            for turn in T.serial(T.truncdiv(rows * head_blocks + CORES - 1 - core, CORES)):
                row = T.truncdiv(turn * CORES + core, head_blocks)
                first_head = T.truncmod(turn * CORES + core, head_blocks) * block_heads
                own = first_head + vector_core * own_heads
                length = T.max(T.min(topk_length[row], topk), 0)
                T.copy(q[row, first_head, 0], q_tile)
                if own < heads:
                    T.copy(attn_sink[own : own + own_heads], sink[:own_heads])
                with T.SimdVF():
                    T.fill(top, LOWEST)
                    T.fill(total, 0)
                    T.fill(sums, 0)
                for tile in T.Pipelined(T.ceildiv(length, KEYS), num_stages=2):
                    count = length - tile * KEYS
                    T.copy(indices[row, tile * KEYS : (tile + 1) * KEYS], slots)
                    gather(cache, slots, vector_core * KEYS // 2, count, last_slot, records, keys)
                    for n in T.serial(d_qk // depth):
                        T.copy(q_tile[:, n * depth : (n + 1) * depth], q_left)
                        T.copy(keys[:, n * depth : (n + 1) * depth], k_right)
                        T.gemm(q_left, k_right, dots, transpose_B=True, clear_accum=n == 0)
                    T.dual_copy(dots, scores)
                    softmax(scores, slots, count, last_slot, sm_scale, top, total, factor)
                    T.dual_copy(scores, p)
                    T.copy(p, p_left)
                    for n in T.serial(D_V // COLUMNS):
                        T.copy(keys[:, n * COLUMNS : (n + 1) * COLUMNS], v_right)
                        T.gemm(p_left, v_right, products, clear_accum=True)
                        T.dual_copy(products, added)
                        with T.SimdVF():
                            for h, d in T.Parallel(own_heads, COLUMNS):
                                sums[h, n * COLUMNS + d] = (
                                    sums[h, n * COLUMNS + d] * factor[h] + added[h, d]
                                )
                if own < heads:
                    for n in T.serial(D_V // COLUMNS):
                        first = n * COLUMNS
                        normalise(sums, first, top, total, sink, part)
                        T.copy(part, out[row, own : own + own_heads, first : first + COLUMNS])
                    logsumexp(top, total)
                    T.copy(top[:own_heads], lse[row, own : own + own_heads])

    return sparse_mla_decode
