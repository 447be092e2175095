"""Kernels in the Triton language, the PTX that Triton makes of them without a GPU, and how it wants
them launched."""

import ctypes
import os
from dataclasses import dataclass

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def matmul_descriptors(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """C = A B^T for A [M, K] and B [N, K], all through tensor maps made by the host."""
    row = tl.program_id(0) * BM
    column = tl.program_id(1) * BN
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for k in tl.range(0, K, BK):
        total = tl.dot(a.load([row, k]), b.load([column, k]).T, total)
    c.store([row, column], total.to(c.dtype))


@triton.jit
def matmul_device_descriptors(
    a_ptr, b_ptr, c_ptr, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr
):
    """The same for B [K, N], with tensor maps that each CTA writes to scratch memory."""
    a = tl.make_tensor_descriptor(a_ptr, shape=[M, K], strides=[K, 1], block_shape=[BM, BK])
    b = tl.make_tensor_descriptor(b_ptr, shape=[K, N], strides=[N, 1], block_shape=[BK, BN])
    c = tl.make_tensor_descriptor(c_ptr, shape=[M, N], strides=[N, 1], block_shape=[BM, BN])
    row = tl.program_id(0) * BM
    column = tl.program_id(1) * BN
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for k in tl.range(0, K, BK):
        total = tl.dot(a.load([row, k]), b.load([k, column]), total)
    c.store([row, column], total.to(tl.bfloat16))


@triton.jit
def matmul_persistent(
    a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, CTAS: tl.constexpr
):
    """As matmul_descriptors, by a fixed number of CTAs that walk over the tiles."""
    columns = tl.cdiv(N, BN)
    for tile in tl.range(tl.program_id(0), tl.cdiv(M, BM) * columns, CTAS, flatten=True):
        row = tile // columns * BM
        column = tile % columns * BN
        total = tl.zeros((BM, BN), dtype=tl.float32)
        for k in range(0, K, BK):
            total = tl.dot(a.load([row, k]), b.load([column, k]).T, total)
        c.store([row, column], total.to(c.dtype))


@triton.jit
def matmul_pointers(
    a_ptr, b_ptr, c_ptr, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr
):
    """C = swish(A B) for A [M, K] and B [K, N], with masks at every edge."""
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    steps = tl.arange(0, BK)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for k in range(0, K, BK):
        a = tl.load(
            a_ptr + rows[:, None] * K + (k + steps)[None, :],
            mask=(rows[:, None] < M) & (k + steps < K)[None, :],
            other=0.0,
        )
        b = tl.load(
            b_ptr + (k + steps)[:, None] * N + columns[None, :],
            mask=(k + steps < K)[:, None] & (columns[None, :] < N),
            other=0.0,
        )
        total = tl.dot(a, b, total)
    total = total * tl.sigmoid(total)
    tl.store(
        c_ptr + rows[:, None] * N + columns[None, :],
        total.to(tl.bfloat16),
        mask=(rows[:, None] < M) & (columns[None, :] < N),
    )


@triton.jit
def softmax(x_ptr, y_ptr, row_stride, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    mask = offsets < columns
    x = tl.load(x_ptr + row * row_stride + offsets, mask=mask, other=-float("inf"))
    numerator = tl.exp(x - tl.max(x, axis=0))
    tl.store(y_ptr + row * row_stride + offsets, numerator / tl.sum(numerator, axis=0), mask=mask)


@triton.jit
def layer_norm(x_ptr, w_ptr, b_ptr, y_ptr, mean_ptr, rstd_ptr, columns, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    x_ptr += row * columns
    y_ptr += row * columns
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, columns, BLOCK):
        offsets = start + tl.arange(0, BLOCK)
        total += tl.load(x_ptr + offsets, mask=offsets < columns, other=0.0).to(tl.float32)
    mean = tl.sum(total, axis=0) / columns
    squares = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, columns, BLOCK):
        offsets = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + offsets, mask=offsets < columns, other=0.0).to(tl.float32)
        x = tl.where(offsets < columns, x - mean, 0.0)
        squares += x * x
    rstd = 1 / tl.sqrt(tl.sum(squares, axis=0) / columns + eps)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)
    for start in range(0, columns, BLOCK):
        offsets = start + tl.arange(0, BLOCK)
        mask = offsets < columns
        x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        w = tl.load(w_ptr + offsets, mask=mask)
        b = tl.load(b_ptr + offsets, mask=mask)
        tl.store(y_ptr + offsets, ((x - mean) * rstd * w + b).to(tl.float16), mask=mask)


@triton.jit
def attention(
    q, k, v, o, lse_ptr, scale, length, BM: tl.constexpr, BN: tl.constexpr, D: tl.constexpr
):
    """Causal attention over [heads * length, D], one head per program_id(1)."""
    first = tl.program_id(0) * BM
    base = tl.program_id(1) * length
    rows = first + tl.arange(0, BM)
    steps = tl.arange(0, BN)
    query = q.load([base + first, 0])
    total = tl.zeros((BM, D), dtype=tl.float32)
    largest = tl.full((BM,), -float("inf"), dtype=tl.float32)
    mass = tl.zeros((BM,), dtype=tl.float32)
    for start in tl.range(0, first + BM, BN):
        score = tl.dot(query, k.load([base + start, 0]).T) * (scale * LOG2E)
        score = tl.where(rows[:, None] >= (start + steps)[None, :], score, -float("inf"))
        larger = tl.maximum(largest, tl.max(score, axis=1))
        weight = tl.exp2(score - larger[:, None])
        shrink = tl.exp2(largest - larger)
        mass = mass * shrink + tl.sum(weight, axis=1)
        total = tl.dot(weight.to(tl.bfloat16), v.load([base + start, 0]), total * shrink[:, None])
        largest = larger
    o.store([base + first, 0], (total / mass[:, None]).to(tl.bfloat16))
    tl.store(lse_ptr + base + rows, largest / LOG2E + tl.log(mass))


@triton.jit
def histogram_scan(x_ptr, counts_ptr, ends_ptr, n, BLOCK: tl.constexpr, BINS: tl.constexpr):
    """Counts of int32 values modulo BINS, atomically over CTAs, and the block's own prefix sum."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n, other=0)
    counts = tl.histogram(x % BINS, BINS, mask=offsets < n)
    tl.atomic_add(counts_ptr + tl.arange(0, BINS), counts, sem="relaxed")
    tl.store(ends_ptr + offsets, tl.cumsum(x, axis=0), mask=offsets < n)


@triton.jit
def sort_rows(x_ptr, y_ptr, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * columns + offsets, mask=offsets < columns, other=float("inf"))
    tl.store(y_ptr + row * columns + offsets, tl.sort(x), mask=offsets < columns)


@dataclass
class Compiled:
    ptx: str
    name: str
    metadata: object
    ctas: int

    @property
    def threads(self):
        return self.metadata.num_warps * 32

    @property
    def scratch(self):
        """Bytes of scratch memory that each CTA needs."""
        return self.metadata.global_scratch_size


def compile_kernel(kernel, signature, constants=(), sm=90, aligned=True, **options):
    """signature maps argument names to Triton's types, in order. Pointers and, if `aligned`,
    integers are promised to be multiples of 16, as Triton's launcher finds out by looking."""
    constants = dict(constants)
    types = {name: signature.get(name, "constexpr") for name in kernel.arg_names}
    attributes = {}
    for position, (_, kind) in enumerate(types.items()):
        if kind.startswith("*") or (aligned and kind == "i32"):
            attributes[(position,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, types, constants, attributes)
    compiled = triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options)
    return Compiled(
        compiled.asm["ptx"], compiled.metadata.name, compiled.metadata, compiled.metadata.num_ctas
    )


SWIZZLE_BYTES = 0, 32, 64, 128


def descriptor_arguments(tensor, description, make_map):
    """The arguments that stand for one tensor descriptor: the map, then shape and strides."""
    tensor_map = make_map(
        tensor,
        box=description["block_size"][::-1],
        swizzle=SWIZZLE_BYTES[description["swizzle"]],
        l2_promotion=128,
    )
    shape = [ctypes.c_int32(size) for size in tensor.shape]
    return [tensor_map, *shape, *(ctypes.c_int64(stride) for stride in tensor.stride())]


def scratch_arguments(compiled, grid):
    """The two last parameters of every kernel: scratch memory for it, and for a profiler."""
    size = grid[0] * grid[1] * grid[2] * compiled.ctas * compiled.scratch
    if not size:
        return [ctypes.c_uint64(0), ctypes.c_uint64(0)]
    align = compiled.metadata.global_scratch_align
    scratch = torch.zeros(size + align, dtype=torch.uint8)
    first = -scratch.data_ptr() % align
    return [scratch[first : first + size], ctypes.c_uint64(0)]


BF16_DESCRIPTOR = "tensordesc<bf16[{},{}]>"
FP8_DESCRIPTOR = "tensordesc<fp8e4nv[{},{}]>"


def matmul_bf16(persistent=False, BM=128, BN=128, BK=64, ctas=4, **options):
    signature = {
        "a": BF16_DESCRIPTOR.format(BM, BK),
        "b": BF16_DESCRIPTOR.format(BN, BK),
        "c": BF16_DESCRIPTOR.format(BM, BN),
        **dict.fromkeys("MNK", "i32"),
    }
    constants = {"BM": BM, "BN": BN, "BK": BK}
    if persistent:
        constants["CTAS"] = ctas
    kernel = matmul_persistent if persistent else matmul_descriptors
    options = {"num_warps": 8, "num_stages": 3} | options
    return compile_kernel(kernel, signature, constants, **options)


def matmul_fp8(BM=128, BN=128, BK=128, warps=4):
    signature = {
        "a": FP8_DESCRIPTOR.format(BM, BK),
        "b": FP8_DESCRIPTOR.format(BN, BK),
        "c": BF16_DESCRIPTOR.format(BM, BN),
        **dict.fromkeys("MNK", "i32"),
    }
    constants = {"BM": BM, "BN": BN, "BK": BK}
    return compile_kernel(matmul_descriptors, signature, constants, num_warps=warps, num_stages=3)


def matmul_device(BM=64, BN=128, BK=64):
    signature = {
        **dict.fromkeys(("a_ptr", "b_ptr", "c_ptr"), "*bf16"),
        **dict.fromkeys("MNK", "i32"),
    }
    constants = {"BM": BM, "BN": BN, "BK": BK}
    return compile_kernel(
        matmul_device_descriptors, signature, constants, num_warps=4, num_stages=3
    )


def matmul_ampere(BM=64, BN=64, BK=32, sm=80, aligned=True):
    signature = {
        **dict.fromkeys(("a_ptr", "b_ptr", "c_ptr"), "*bf16"),
        **dict.fromkeys("MNK", "i32"),
    }
    constants = {"BM": BM, "BN": BN, "BK": BK}
    return compile_kernel(
        matmul_pointers, signature, constants, sm=sm, aligned=aligned, num_warps=4, num_stages=3
    )


def softmax_rows(BLOCK=1024, aligned=True):
    signature = {"x_ptr": "*fp32", "y_ptr": "*fp32", "row_stride": "i32", "columns": "i32"}
    return compile_kernel(softmax, signature, {"BLOCK": BLOCK}, aligned=aligned, num_warps=4)


def layer_norm_rows(BLOCK=512):
    signature = {
        "x_ptr": "*fp16", "w_ptr": "*fp32", "b_ptr": "*fp32", "y_ptr": "*fp16",
        "mean_ptr": "*fp32", "rstd_ptr": "*fp32", "columns": "i32", "eps": "fp32",
    }  # fmt: skip
    return compile_kernel(layer_norm, signature, {"BLOCK": BLOCK}, aligned=False, num_warps=4)


def flash_attention(BM=128, BN=64, D=64, warps=8):
    signature = {
        "q": BF16_DESCRIPTOR.format(BM, D),
        "k": BF16_DESCRIPTOR.format(BN, D),
        "v": BF16_DESCRIPTOR.format(BN, D),
        "o": BF16_DESCRIPTOR.format(BM, D),
        "lse_ptr": "*fp32", "scale": "fp32", "length": "i32",
    }  # fmt: skip
    constants = {"BM": BM, "BN": BN, "D": D}
    return compile_kernel(attention, signature, constants, num_warps=warps, num_stages=2)


def histogram(BLOCK=1024, BINS=128):
    signature = {"x_ptr": "*i32", "counts_ptr": "*i32", "ends_ptr": "*i32", "n": "i32"}
    constants = {"BLOCK": BLOCK, "BINS": BINS}
    return compile_kernel(histogram_scan, signature, constants, aligned=False, num_warps=4)


def sort(BLOCK=256):
    signature = {"x_ptr": "*fp32", "y_ptr": "*fp32", "columns": "i32"}
    return compile_kernel(sort_rows, signature, {"BLOCK": BLOCK}, aligned=False, num_warps=4)


KERNELS = {
    "matmul_bf16": matmul_bf16,
    "matmul_persistent": lambda: matmul_bf16(persistent=True),
    "matmul_two_ctas": lambda: matmul_bf16(num_ctas=2, num_warps=4),
    "matmul_fp8": matmul_fp8,
    "matmul_device": matmul_device,
    "matmul_ampere": matmul_ampere,
    "matmul_hopper": lambda: matmul_ampere(sm=90),
    "matmul_unaligned": lambda: matmul_ampere(sm=90, aligned=False),
    "softmax": softmax_rows,
    "softmax_unaligned": lambda: softmax_rows(aligned=False),
    "layer_norm": layer_norm_rows,
    "attention": flash_attention,
    "histogram": histogram,
    "sort": sort,
}
