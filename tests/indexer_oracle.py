"""The indexer's input written out in fp64, independent of the package: for its tests."""

from __future__ import annotations

import math

import torch


def fp8_value(code: int) -> float:
    """e4m3fn by its definition: 1 sign, 4 exponent (bias 7), 3 mantissa bits; 0x7f is NaN."""
    sign, exponent, mantissa = -1.0 if code & 0x80 else 1.0, (code >> 3) & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return math.nan
    if exponent == 0:
        return sign * mantissa * 2.0**-9
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


FP8 = torch.tensor([fp8_value(c) for c in range(256)], dtype=torch.float64)


def encode(x: torch.Tensor) -> torch.Tensor:
    """uint8 codes nearest to x, ties to the even code, saturating; NaN is 0x7f."""
    positive = FP8[:127]
    middle = (positive[1:] + positive[:-1]) / 2
    magnitude = x.double().abs()
    code = torch.searchsorted(middle, magnitude)
    tie = (code < 126) & (middle[code.clamp(max=125)] == magnitude)
    code = torch.where(tie & (code % 2 == 1), code + 1, code)
    code = code + 128 * torch.signbit(x).long()
    return torch.where(x.isnan(), 0x7F, code).to(torch.uint8)


def assert_codes_close(codes: torch.Tensor, gold: torch.Tensor, rate: float) -> None:
    """At most `rate` of the uint8 codes differ, each by one place in the order of values.

    Around zero places are finer than the rounding of the steps before: half a scale passes there.
    """
    differ = codes != gold
    assert float(differ.double().mean()) <= rate
    place = [(c.int() & 0x7F) * torch.where(c >= 0x80, -1, 1) for c in (codes, gold)]
    adjacent = (place[0] - place[1]).abs() <= 1
    near = (FP8[codes.long()] - FP8[gold.long()]).abs() <= 0.5
    assert (adjacent | near).all()


def scale_of(row: torch.Tensor, scale_format: str) -> float:
    """Scale of one group: exact arithmetic for the power of two, one fp32 division otherwise."""
    amax = max((abs(v) for v in row.tolist() if not math.isnan(v)), default=0.0)
    floor = float(torch.tensor(1e-4))
    ratio = max(amax, floor) / 448.0
    if math.isinf(ratio):
        return math.inf
    if scale_format == "float32":
        return float(torch.tensor(ratio, dtype=torch.float64).float())
    mantissa, exponent = math.frexp(ratio)  # mantissa in [0.5, 1)
    return 2.0 ** (exponent - 1 if mantissa == 0.5 else exponent)


def quantize(x: torch.Tensor, scale_format: str) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 codes and float32 scales of the rows of x, float32 [..., head_dim]."""
    rows = x.reshape(-1, x.shape[-1])
    scales = torch.tensor([scale_of(row, scale_format) for row in rows], dtype=torch.float64)
    ratio = (rows.double() / scales[:, None]).float()  # the one rounding of an fp32 division
    return encode(ratio).view(x.shape), scales.float().view(x.shape[:-1])


def rope(x: torch.Tensor, cos_sin: torch.Tensor, layout: str) -> torch.Tensor:
    """x float64 [..., head_dim] of one token, cos_sin [rope_dim] of its position."""
    rope_dim = cos_sin.numel()
    y = x.clone()
    for i in range(rope_dim // 2):
        a, b = (i, i + rope_dim // 2) if layout == "neox" else (2 * i, 2 * i + 1)
        cos, sin = float(cos_sin[i]), float(cos_sin[rope_dim // 2 + i])
        y[..., a] = x[..., a] * cos - x[..., b] * sin
        y[..., b] = x[..., a] * sin + x[..., b] * cos
    return y


def hadamard_matrix(n: int) -> torch.Tensor:
    """Orthonormal: entry (i, j) is (-1)^popcount(i & j) * n^-0.5."""
    signs = [[(-1.0) ** bin(i & j).count("1") for j in range(n)] for i in range(n)]
    return torch.tensor(signs, dtype=torch.float64) * n**-0.5


def layer_norm(x: torch.Tensor, weight, bias, eps: float) -> torch.Tensor:
    mean = x.sum(-1, keepdim=True) / x.shape[-1]
    variance = ((x - mean) ** 2).sum(-1, keepdim=True) / x.shape[-1]
    return (x - mean) / (variance + eps) ** 0.5 * weight.double() + bias.double()


def prepare(x, positions, cos_sin, layout, hadamard, norm=None) -> torch.Tensor:
    """float64: the steps before quantisation, each rounded to x's dtype. Positions are valid."""
    dtype = x.dtype
    y = x.double()
    if norm is not None:
        y = layer_norm(y, *norm).to(dtype).double()
    if layout != "none":
        y = torch.stack(
            [rope(row, cos_sin[int(p)], layout) for row, p in zip(y, positions, strict=True)]
        )
        y = y.to(dtype).double()
    if hadamard:
        y = (y @ hadamard_matrix(y.shape[-1])).to(dtype).double()
    return y


def rope_table(max_position: int, rope_dim: int) -> torch.Tensor:
    """float32 [max_position, rope_dim]."""
    frequency = 10000.0 ** (-torch.arange(rope_dim // 2).double() / max(rope_dim // 2, 1))
    angle = torch.arange(max_position).double()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1).float()


def hostile_keys(head_dim: int) -> torch.Tensor:
    """float32 [n, head_dim]: rows that break quantisers."""
    generator = torch.Generator().manual_seed(7)
    normal = torch.randn(head_dim, generator=generator)
    rows = [
        torch.zeros(head_dim),
        -torch.zeros(head_dim),
        torch.full((head_dim,), 1e-45),
        torch.full((head_dim,), -1e-39),
        normal * 1e-5,  # under the amax floor
        normal * 1e30,
        torch.full((head_dim,), torch.finfo(torch.float32).max),
        torch.full((head_dim,), math.nan),
        torch.full((head_dim,), math.inf),
        normal.clone().index_fill_(0, torch.tensor([3]), math.nan),
        normal.clone().index_fill_(0, torch.tensor([5]), -math.inf),
        normal.clone().index_fill_(0, torch.tensor([0]), 1e-4),
        torch.randint(-(2**31), 2**31 - 1, (head_dim,), generator=generator)
        .int()
        .view(torch.float32),  # any bits: NaNs with payload, subnormals
    ]
    negative_nan = torch.tensor(-1, dtype=torch.int32).view(torch.float32)
    rows.append(torch.where(torch.arange(head_dim) % 4 == 0, negative_nan, normal))
    for exponent in (-20, -12, 0, 9, 100):  # exact powers of two, and their neighbours
        edge = torch.tensor(448.0 * 2.0**exponent)
        for amax in (
            edge,
            edge.nextafter(torch.tensor(math.inf)),
            edge.nextafter(torch.tensor(0.0)),
        ):
            rows.append(normal.clamp(-1, 1) * (amax / 2))
            rows[-1][head_dim - 1] = -amax
    for exponent in range(-20, 20):
        rows.append(normal * 2.0**exponent)
    return torch.stack(rows)
