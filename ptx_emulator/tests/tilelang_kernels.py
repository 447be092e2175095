"""Kernels in TileLang, the PTX that TileLang and nvcc make of them without a GPU, and how they are
to be launched, read off TileLang's own host program."""

from dataclasses import dataclass, field

import tilelang
import tilelang.language as T

from .compile import ptx_of

FP8 = "float8_e4m3fn"


def gemm(M, N, K, BM, BN, BK, dtype, stages=3, threads=256):
    """C = A B^T, warp-specialised by TileLang itself."""

    @T.prim_func
    def main(
        A: T.Tensor((M, K), dtype), B: T.Tensor((N, K), dtype), C: T.Tensor((M, N), "bfloat16")
    ):
        with T.Kernel(T.ceildiv(N, BN), T.ceildiv(M, BM), threads=threads) as (bx, by):
            a = T.alloc_shared((BM, BK), dtype)
            b = T.alloc_shared((BN, BK), dtype)
            out = T.alloc_shared((BM, BN), "bfloat16")
            c = T.alloc_fragment((BM, BN), "float32")
            T.clear(c)
            for k in T.Pipelined(T.ceildiv(K, BK), num_stages=stages):
                T.copy(A[by * BM, k * BK], a)
                T.copy(B[bx * BN, k * BK], b)
                T.gemm(a, b, c, transpose_B=True)
            T.copy(c, out)
            T.copy(out, C[by * BM, bx * BN])

    return main


def attention(heads, length, D, BM, BN, stages=2, threads=256):
    """Softmax(Q K^T / sqrt(D)) V for each head, warp-specialised by TileLang itself."""
    scale = D**-0.5 * 1.4426950408889634

    @T.prim_func
    def main(
        Q: T.Tensor((heads, length, D), "bfloat16"),
        K: T.Tensor((heads, length, D), "bfloat16"),
        V: T.Tensor((heads, length, D), "bfloat16"),
        O: T.Tensor((heads, length, D), "bfloat16"),  # noqa: E741
    ):
        with T.Kernel(T.ceildiv(length, BM), heads, threads=threads) as (bx, by):
            q = T.alloc_shared((BM, D), "bfloat16")
            k = T.alloc_shared((BN, D), "bfloat16")
            v = T.alloc_shared((BN, D), "bfloat16")
            out = T.alloc_shared((BM, D), "bfloat16")
            score = T.alloc_fragment((BM, BN), "float32")
            weight = T.alloc_fragment((BM, BN), "bfloat16")
            total = T.alloc_fragment((BM, D), "float32")
            largest = T.alloc_fragment((BM,), "float32")
            before = T.alloc_fragment((BM,), "float32")
            shrink = T.alloc_fragment((BM,), "float32")
            row_sum = T.alloc_fragment((BM,), "float32")
            mass = T.alloc_fragment((BM,), "float32")
            T.copy(Q[by, bx * BM : (bx + 1) * BM, :], q)
            T.fill(total, 0)
            T.fill(mass, 0)
            T.fill(largest, -T.infinity("float32"))
            for step in T.Pipelined(T.ceildiv(length, BN), num_stages=stages):
                T.copy(K[by, step * BN : (step + 1) * BN, :], k)
                T.clear(score)
                T.gemm(q, k, score, transpose_B=True, policy=T.GemmWarpPolicy.FullRow)
                T.copy(V[by, step * BN : (step + 1) * BN, :], v)
                T.copy(largest, before)
                T.reduce_max(score, largest, dim=1, clear=False)
                for i in T.Parallel(BM):
                    shrink[i] = T.exp2(before[i] * scale - largest[i] * scale)
                for i, j in T.Parallel(BM, D):
                    total[i, j] *= shrink[i]
                for i, j in T.Parallel(BM, BN):
                    score[i, j] = T.exp2(score[i, j] * scale - largest[i] * scale)
                T.copy(score, weight)
                T.gemm(weight, v, total, policy=T.GemmWarpPolicy.FullRow)
                T.reduce_sum(score, row_sum, dim=1)
                for i in T.Parallel(BM):
                    mass[i] = mass[i] * shrink[i] + row_sum[i]
            for i, j in T.Parallel(BM, D):
                total[i, j] /= mass[i]
            T.copy(total, out)
            T.copy(out, O[by, bx * BM : (bx + 1) * BM, :])

    return main


@dataclass
class TensorMapCall:
    """One call of cuTensorMapEncodeTiled in TileLang's host program."""

    tensor: str
    dtype: int
    dims: list
    strides: list  # in bytes, of all dimensions but the first
    box: list
    element_strides: list
    interleave: int
    swizzle: int
    l2_promotion: int
    fill: int


@dataclass
class Compiled:
    ptx: str
    name: str
    source: str
    grid: tuple
    block: tuple
    shared: int
    parameters: list
    maps: dict = field(default_factory=dict)


def _tensor_map(arguments):
    name = str(arguments[0]).removesuffix("_desc")
    dtype, rank = int(arguments[1]), int(arguments[2])
    rest = [int(value) for value in arguments[4:]]
    return TensorMapCall(
        name,
        dtype,
        rest[:rank],
        rest[rank + 1 : 2 * rank],
        rest[2 * rank : 3 * rank],
        rest[3 * rank : 4 * rank],
        *rest[4 * rank :],
    )


def _calls(module):
    """The arguments of all packed calls of a host program, by the name of the function called."""
    from tilelang import tvm

    found = []

    def visit(node):
        arguments = getattr(node, "args", None)
        if arguments and isinstance(arguments[0], tvm.tirx.StringImm):
            found.append((arguments[0].value, list(arguments[1:])))

    for function in module.functions.values():
        tvm.tirx.stmt_functor.post_order_visit(function.body, visit)
    return found


def compile_kernel(function, arch="sm_90a", config=None):
    target = tilelang.backend.target.determine_target(
        {"kind": "cuda", "arch": arch}, return_object=True
    )
    with tilelang.transform.PassContext(opt_level=3, config=config or {}), target:
        lowered = tilelang.lower(function, target=target, enable_device_compile=False)
    ((_, device),) = lowered.device_mod.functions_items()
    name = str(device.attrs["global_symbol"])
    extent = {str(axis): int(size) for axis, size in device.attrs["thread_extent"].items()}
    calls = _calls(lowered.host_mod)
    maps = {
        str(arguments[0]): _tensor_map(arguments)
        for called, arguments in calls
        if called == "__tvm_tensormap_create_tiled"
    }
    include = tilelang.env.TILELANG_TEMPLATE_PATH, tilelang.env.CUTLASS_INCLUDE_DIR
    return Compiled(
        ptx_of(lowered.kernel_source, arch, tuple(f"-I{path}" for path in include)),
        name,
        lowered.kernel_source,
        tuple(extent.get(f"blockIdx.{axis}", 1) for axis in "xyz"),
        tuple(extent.get(f"threadIdx.{axis}", 1) for axis in "xyz"),
        int(device.attrs.get("dyn_shared_memory_buf", 0)),
        [str(parameter.name) for parameter in device.params],
        maps,
    )


KERNELS = {
    "gemm_bf16": lambda: compile_kernel(gemm(256, 384, 512, 128, 128, 64, "bfloat16")),
    "gemm_fp8": lambda: compile_kernel(gemm(256, 256, 512, 128, 128, 128, FP8)),
    "attention": lambda: compile_kernel(attention(2, 256, 64, 128, 64)),
    "gemm_ampere": lambda: compile_kernel(
        gemm(128, 128, 256, 64, 64, 32, "bfloat16", threads=128), arch="sm_80"
    ),
}
