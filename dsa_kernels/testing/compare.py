"""Comparison rules. Three are used together, because each alone misses real errors.

gold        fp64 on the same dequantised inputs
emulated    fp32 arithmetic that rounds to bf16 exactly where the contract lets a kernel round

(a) max |actual - gold| <= 2 max |emulated - gold| + 2 ulp     misses small scale errors
(b) calc_diff(actual, gold) <= 5e-6                            misses a few bad elements
(c) share of positive errors within 5 / sqrt(n) of one half    catches systematic rounding
"""

from __future__ import annotations

import math

import torch


def calc_diff(x: torch.Tensor, y: torch.Tensor) -> float:
    """1 - 2 <x, y> / (|x|^2 + |y|^2) in fp64; 0 for two zero tensors."""
    x, y = x.double().flatten(), y.double().flatten()
    denominator = float(x @ x + y @ y)
    return 0.0 if denominator == 0.0 else 1.0 - 2.0 * float(x @ y) / denominator


def _positions_of_specials(actual: torch.Tensor, gold: torch.Tensor, what: str) -> None:
    for name, test in (
        ("NaN", torch.isnan),
        ("+inf", torch.isposinf),
        ("-inf", torch.isneginf),
    ):
        a, g = test(actual.float()), test(gold)
        if not torch.equal(a, g):
            where = (a != g).nonzero()[0].tolist()
            raise AssertionError(
                f"{what}: {name} at different positions, first at {where}: "
                f"got {float(actual[tuple(where)])}, gold {float(gold[tuple(where)])}"
            )


def assert_close_to_gold(
    actual: torch.Tensor,
    gold: torch.Tensor,
    emulated: torch.Tensor,
    *,
    what: str = "out",
    max_calc_diff: float = 5e-6,
    factor: float = 2.0,
    check_bias: bool = True,
) -> None:
    """Raises AssertionError unless `actual` meets rules (a), (b) and (c) of this module.

    actual: any float dtype. gold: float64, same shape. emulated: same shape.
    """
    assert actual.shape == gold.shape, f"{what}: shape {actual.shape} is not {gold.shape}"
    assert gold.dtype == torch.float64, f"{what}: gold must be float64"
    _positions_of_specials(actual, gold, what)
    finite = gold.isfinite()
    a, g, e = actual.double()[finite], gold[finite], emulated.double()[finite]
    if g.numel() == 0:
        return
    error = a - g
    ulp = torch.finfo(actual.dtype).eps * float(g.abs().max())
    bound = factor * float((e - g).abs().max()) + 2 * ulp
    worst = int(error.abs().argmax())
    if not float(error.abs().max()) <= bound:
        raise AssertionError(
            f"{what}: max error {float(error.abs().max()):.3e} exceeds {bound:.3e} = {factor} x "
            f"emulated rounding ({float((e - g).abs().max()):.3e}) + 2 ulp; worst at "
            f"{finite.nonzero()[worst].tolist()}: got {float(a[worst]):.8g}, "
            f"gold {float(g[worst]):.8g}"
        )
    diff = calc_diff(a, g)
    if not diff <= max_calc_diff:
        raise AssertionError(f"{what}: calc_diff {diff:.3e} exceeds {max_calc_diff:.1e}")
    unequal = error[error != 0]
    if check_bias and unequal.numel() >= 100:
        share = float((unequal > 0).double().mean())
        if abs(share - 0.5) > 5 / math.sqrt(unequal.numel()):
            raise AssertionError(
                f"{what}: {share:.4f} of {unequal.numel()} errors are positive; rounding is biased"
            )


def differing_bits(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """bool, same shape: where the bytes of x and y differ."""
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return x.contiguous().view(integer) != y.contiguous().view(integer)


def assert_bitwise_equal(actual: torch.Tensor, expected: torch.Tensor, what: str = "out") -> None:
    """Raises AssertionError unless dtype, shape and every byte agree; any NaN equals any NaN."""
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype} is not {expected.dtype}"
    assert actual.shape == expected.shape, f"{what}: {actual.shape} is not {expected.shape}"
    bad = differing_bits(actual, expected)
    if actual.is_floating_point():
        bad &= ~(actual.float().isnan() & expected.float().isnan())
    if bad.any():
        where = tuple(bad.nonzero()[0].tolist())
        raise AssertionError(
            f"{what}: {int(bad.sum())} of {bad.numel()} elements differ, first at {list(where)}: "
            f"got {actual[where].item()}, expected {expected[where].item()}"
        )
