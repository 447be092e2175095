"""What clang makes of HIP with the headers of toolchain/hip: instructions and refusals."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("tilelang", reason="tilelang is not installed: pip install .[tilelang]")

from tilelang_kernels import mqa_logits
from tilelang_kernels.toolchain import lowering, objects
from tilelang_kernels.toolchain.compilers import NoCompiler, find_clang
from tilelang_kernels.toolchain.targets import TARGETS

try:
    CLANG = find_clang()
except NoCompiler as error:
    pytest.skip(str(error), allow_module_level=True)

each_target = pytest.mark.parametrize("target", ["gfx942", "gfx950"])
RUNTIME, BF16 = "hip/hip_runtime.h", "hip/hip_bf16.h"
FP16, FP8 = "hip/hip_fp16.h", "hip/amd_detail/amd_hip_fp8.h"


@pytest.mark.parametrize(
    "target, dtype, matrix",
    [
        ("gfx942", "bfloat16", {"v_mfma_f32_16x16x16_bf16": 64}),
        ("gfx942", "float8_e4m3fn", {"v_mfma_f32_16x16x32_fp8_fp8": 32}),
        ("gfx950", "bfloat16", {"v_mfma_f32_16x16x32_bf16": 32}),
        ("gfx950", "float8_e4m3fn", {"v_mfma_f32_16x16x32_fp8_fp8": 32}),
    ],
)
def test_mqa_logits(target, dtype, matrix):
    """A wave computes 32 keys by 64 columns of heads, of 128 dims, by products of 16 by 16 by 16 or
    32, for each tile of its strip. 128 registers let four waves share a SIMD's 512."""
    configuration = {"heads": 64, "dim": 128, "dtype": dtype, "out_dtype": "bfloat16"}
    function = mqa_logits.kernel(TARGETS[target], **configuration)
    made = objects.compile_object(lowering.lower(function, TARGETS[target]))
    assert made.matrix == matrix
    assert made.spills == 0 and made.registers <= 128
    # Of the metadata, in MessagePack: a key, and a number below 128 as one byte.
    assert b".wavefront_size\x40" in made.code
    assert b".private_segment_fixed_size\x00" in made.code


def compile_kernels(folder, target: str, header: str, kernels: list[tuple[str, str]]) -> list:
    """Instructions of kernels of two waves, each a body and its parameters."""
    source, output = folder / "kernel.hip", folder / "kernel.s"
    lines = [f"#include <{header}>"]
    for which, (body, parameters) in enumerate(kernels):
        lines.append(
            f'extern "C" __global__ void __launch_bounds__(128) kernel{which}({parameters})'
        )
        lines.append(f"{{ int i = threadIdx.x; {body} }}")
    source.write_text("\n".join(lines) + "\n")
    flags = [f"--offload-arch={target}", "-x", "hip", "--cuda-device-only", "-nogpuinc"]
    flags += ["-nogpulib", "--no-gpu-bundle-output", "-std=c++17", "-O3", "-Wall", "-Werror"]
    flags += ["-Wno-unused-variable", f"-I{objects.HIP_HEADERS}"]
    objects.run(CLANG, *flags, "-S", str(source), "-o", str(output))
    code = re.split(r"\nkernel\d+:", output.read_text())[1:]
    assert len(code) == len(kernels)
    return [re.findall(r"^\t([a-z]\w+)", text.split("s_endpgm")[0], re.MULTILINE) for text in code]


def assembly(
    folder, target: str, header: str, body: str, parameters: str = "float* p"
) -> list[str]:
    return compile_kernels(folder, target, header, [(body, parameters)])[0]


def count(instructions: list[str], pattern: str) -> int:
    return sum(bool(re.fullmatch(pattern, name)) for name in instructions)


# Of a kernel: body, parameters, an instruction, and how often it stands in the code.
INSTRUCTIONS = [
    # geometry: block counts and sizes are read, never computed
    ("p[0] = gridDim.y + blockDim.x;", "int* p", "s_load_dword", 2),
    ("p[0] = gridDim.y + blockDim.x;", "int* p", "v_rcp.*", 0),
    # vector types: one instruction moves one
    ("p[i] = p[i + 64];", "float4* p", "global_load_dwordx4", 1),
    ("p[i] = p[i + 64];", "float2* p", "global_load_dwordx2", 1),
    ("p[i] = p[i + 64];", "uchar4* p", "global_load_dword", 1),
    ("p[i] = make_uint4(1, 2, 3, i);", "uint4* p", "global_store_dwordx4", 1),
    ("p[i] = p[i + 64];", "ulonglong4* p", "global_load_dwordx4", 2),
    # synchronisation
    (
        "__shared__ int s[128]; s[i] = p[i]; __syncthreads(); p[i] = s[127 - i];",
        "int* p",
        "s_barrier",
        1,
    ),
    # votes and shuffles
    ("p[i] = __shfl(p[i], 3);", "float* p", "ds_bpermute_b32", 1),
    ("p[i] = __shfl_xor(p[i], 16);", "float* p", "ds_bpermute_b32", 1),
    ("p[i] = __shfl_up(p[i], 1);", "unsigned* p", "ds_bpermute_b32", 1),
    ("p[i] = __shfl_down(p[i], 1, 32);", "double* p", "ds_bpermute_b32", 2),
    ("p[i] = __ballot(p[i] > 7);", "unsigned long long* p", "v_cmp_lt_u64.*", 1),
    # atomics
    ("atomicAdd(p, i);", "int* p", "global_atomic_add", 1),
    ("atomicAdd(p, 2.0f);", "float* p", "global_atomic_add_f32", 1),
    ("p[i + 1] = atomicAdd(p + i, 2ull);", "unsigned long long* p", "global_atomic_add_x2", 1),
    ("atomicMax(p + i, 3);", "int* p", "global_atomic_smax", 1),
    ("atomicMin(p + i, 3u);", "unsigned* p", "global_atomic_umin", 1),
    ("atomicOr(p + i, 4u);", "unsigned* p", "global_atomic_or", 1),
    ("__shared__ int s[128]; atomicAdd(s + p[i], 1); p[i] = s[i];", "int* p", "ds_add_u32", 1),
    # maths
    ("p[i] = exp2f(p[i]);", "float* p", "v_exp_f32.*", 1),
    ("p[i] = exp2f(p[i]);", "float* p", "v_ldexp_f32.*", 1),
    ("p[i] = __expf(p[i]);", "float* p", "v_exp_f32.*", 1),
    ("p[i] = __expf(p[i]);", "float* p", "v_ldexp_f32.*", 0),
    ("p[i] = __logf(p[i]);", "float* p", "v_log_f32.*", 1),
    ("p[i] = __log2f(p[i]);", "float* p", "v_log_f32.*", 1),
    ("p[i] = nearbyintf(p[i]);", "float* p", "v_rndne_f32.*", 1),
    ("p[i] = ceilf(floorf(p[i]) / 3);", "float* p", "v_(ceil|floor)_f32.*", 2),
    ("p[i] = max(p[i], p[i + 1]);", "float* p", "v_max_f32.*", 3),
    ("p[i] = max(p[i], 0);", "int* p", "v_max_i32.*", 1),
    ("p[i] = __popc(p[i]);", "unsigned* p", "v_bcnt_u32_b32.*", 1),
    ("p[i] = __clz(p[i]);", "int* p", "v_ffbh_u32.*", 1),
    # printing is compiled away
    ('printf("%d %f", blockIdx.x, p[i]);', "float* p", ".*", 0),
]


@each_target
def test_instructions(tmp_path, target):
    kernels = [(body, parameters) for body, parameters, _, _ in INSTRUCTIONS]
    made = compile_kernels(tmp_path, target, RUNTIME, kernels)
    found = [(*row[:3], count(code, row[2])) for row, code in zip(INSTRUCTIONS, made, strict=True)]
    assert found == INSTRUCTIONS


@each_target
def test_bf16_is_rounded_in_integers(tmp_path, target):
    kernels = [(f"p[i] = p[i] {op} p[i + 1];", "hip_bfloat16* p") for op in "+-*/"]
    for made in compile_kernels(tmp_path, target, BF16, kernels):
        assert count(made, "v_cvt_pk_bf16_f32.*") == 0
        assert count(made, "v_bfe_u32|v_add3_u32") == 2  # the lowest bit that stays, and it added
        assert count(made, "global_store_short.*") == 1 and count(made, "s_cbranch.*") == 0


IMPLICIT = [
    "hip_bfloat16 b = p[i];",
    "auto take = [](hip_bfloat16) {}; take(p[i]);",
    "auto give = [](float x) -> hip_bfloat16 { return x; }; give(p[i]);",
]


@each_target
@pytest.mark.parametrize("body", IMPLICIT)
def test_implicit_rounding_to_bf16_is_refused(tmp_path, target, body):
    with pytest.raises(RuntimeError, match=r"no viable conversion from .*float|no matching"):
        assembly(tmp_path, target, BF16, body)
    explicit = re.sub(r"= p\[i\]", "= hip_bfloat16(p[i])", body)
    explicit = explicit.replace("take(p[i])", "take(hip_bfloat16(p[i]))")
    assembly(tmp_path, target, BF16, explicit.replace("return x;", "return hip_bfloat16(x);"))


@each_target
def test_half_pairs(tmp_path, target):
    made = assembly(tmp_path, target, FP16, "p[i].x = p[i].x + p[i].y;", "half2* p")
    assert count(made, "v_add_f16.*") == 1


FORMATS = {"gfx942": "_fnuz", "gfx950": ""}


@each_target
@pytest.mark.parametrize("format, letters", [("e4m3", "fp8"), ("e5m2", "bf8")])
def test_fp8_conversions(tmp_path, target, format, letters):
    name = f"__hip_fp8_{format}{FORMATS[target]}"
    rounded = assembly(tmp_path, target, FP8, f"o[i] = {name}(p[i]);", f"{name}* o, float* p")
    assert count(rounded, f"v_cvt_pk_{letters}_f32.*") == 1
    assert count(rounded, "v_med3_f32") == 1  # saturates
    assert count(rounded, "v_cmp_class_f32.*|v_cmp_.*_f32.*") == 1  # not a NaN
    widened = assembly(tmp_path, target, FP8, "o[i] = p[i];", f"float* o, {name}* p")
    assert count(widened, f"v_cvt_f32_{letters}.*") == 1


@each_target
def test_fp8_formats_of_other_targets_do_not_exist(tmp_path, target):
    other = {"gfx942": "", "gfx950": "_fnuz"}[target]
    with pytest.raises(RuntimeError, match=f"unknown type name '__hip_fp8_e4m3{other}'"):
        assembly(tmp_path, target, FP8, "", f"__hip_fp8_e4m3{other}* p")


@each_target
@pytest.mark.parametrize(
    "body",
    [
        "p[i] = __shfl(short(i), 1);",  # narrower than a lane's register
        "p[i] = tanhf(p[i]);",  # in ROCm's bitcode only
        "atomicOr(p, p[i]);",
    ],
)
def test_what_the_headers_lack_is_an_error(tmp_path, target, body):
    with pytest.raises(RuntimeError, match="error: "):
        assembly(tmp_path, target, RUNTIME, body)
