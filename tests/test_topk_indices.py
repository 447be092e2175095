"""topk_indices: exact against a stable sort under the declared total order, written out here."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from refusals import errors_test

import dsa_kernels
from dsa_kernels.testing import Guarded, adversarial_rows, assert_bitwise_equal, hostile_rows

BACKENDS = dsa_kernels.backends("topk_indices")


def oracle(row: list[float], topk: int) -> list[int]:
    """Python's stable sort under a comparison that is the contract, word for word."""

    def before(i: int, j: int) -> int:
        x, y = row[i], row[j]
        if math.isnan(x) or math.isnan(y):
            return math.isnan(x) - math.isnan(y)
        return (x < y) - (x > y)

    order = sorted(range(len(row)), key=functools.cmp_to_key(before))
    best = sorted(order[:topk])
    return best + [-1] * (topk - len(best))


# More than the CPU bisects in place, and no more than it collects at once.
COLLECTED_WHOLE = [(5000, 1024), (6900, 2048), (12_000, 2048)]
SIZES = [(1, 1), (7, 8), (300, 64), (2500, 2048), (5000, 4096), *COLLECTED_WHOLE]
HOSTILE = [name for name, _ in hostile_rows(8, torch.Generator())]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(("n", "topk"), SIZES)
def test_hostile_table(backend, name, n, topk):
    row = dict(hostile_rows(n, torch.Generator().manual_seed(n)))[name]
    got = dsa_kernels.topk_indices(row[None], topk, backend=backend)
    assert got[0].tolist() == oracle(row.tolist(), topk)


@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths(backend):
    n, topk = 40, 16
    lengths = [-2, 0, 1, topk - 1, topk, topk + 1, n, n + 5, -(2**31), 2**31 - 1]
    scores = torch.randn(len(lengths), n).round()
    scores[:, ::9] = math.nan
    row_end = torch.tensor(lengths, dtype=torch.int32)
    got = dsa_kernels.topk_indices(scores, topk, row_end=row_end, backend=backend)
    for r, length in enumerate(lengths):
        valid = max(0, min(length, n))
        assert got[r].tolist() == oracle(scores[r, :valid].tolist(), topk), f"length {length}"


@pytest.mark.parametrize("backend", BACKENDS)
def test_row_start_is_the_origin_of_indices(backend):
    scores = torch.randn(5, 50).round()
    starts, ends = [0, 3, -4, 49, 20], [50, 9, 11, 50, 10]
    got = dsa_kernels.topk_indices(
        scores,
        7,
        row_start=torch.tensor(starts, dtype=torch.int32),
        row_end=torch.tensor(ends, dtype=torch.int32),
        backend=backend,
    )
    for r, (start, end) in enumerate(zip(starts, ends, strict=True)):
        candidates = scores[r, max(start, 0) : max(end, 0)].tolist() if end > start else []
        assert got[r].tolist() == oracle(candidates, 7)


ALPHABET = [0.0, -0.0, 1.0, 1.0000001, -1.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 3.4e38]


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    row=st.lists(st.sampled_from(ALPHABET), min_size=1, max_size=40),
    topk=st.integers(1, 48),
    length=st.integers(-2, 50),
)
def test_property(backend, row, topk, length):
    got = dsa_kernels.topk_indices(
        torch.tensor([row]),
        topk,
        row_end=torch.tensor([length], dtype=torch.int32),
        backend=backend,
    )
    assert got[0].tolist() == oracle(
        torch.tensor(row)[: max(0, min(length, len(row)))].tolist(), topk
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_million_columns(backend):
    n, topk = 1_000_000, 2048
    generator = torch.Generator().manual_seed(1)
    for name, row in hostile_rows(n, generator):
        if name not in ("random", "all_zero", "same_high_byte", "ten_low_bits", "nan_mix"):
            continue
        got = dsa_kernels.topk_indices(row[None], topk, backend=backend)[0]
        value = torch.where(row.isnan(), -math.inf, row + 0.0).double().numpy()
        best = sorted((-value).argsort(kind="stable")[:topk].tolist())
        assert got.tolist() == best, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_untouched_outside_and_unread_beyond(backend):
    """Guard bands around a strided output; NaN and inf outside every row's range."""
    rows, n, topk = 4, 100, 24
    scores = torch.randn(rows, n)
    row_end = torch.tensor([100, 60, 10, 0], dtype=torch.int32)
    clean = dsa_kernels.topk_indices(scores, topk, row_end=row_end, backend=backend)
    for poison in (math.nan, math.inf):
        wide = torch.full((rows, n + 13), poison)
        for r, end in enumerate(row_end.tolist()):
            wide[r, :end] = scores[r, :end]
        for strides, shift in (((topk, 1), 0), ((topk + 5, 1), 1)):
            out = Guarded((rows, topk), torch.int32, strides=strides, shift=shift)
            dsa_kernels.topk_indices(
                wide[:, :n], topk, row_end=row_end, out=out.tensor, backend=backend
            )
            out.check()
            assert_bitwise_equal(out.tensor, clean)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_do_not_depend_on_the_batch_or_threads(backend, threads):
    scores = torch.randn(6, 3000).round(decimals=1)
    row_end = torch.tensor([3000, 17, 1999, 2048, 2049, 0], dtype=torch.int32)
    call = functools.partial(dsa_kernels.topk_indices, topk=2048, backend=backend)
    whole = call(scores, row_end=row_end)
    order = torch.randperm(6)
    assert_bitwise_equal(call(scores[order], row_end=row_end[order]), whole[order])
    for count in (1, 2, 5):
        threads(count)
        assert_bitwise_equal(call(scores, row_end=row_end), whole)
        for r in range(6):
            assert_bitwise_equal(call(scores[r : r + 1], row_end=row_end[r : r + 1])[0], whole[r])


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty(backend):
    assert dsa_kernels.topk_indices(torch.empty(0, 9), 4, backend=backend).shape == (0, 4)
    got = dsa_kernels.topk_indices(torch.empty(3, 0), 4, backend=backend)
    assert got.eq(-1).all()


def test_scaling_by_a_power_of_two_keeps_the_selection():
    scores = torch.randn(3, 5000)
    plain = dsa_kernels.topk_indices(scores, 100)
    assert_bitwise_equal(dsa_kernels.topk_indices(scores * 2.0**20, 100), plain)


ERRORS = {
    "dtype": (
        lambda: dsa_kernels.topk_indices(torch.zeros(4, 128, dtype=torch.bfloat16), 2),
        TypeError,
        r"topk_indices: scores must be float32 \[num_rows, seq_len\]; got bfloat16 \[4, 128\] on "
        r"cpu\. Convert with \.float\(\) or pass out_dtype=torch\.float32 to mqa_logits\.",
    ),
    "topk is None": (
        lambda: dsa_kernels.topk_indices(torch.zeros(4, 8), None),
        TypeError,
        "topk_indices: topk must be an integer; got None",
    ),
    "not a tensor": (lambda: dsa_kernels.topk_indices([1.0], 2), TypeError, "got list"),
    "rank": (lambda: dsa_kernels.topk_indices(torch.zeros(4), 2), ValueError, r"got float32 \[4\]"),
    "topk too small": (
        lambda: dsa_kernels.topk_indices(torch.zeros(4, 8), 0),
        ValueError,
        r"topk must be in \[1, 4096\]; got 0",
    ),
    "topk too large": (
        lambda: dsa_kernels.topk_indices(torch.zeros(4, 8), 4097),
        ValueError,
        r"topk must be in \[1, 4096\]; got 4097",
    ),
    "row_end length": (
        lambda: dsa_kernels.topk_indices(
            torch.zeros(4, 8), 2, row_end=torch.zeros(5, dtype=torch.int32)
        ),
        ValueError,
        r"row_end must be int32 \[num_rows\] with num_rows = 4 from scores or None; "
        r"got int32 \[5\] on cpu",
    ),
    "row_start dtype": (
        lambda: dsa_kernels.topk_indices(torch.zeros(4, 8), 2, row_start=torch.zeros(4).long()),
        TypeError,
        r"row_start must be int32 \[num_rows\]",
    ),
    "out shape": (
        lambda: dsa_kernels.topk_indices(
            torch.zeros(4, 8), 2, out=torch.zeros(4, 3, dtype=torch.int32)
        ),
        ValueError,
        r"out must be int32 \[num_rows, topk\] with topk = 2",
    ),
    "last dim strided": (
        lambda: dsa_kernels.topk_indices(torch.zeros(8, 4).t(), 2),
        ValueError,
        r"scores \[num_rows, seq_len\] must be contiguous in its last dim; got strides \[1, 4\]",
    ),
    "overlapping out": (
        lambda: dsa_kernels.topk_indices(
            torch.zeros(4, 8), 2, out=torch.zeros(1, 2, dtype=torch.int32).expand(4, 2)
        ),
        ValueError,
        "must not overlap itself",
    ),
    "grad": (
        lambda: dsa_kernels.topk_indices(torch.zeros(4, 8, requires_grad=True), 2),
        ValueError,
        "scores requires grad, and this op has no backward",
    ),
    "unknown backend": (
        lambda: dsa_kernels.topk_indices(torch.zeros(4, 8), 2, backend="cuda"),
        ValueError,
        "backend 'cuda' was asked for and cannot run on cpu: there is no such backend",
    ),
    "absent backend": (
        lambda: dsa_kernels.topk_indices(torch.zeros(4, 8), 2, backend="tilelang"),
        ValueError,
        "backend 'tilelang' was asked for and cannot run on cpu: this version has no tilelang",
    ),
}


test_errors = errors_test(ERRORS)


def test_direct_call_with_bad_arguments_raises():
    op = torch.ops.dsa_kernels.topk_indices
    good = torch.zeros(4, 8)
    out = torch.zeros(4, 2, dtype=torch.int32)
    for args in (
        (good.double(), None, None, 2, out),
        (good, None, None, 3, out),
        (good, None, None, 0, out),
        (good, out[:, 0], None, 2, out[:3]),
        (good, None, torch.zeros(3, dtype=torch.int32), 2, out),
        (good.t().contiguous().t(), None, None, 2, out),
        (good[0], None, None, 2, out),
        (good, None, None, 2, out.long()),
    ):
        with pytest.raises(RuntimeError, match="topk_indices: "):
            op(*args)


SAMPLED_SIZES = [(5000, 64), *COLLECTED_WHOLE, (20_000, 2048), (131_072, 2048)]
ADVERSARIAL = [name for name, _ in adversarial_rows(8192, 8)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize(("n", "topk"), SAMPLED_SIZES)
def test_rows_that_mislead_a_sample(backend, name, n, topk):
    row = dict(adversarial_rows(n, topk))[name]
    got = dsa_kernels.topk_indices(row[None], topk, backend=backend)[0]
    # NaN last, -0 as 0: a stable sort of these keys is the contract's order.
    key = torch.where(row.isnan(), -math.inf, row + 0.0).double()
    key = torch.where(row.isnan(), -1e300, key.clamp(min=-1e299))
    expected = sorted((-key).argsort(stable=True)[:topk].tolist())
    assert got.tolist() == expected
