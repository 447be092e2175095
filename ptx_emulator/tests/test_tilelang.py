"""Kernels that TileLang compiled, against torch."""

import pytest
import torch

from ptx_emulator import TensorMap

from .case import assert_near, compiled_once, poisoned, schedules, uniform

pytest.importorskip("tilelang", reason="tilelang is not installed: pip install .[ptx]")

from . import tilelang_kernels

compiled = compiled_once(tilelang_kernels.KERNELS)


def launch(made, tensors, **options):
    """Launches a kernel as TileLang's host program would; tensors go by name."""
    kernel, module = made
    args = [
        tensor_map(kernel.maps[name], tensors) if name in kernel.maps else tensors[name]
        for name in kernel.parameters
    ]
    return module.launch(
        kernel.name,
        grid=kernel.grid,
        block=kernel.block,
        shared=kernel.shared,
        args=args,
        **options,
    )


def tensor_map(call, tensors):
    assert call.interleave == call.fill == 0
    return TensorMap(
        tensors[call.tensor],
        box=call.box,
        dims=call.dims,
        strides=call.strides,
        element_strides=call.element_strides,
        swizzle=(0, 32, 64, 128)[call.swizzle],
        l2_promotion=(0, 64, 128, 256)[call.l2_promotion],
    )


def generator(seed):
    return torch.Generator().manual_seed(seed)


@schedules
@pytest.mark.parametrize(
    "name, m, n, k, dtype",
    [
        ("gemm_bf16", 256, 384, 512, torch.bfloat16),
        ("gemm_fp8", 256, 256, 512, torch.float8_e4m3fn),
        ("gemm_ampere", 128, 128, 256, torch.bfloat16),
    ],
)
def test_gemm(compiled, name, m, n, k, dtype, schedule):
    a, b = uniform(generator(1), m, k, dtype=dtype), uniform(generator(2), n, k, dtype=dtype)
    c = poisoned(m, n, dtype=torch.bfloat16)
    launch(compiled(name), {"A": a, "B": b, "C": c}, **schedule)
    assert_near(c, a.double() @ b.double().T, 2**-8)


@pytest.mark.parametrize("mode", ["eager", "late"])
def test_gemm_fp8_that_sums_coarsely(compiled, mode):
    m, n, k = 256, 256, 512
    a = uniform(generator(1), m, k, dtype=torch.float8_e4m3fn)
    b = uniform(generator(2), n, k, dtype=torch.float8_e4m3fn)
    c = poisoned(m, n, dtype=torch.bfloat16)
    launch(compiled("gemm_fp8"), {"A": a, "B": b, "C": c}, coarse_fp8=True, mode=mode)
    assert_near(c, a.double() @ b.double().T, 2**-8)


@schedules
def test_attention(compiled, schedule):
    heads, length, d = 2, 256, 64
    q, k, v = (uniform(generator(i), heads, length, d) for i in range(3))
    o = poisoned(heads, length, d, dtype=torch.bfloat16)
    launch(compiled("attention"), {"Q": q, "K": k, "V": v, "O": o}, **schedule)
    q, k, v = q.double(), k.double(), v.double()
    expected = (q @ k.transpose(1, 2) * d**-0.5).softmax(-1) @ v
    assert_near(o, expected, 2**-7)


def test_warp_specialised_ones_are(compiled):
    for name in ("gemm_bf16", "gemm_fp8", "attention"):
        kernel, _ = compiled(name)
        assert "setmaxnreg" in kernel.ptx and "wgmma" in kernel.ptx
