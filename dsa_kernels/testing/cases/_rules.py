"""Comparison rules of the case files: how far two backends may differ, and why.

The bounds are worst cases of fp32 arithmetic on the call's own inputs, not constants: whatever
order a backend sums in, it cannot honestly leave them. `calc_diff` catches what they let through.
"""

from __future__ import annotations

import torch

from dsa_kernels.formats import D_V, INDEX_SCALE_BYTES
from dsa_kernels.testing.compare import assert_bitwise_equal, calc_diff

EPS32 = 2.0**-24  # half an ulp of 1
MAX_CALC_DIFF = 5e-6


def bitwise(expected: dict, actual: dict, *names: str) -> float:
    """Every byte agrees, any NaN equals any NaN."""
    for name in names:
        assert_bitwise_equal(actual[name], expected[name], name)
    return 0.0


def same_specials(expected: torch.Tensor, actual: torch.Tensor, what: str) -> None:
    for name, test in (("NaN", torch.isnan), ("+inf", torch.isposinf), ("-inf", torch.isneginf)):
        bad = test(expected.float()) != test(actual.float())
        if bad.any():
            where = tuple(bad.nonzero()[0].tolist())
            raise AssertionError(
                f"{what}: {name} at {int(bad.sum())} different positions, first at {list(where)}: "
                f"got {float(actual[where])}, expected {float(expected[where])}"
            )


def close(
    expected: torch.Tensor,
    actual: torch.Tensor,
    bound: torch.Tensor,  # float64, broadcastable: how far each element may be off in fp32
    what: str,
) -> float:
    """Specials at the same positions, errors within `bound` and calc_diff; returns calc_diff."""
    assert expected.shape == actual.shape and expected.dtype == actual.dtype, what
    same_specials(expected, actual, what)
    finite = expected.isfinite()
    e, a = expected.double()[finite], actual.double()[finite]
    if e.numel() == 0:
        return 0.0
    bound = bound.expand(expected.shape)[finite]
    if expected.dtype == torch.bfloat16:  # both sides round once: half an ulp each
        bound = bound + 2.0**-7 * torch.maximum(e.abs(), a.abs())
    bound = bound + 1e-36  # subnormal intermediate results
    error = (a - e).abs()
    if bool((error > bound).any()):
        worst = int((error / bound).argmax())
        where = finite.nonzero()[worst].tolist()
        raise AssertionError(
            f"{what}: {int((error > bound).sum())} elements are out of bounds, worst at {where}: "
            f"got {float(a[worst]):.9g}, expected {float(e[worst]):.9g}, "
            f"may differ by {float(bound[worst]):.3g}"
        )
    diff = calc_diff(a, e)
    # Where cancellation leaves little of the result, its honest errors are large beside it.
    honest = float(bound.square().sum() / e.square().sum().clamp(min=1e-300))
    if diff > max(MAX_CALC_DIFF, honest):
        raise AssertionError(f"{what}: calc_diff {diff:.3e} exceeds {MAX_CALC_DIFF:.0e}")
    return diff


def scores(q, k, weights, k_scale) -> tuple[torch.Tensor, torch.Tensor]:
    """fp64 indexer scores [num_rows, num_keys], and how far fp32 arithmetic may be from them.

    q [num_rows, num_heads, head_dim]; k [num_keys, head_dim]; weights [num_rows, num_heads];
    k_scale [num_keys] or None.
    """
    k = k.double()
    scale = 1.0 if k_scale is None else k_scale.double()
    gold = torch.empty((q.shape[0], k.shape[0]), dtype=torch.float64)
    size = torch.empty_like(gold)
    for r in range(q.shape[0]):
        row, w = q[r].double(), weights[r].double()
        gold[r] = w @ (row @ k.T).relu() * scale
        size[r] = w.abs() @ (row.abs() @ k.abs().T) * abs(scale)
    terms = q.shape[1] + q.shape[2] + 4
    return gold, 2 * terms * EPS32 * size


def same_selection(expected, actual, gold, bound, what: str) -> float:
    """One row of indices: ascending, padded with -1, and different only where scores nearly tie.

    expected, actual int32 [topk]; gold, bound float64 [num_candidates]. Returns the share of
    indices that differ.
    """
    e, a = (x[x >= 0].long() for x in (expected, actual))
    order = torch.cat([a, torch.full_like(actual, -1)])[: actual.numel()]
    assert torch.equal(order.int(), actual), f"{what}: padding is not at the end"
    assert bool((a.diff() > 0).all()), f"{what}: indices are not ascending"
    assert a.numel() == e.numel(), f"{what}: {a.numel()} selected, expected {e.numel()}"
    assert a.numel() == 0 or int(a[-1]) < gold.numel(), f"{what}: an index is past the range"
    lost, won = e[~torch.isin(e, a)], a[~torch.isin(a, e)]
    if lost.numel() == 0:
        return 0.0
    # Pairing by score: the set of the k best is wrong by no more than the worst pair.
    lost, won = (x[gold[x].nan_to_num(nan=-torch.inf).argsort()] for x in (lost, won))
    gap = (gold[lost] - gold[won]).abs()
    gap = torch.where(gold[lost] == gold[won], 0.0, gap)
    gap = torch.where(gold[lost].isnan() & gold[won].isnan(), 0.0, gap)
    slack = bound[lost] + bound[won]
    bad = ~(gap <= slack)
    if bad.any():
        i = int(bad.nonzero()[0])
        raise AssertionError(
            f"{what}: took index {int(won[i])} (score {float(gold[won[i]]):.9g}) for "
            f"{int(lost[i])} ({float(gold[lost[i]]):.9g}); may differ by {float(slack[i]):.3g}"
        )
    return lost.numel() / e.numel()


def index_records(cache: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes fp8 [num_slots, head_dim] and scales float32 [num_slots] of an index cache."""
    num_pages, page_size, record = cache.shape
    head_dim = record - INDEX_SCALE_BYTES
    pages = cache.reshape(num_pages, -1)
    codes = pages[:, : page_size * head_dim].reshape(-1, head_dim)
    scales = pages[:, page_size * head_dim :].contiguous().view(torch.float32)
    return codes.contiguous().view(torch.float8_e4m3fn), scales.reshape(-1)


def adjacent_codes(
    expected, actual, ratio, what: str, *, hadamard: bool, rate: float = 0.01
) -> float:
    """Codes behind RoPE or LayerNorm: at most one step apart, and at most a share `rate` unequal.

    expected, actual: float8_e4m3fn [rows, n]. ratio: float32 [rows], actual / expected scale, which
    may be an adjacent one. hadamard: a rounding of one input dim moved every output a little.
    Returns the share of unequal codes.
    """
    same_specials(expected, actual, what)
    e, a, ratio = expected.double(), actual.double(), ratio.double()[:, None]
    bad = ~((ratio >= 0.5) & (ratio <= 2.0))
    assert not bad.any(), f"{what}: a scale is {float(ratio[bad][0])} times what is expected"
    # A step of e4m3fn is at most 1/8 of the value and at least 2^-9.
    step = torch.maximum(e.abs(), a.abs() * ratio) / 8
    step = torch.maximum(step, 2.0**-9 * ratio.clamp(min=1.0))
    if hadamard and e.numel():
        step = step + 2.0**-8 * e.abs().nan_to_num(nan=0.0).amax(1, keepdim=True)
    error = (a * ratio - e).abs().nan_to_num(nan=0.0)
    far = error > step * 1.01
    if far.any():
        where = far.nonzero()[0].tolist()
        raise AssertionError(
            f"{what}: {int(far.sum())} codes are more than a step apart, first at {where}: "
            f"got {float(a[tuple(where)])}, expected {float(e[tuple(where)])}"
        )
    unequal = float((expected.view(torch.uint8) != actual.view(torch.uint8)).float().mean())
    if e.numel() >= 1000 and unequal > rate:
        raise AssertionError(f"{what}: {unequal:.2%} of the codes differ; at most {rate:.0%} may")
    return unequal


def attention(expected: dict, actual: dict, keys: list[torch.Tensor], entries: int) -> float:
    """out, lse and (if there) max_logits of sparse MLA.

    keys: the dequantised keys that the queries read, by scope; entries: how many indices a query
    has. A logit is off by at most d_qk roundings of |q| |k| sm_scale, a probability by twice that,
    relatively.
    """
    key_norm = max((float(k.norm(dim=1).max()) for k in keys if k.numel()), default=0.0)
    value_max = max((float(k[:, :D_V].abs().max()) for k in keys if k.numel()), default=0.0)
    q = expected["q"].double()
    logit = 2 * (q.shape[-1] + 4) * EPS32 * abs(expected["sm_scale"]) * q.norm(dim=-1) * key_norm
    relative = torch.expm1((2 * logit).clamp(max=50.0)) + 2 * (entries + 8) * EPS32
    if expected["q"].dtype == torch.bfloat16:  # probabilities may be rounded before P.V
        relative = relative + 2.0**-7
    lse = logit + 2 * (entries + 8) * EPS32 + 4 * EPS32 * _finite_size(expected["lse"])
    error = close(expected["out"], actual["out"], (relative * value_max)[..., None], "out")
    error = max(error, close(expected["lse"], actual["lse"], lse, "lse"))
    if "max_logits" in expected:
        close(expected["max_logits"], actual["max_logits"], logit, "max_logits")
    return error


def _finite_size(x: torch.Tensor) -> torch.Tensor:
    return x.double().nan_to_num(posinf=0.0, neginf=0.0).abs()
