"""float8_e4m3fn codes in TileLang kernels: every code, all kinds of floats, in the emulator."""

import math

import pytest
import torch

from dsa_kernels.reference.quantize import to_fp8

pytest.importorskip("tilelang", reason="tilelang is not installed: pip install .[tilelang]")

import tilelang.language as T

from tilelang_kernels.pieces import fp8
from tilelang_kernels.toolchain.emulation import Emulated
from tilelang_kernels.toolchain.targets import TARGETS

EMULATED_TARGETS = {name: TARGETS[name] for name in ("sm_80", "sm_90a")}
each_target = pytest.mark.parametrize("target", EMULATED_TARGETS.values(), ids=EMULATED_TARGETS)
CODES = torch.arange(256).to(torch.uint8)


def mapped(target, source: str, result: str, function):
    """A kernel of `function` on each element."""
    size = T.dynamic("size")

    @T.prim_func
    def kernel(x: T.Tensor((size,), source), y: T.Tensor((size,), result)):
        with T.Kernel(T.ceildiv(size, 512), threads=128) as block:
            for i in T.Parallel(512):
                if block * 512 + i < size:
                    y[block * 512 + i] = function(x[block * 512 + i])

    return kernel


def values(target):
    return mapped(target, fp8.code_type(target), "float32", lambda x: fp8.code_value(target, x))


def codes(target):
    return mapped(target, "float32", fp8.code_type(target), lambda x: fp8.code_of(target, x))


def fnuz_codes(target):
    return mapped(target, "uint8", "uint8", fp8.fnuz_code)


def run(target, kernel, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    y = torch.empty(x.shape, dtype=dtype)
    Emulated(target)(kernel, {}, x, y)
    return y


@each_target
def test_every_code_has_its_value(target):
    got = run(target, values, CODES.view(fp8.torch_code_type(target)), torch.float32)
    expected = CODES.view(torch.float8_e4m3fn).float()
    torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
    assert got.signbit()[0x80] and not got.signbit()[0]


def hostile_floats() -> torch.Tensor:
    finite = CODES.view(torch.float8_e4m3fn).float()
    finite = finite[finite.isfinite()].sort().values
    ties = (finite[1:] + finite[:-1]) / 2
    near = [t.nextafter(torch.tensor(s * math.inf)) for t in (finite, ties) for s in (1, -1)]
    special = torch.tensor(
        [0.0, -0.0, math.inf, -math.inf, math.nan, -math.nan, 1e-45, -1e-45, 1e-39, 3e38, 464, -480]
    )
    nans = torch.tensor([0x7F800001, -1, 0x7FFFFFFF, -0x7FFFFF], dtype=torch.int32)
    bits = torch.randint(-(2**31), 2**31, (256,), generator=torch.Generator().manual_seed(0))
    spread = (
        torch.randn(256, generator=torch.Generator().manual_seed(1))
        * 2.0 ** torch.arange(-12, 12).repeat_interleave(11)[:256]
    )
    anything = torch.cat([nans, bits.int()]).view(torch.float32)
    return torch.cat([finite, ties, *near, special, anything, spread])


@each_target
def test_floats_have_the_code_of_the_contract(target):
    x = hostile_floats()
    got = run(target, codes, x, fp8.torch_code_type(target)).view(torch.uint8)
    wrong = got != to_fp8(x).view(torch.uint8)
    assert not wrong.any(), (x[wrong], got[wrong], to_fp8(x[wrong]).view(torch.uint8))


def test_fnuz_codes_are_half_the_value():
    got = run(EMULATED_TARGETS["sm_80"], fnuz_codes, CODES, torch.uint8)
    value = got.view(torch.float8_e4m3fnuz).float()
    expected = CODES.view(torch.float8_e4m3fn).float() / 2
    torch.testing.assert_close(value, expected, rtol=0, atol=0, equal_nan=True)
