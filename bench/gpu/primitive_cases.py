"""Inputs of tests/cuda/primitives.cu and what is right, by numpy and torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from bench.gpu.primitives import Map, Out, Primitive

CANONICAL_NAN = {np.float32: 0x7FFFFFFF, np.uint16: 0x7FFF}
ULP = 2.0**-24  # half a unit in the last place of fp32, relative


def cases() -> list[Primitive]:
    found = [_mbarrier(), *_tensor_copies(), *_products(), _zero_fill(), _cluster()]
    return [*found, *_stmatrix(), _max_nan(), _from_e4m3(), _to_e4m3(), _exp2(), _log2()]


def _mbarrier() -> Primitive:
    data = np.random.default_rng(0).integers(0, 256, 512, np.uint8)
    expected = np.concatenate([np.array([0, 1, 0, 1], np.uint32), data.view(np.uint32)])
    return Primitive(
        "mbarrier transaction counts",
        "mbarrier_transactions",
        (data, Out((132,), np.uint32)),
        block=32,
        expected=(expected,),
    )


def swizzled(rows: np.ndarray, swizzle: int) -> np.ndarray:
    """Bytes [rows, span] as they lie in shared memory: within each 128 bytes x 8 of addresses,
    the chunk's number is xored with that of its line of 128 bytes, as far as the swizzle goes."""
    flat = rows.reshape(-1)
    offset = np.arange(flat.size)
    to = offset ^ (offset // 128 % (swizzle // 16) * 16 if swizzle else 0)
    out = np.empty_like(flat)
    out[to] = flat
    return out


def _box(array: np.ndarray, start: tuple, box: tuple) -> np.ndarray:
    """What a copy of `box` at `start`, both innermost first, brings: zeros out of bounds."""
    out = np.zeros(box[::-1], array.dtype)
    inside, of_array = [], []
    for first, length, size in zip(start[::-1], box[::-1], array.shape, strict=True):
        low, high = max(first, 0), min(first + length, size)
        inside.append(slice(low - first, high - first))
        of_array.append(slice(low, high))
    out[tuple(inside)] = array[tuple(of_array)]
    return out


def _tensor_copies() -> Iterator[Primitive]:
    for rank in (2, 3, 4):
        for swizzle in (0, 32, 64, 128):
            span = swizzle or 64
            dims = (span + 48, 11, 5, 4)[:rank]
            box = (span, 8, 3, 2)[:rank]
            pitch = span + 64  # bytes between rows, more than a row has
            rng = np.random.default_rng(rank * 1000 + swizzle)
            memory = rng.integers(1, 256, (*dims[:0:-1], pitch), np.uint8)
            strides = tuple(int(s) for s in memory.strides[-2::-1])
            # Rows before the first one, and behind the last; columns behind the last.
            for where, start in (("low", (16, -2, -1, -1)), ("high", (80, 6, 3, 3))):
                start = start[:rank]
                right = _box(memory[..., : dims[0]], start, box)
                right = swizzled(right.reshape(-1, span), swizzle).view(np.uint32)
                coordinates = [*start, 0, 0][:4]
                yield Primitive(
                    f"TMA load {rank}D, swizzle {swizzle}, out of bounds {where}",
                    f"tma_load_{rank}d",
                    (
                        Map(memory, box, dims, strides, swizzle),
                        right.nbytes,
                        *coordinates,
                        Out(right.shape, np.uint32),
                    ),
                    block=64,
                    expected=(right,),
                )


def _bits(x: torch.Tensor) -> np.ndarray:
    return x.contiguous().view(torch.uint8).numpy()


def _near(a: torch.Tensor, b: torch.Tensor, relative: float):
    """The error of fp32 sums of a b', against fp64, relative to the sums of absolute products."""
    right = (a.double() @ b.double().T).numpy()
    scale = (a.double().abs() @ b.double().abs().T).numpy()

    def error(outputs) -> str:
        off = (np.abs(outputs[0].astype(np.float64) - right) / scale).max()
        assert off <= relative, f"{off:.2e} of the sum of absolute products, more than {relative}"
        return f"error against fp64 {off:.2e} of the sum of absolute products"

    return error


def _operands(dtype: torch.dtype, k: int, exact: bool) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(k + exact)
    if exact:
        a, b = (torch.randint(-4, 5, (64, k), generator=g) for _ in range(2))
    else:
        a, b = (torch.randn(64, k, generator=g) for _ in range(2))
    return a.to(dtype), b.to(dtype)


def _product(name, kernel, a, b, a_stored, b_stored, exact, relative, **more) -> Primitive:
    right = (a.double() @ b.double().T).float().numpy()
    return Primitive(
        f"{name}, {'exact integers' if exact else 'random values'}",
        kernel,
        (_bits(a_stored), _bits(b_stored), Out((64, 64), np.float32)),
        block=128,
        expected=(right,) if exact else None,
        error=None if exact else _near(a, b, relative),
        **more,
    )


def _products() -> Iterator[Primitive]:
    for exact in (True, False):
        a, b = _operands(torch.float8_e4m3fn, 128, exact)
        # 14 bits of each of 4 sums of 32 products, and as much again for the terms' alignment.
        yield _product("wgmma e4m3 SS", "wgmma_e4m3_ss", a, b, a, b, exact, 2.0**-10, fp8=not exact)
    for name, kernel, a_major, b_major in (
        ("SS, A and B K-major", "ss_k_k", "k", "k"),
        ("SS, B MN-major", "ss_k_mn", "k", "mn"),
        ("SS, A MN-major", "ss_mn_k", "mn", "k"),
        ("SS, A and B MN-major", "ss_mn_mn", "mn", "mn"),
        ("RS, B K-major", "rs_k", "k", "k"),
        ("RS, B MN-major", "rs_mn", "k", "mn"),
    ):
        for exact in (True, False):
            a, b = _operands(torch.bfloat16, 64, exact)
            stored = (x if m == "k" else x.T for x, m in ((a, a_major), (b, b_major)))
            yield _product(
                f"wgmma bf16 {name}", f"wgmma_bf16_{kernel}", a, b, *stored, exact, 64 * 2 * ULP
            )


def _zero_fill() -> Primitive:
    data = np.random.default_rng(1).integers(1, 256, (128, 16), np.uint8)
    sizes = (np.arange(128) % 17).astype(np.int32)
    right = np.where(np.arange(16) < sizes[:, None], data, 0).astype(np.uint8)
    return Primitive(
        "cp.async zero fill",
        "cp_async_zero_fill",
        (data, sizes, Out((512,), np.uint32)),
        block=128,
        expected=(right,),
    )


def _cluster() -> Primitive:
    values = np.random.default_rng(2).integers(0, 1 << 30, (2, 64)).astype(np.uint32)
    other = values[::-1]
    right = np.stack([other, other + 1, other[:, ::-1] + 2], 1).astype(np.uint32)
    return Primitive(
        "st.async and DSMEM, cluster of 2",
        "cluster_exchange",
        (values, Out(right.shape, np.uint32)),
        block=64,
        grid=2,
        cluster=2,
        expected=(right,),
    )


def _stmatrix() -> Iterator[Primitive]:
    words = np.random.default_rng(3).integers(0, 1 << 32, (32, 4), np.uint32)
    # Lane l holds the elements (l / 4, 2 (l % 4)) and the one behind it of each matrix.
    matrices = words.view(np.uint16).reshape(8, 4, 4, 2).transpose(2, 0, 1, 3).reshape(4, 8, 8)
    for kernel, right in (
        ("stmatrix_x4", matrices),
        ("stmatrix_x4_trans", matrices.transpose(0, 2, 1)),
    ):
        yield Primitive(
            kernel.replace("_", "."),
            kernel,
            (words, Out((128,), np.uint32)),
            block=32,
            expected=(np.ascontiguousarray(right),),
        )


def _canonical(values: np.ndarray, bits: type, nan: int) -> np.ndarray:
    return np.where(np.isnan(values.astype(np.float32)), nan, values.view(bits)).astype(bits)


def _max_nan() -> Primitive:
    special = np.array(
        [0x7FC00000, 0xFFC12345, 0x7F800001, 0, 1 << 31, 0x7F800000, 0xFF800000, 1, 0x3F800000],
        np.uint32,
    ).view(np.float32)
    normal = np.random.default_rng(4).standard_normal(7).astype(np.float32)
    values = np.concatenate([special, normal])
    x, y = (np.ascontiguousarray(v.reshape(-1)) for v in np.meshgrid(values, values))
    right = np.maximum(x, y)
    right[(x == 0) & (y == 0) & ~(np.signbit(x) & np.signbit(y))] = 0.0  # +0 is above -0
    return Primitive(
        "max.NaN",
        "max_nan",
        (x, y, Out((256,), np.float32)),
        block=128,
        grid=2,
        expected=(_canonical(right, np.uint32, 0x7FFFFFFF),),
    )


def _from_e4m3() -> Primitive:
    codes = np.arange(256, dtype=np.uint8)
    values = torch.from_numpy(codes).view(torch.float8_e4m3fn).float()
    right = []
    for dtype in (torch.float16, torch.bfloat16):
        bits = values.to(dtype).view(torch.int16).numpy().view(np.uint16)
        right.append(np.where(values.isnan().numpy(), 0x7FFF, bits).astype(np.uint16))
    return Primitive(
        "cvt e4m3 -> f16, bf16",
        "e4m3_to_half",
        (codes, Out((128,), np.uint32), Out((128,), np.uint32)),
        block=128,
        expected=tuple(right),
    )


def _to_e4m3() -> Primitive:
    bits = np.arange(1 << 16, dtype=np.uint16)
    right = []
    for dtype in (torch.float16, torch.bfloat16):
        values = torch.from_numpy(bits.view(np.int16)).view(dtype).float()
        codes = values.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)
        right.append(torch.where(values.isnan(), 0x7F, codes).numpy().astype(np.uint8))
    pairs = 1 << 15
    return Primitive(
        "cvt f16, bf16 -> e4m3",
        "half_to_e4m3",
        (bits, Out((pairs,), np.uint16), Out((pairs,), np.uint16)),
        block=256,
        grid=pairs // 256,
        expected=tuple(right),
    )


def _exp2() -> Primitive:
    x = np.linspace(-126, 127, 4096).astype(np.float32)
    right = np.exp2(x.astype(np.float64))

    def error(outputs) -> str:
        off = np.abs(outputs[0] / right - 1).max()
        assert off <= 2.0**-22, f"relative error {off:.2e}, more than 2^-22"
        return f"relative error {off:.2e} (2^-22 allowed)"

    return _approximate("ex2.approx.ftz", "exp2_approx", x, error)


def _log2() -> Primitive:
    x = np.concatenate([np.linspace(0.5, 2, 2048), np.geomspace(2.0**-120, 2.0**120, 2048)])
    x = x.astype(np.float32)
    right = np.log2(x.astype(np.float64))

    def error(outputs) -> str:
        off = np.abs(outputs[0] - right)
        near = (x >= 0.5) & (x <= 2)
        absolute, relative = off[near].max(), (off[~near] / np.abs(right[~near])).max()
        assert absolute <= 2.0**-22, f"error {absolute:.2e} in [0.5, 2], more than 2^-22"
        assert relative <= 2.0**-22, f"relative error {relative:.2e}, more than 2^-22"
        return f"error {absolute:.2e} in [0.5, 2], else relative {relative:.2e} (2^-22 allowed)"

    return _approximate("lg2.approx.ftz", "log2_approx", x, error)


def _approximate(name: str, kernel: str, x: np.ndarray, error) -> Primitive:
    out = Out(x.shape, np.float32)
    return Primitive(name, kernel, (x, out), block=256, grid=x.size // 256, error=error)
