"""merge_attention_states against logsumexp in fp64, and against softmax over all keys at once."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from refusals import errors_test

import dsa_kernels
from dsa_kernels.testing import Guarded, assert_bitwise_equal, assert_close_to_gold

BACKENDS = dsa_kernels.backends("merge_attention_states")
INF, NAN = math.inf, math.nan


def gold(outs, lses, sink=None):
    """(out, lse) in fp64, straight from the formula."""
    lse = torch.logsumexp(lses.double(), 0)
    weight = (lses.double() - lse).exp()[..., None]
    term = torch.where(lses[..., None] == -INF, 0.0, weight * outs.double())
    out = term.sum(0)
    if sink is not None:
        out = out / (1 + (sink.double() - lse).exp())[..., None]
    return torch.where((lse == -INF)[..., None], 0.0, out), lse


def emulated(outs, lses, sink, out_dtype):
    """fp32 arithmetic in another order than the backends', rounded once."""
    lse = torch.logsumexp(lses, 0)
    weight = (lses - lse).exp()[..., None]
    out = torch.where(lses[..., None] == -INF, 0.0, weight * outs.float()).sum(0)
    if sink is not None:
        out = out * (1 / (1 + (sink - lse).exp()))[..., None]
    return torch.where((lse == -INF)[..., None], 0.0, out).to(out_dtype), lse


def check(outs, lses, backend, *, sink=None, out_dtype=None):
    out, lse = dsa_kernels.merge_attention_states(
        outs, lses, attn_sink=sink, out_dtype=out_dtype, backend=backend
    )
    out_dtype = out_dtype or outs.dtype
    assert out.dtype == out_dtype and lse.dtype == torch.float32
    want_out, want_lse = gold(outs, lses, sink)
    like_out, like_lse = emulated(outs, lses, sink, out_dtype)
    assert_close_to_gold(out, want_out, like_out, what="out")
    assert_close_to_gold(lse, want_lse, like_lse, what="lse")
    return out, lse


def random_parts(parts, rows, heads, d_v, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    outs = torch.randn(parts, rows, heads, d_v, generator=generator).to(dtype)
    lses = torch.randn(parts, rows, heads, generator=generator) * 3 + 5
    return outs, lses


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("out_dtype", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("d_v", [512, 1, 100, 1030])
@pytest.mark.parametrize("parts", [1, 2, 33])
def test_formula(backend, dtype, out_dtype, d_v, parts):
    outs, lses = random_parts(parts, 3, 5, d_v, dtype)
    lses[0, 1] = -INF  # a few empty parts
    sink = torch.linspace(-3, 9, 5)
    check(outs, lses, backend, out_dtype=out_dtype)
    check(outs, lses, backend, sink=sink, out_dtype=out_dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_merging_parts_is_attention_over_all_keys(backend):
    heads, keys, d_v, rows = 4, 60, 512, 7
    scores = torch.randn(rows, heads, keys, dtype=torch.float64) * 3
    values = torch.randn(keys, d_v, dtype=torch.float64)
    sink = torch.randn(heads)
    whole_lse = scores.logsumexp(-1)
    whole = scores.softmax(-1) @ values
    outs, lses = [], []
    for begin, end in ((0, 1), (1, 30), (30, 30), (30, 59), (59, 60)):  # one without keys
        part = scores[..., begin:end]
        outs.append(part.softmax(-1) @ values[begin:end])
        lses.append(part.logsumexp(-1))
    outs, lses = torch.stack(outs).float(), torch.stack(lses).float()
    for with_sink in (None, sink):
        out, lse = dsa_kernels.merge_attention_states(
            outs, lses, attn_sink=with_sink, backend=backend
        )
        expected = whole
        if with_sink is not None:
            extended = torch.cat([scores, sink.double()[:, None].expand(rows, heads, 1)], -1)
            expected = extended.softmax(-1)[..., :-1] @ values
        torch.testing.assert_close(out.double(), expected, rtol=2e-6, atol=2e-6)
        torch.testing.assert_close(lse.double(), whole_lse, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sink", [None, -INF, 0.0, 1e30, INF, NAN])
def test_all_parts_empty(backend, sink):
    outs = torch.full((3, 2, 2, 8), NAN)
    lses = torch.full((3, 2, 2), -INF)
    sink = None if sink is None else torch.full((2,), sink)
    out, lse = dsa_kernels.merge_attention_states(outs, lses, attn_sink=sink, backend=backend)
    assert out.eq(0).all() and lse.eq(-INF).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("junk", [NAN, INF, -INF])
@pytest.mark.parametrize("empty", [0, 1, 2])
def test_an_empty_part_contributes_nothing(backend, junk, empty):
    outs, lses = random_parts(3, 4, 3, 64)
    outs[empty], lses[empty] = junk, -INF
    out, lse = dsa_kernels.merge_attention_states(outs, lses, backend=backend)
    rest = [p for p in range(3) if p != empty]
    alone = dsa_kernels.merge_attention_states(outs[rest], lses[rest], backend=backend)
    assert_bitwise_equal(out, alone[0])
    assert_bitwise_equal(lse, alone[1])
    assert out.isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_empty_parts_among_many_leave_no_trace(backend, dtype):
    outs, lses = random_parts(75, 2, 2, 64, dtype)
    empty = torch.rand(75, generator=torch.Generator().manual_seed(3)) < 0.6
    outs[empty], lses[empty] = NAN, -INF
    call = functools.partial(dsa_kernels.merge_attention_states, backend=backend)
    for got, alone in zip(call(outs, lses), call(outs[~empty], lses[~empty]), strict=True):
        assert_bitwise_equal(got, alone)
    check(outs[~empty], lses[~empty], backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_part_comes_back_unchanged(backend):
    outs, lses = random_parts(1, 4, 3, 40)
    out, lse = dsa_kernels.merge_attention_states(outs, lses, backend=backend)
    assert_bitwise_equal(out, outs[0])
    assert_bitwise_equal(lse, lses[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_sinks(backend):
    outs, lses = random_parts(3, 4, 6, 64)
    sink = torch.tensor([-INF, INF, 1e30, -1e30, 3.0, 200.0])
    out, lse = check(outs, lses, backend, sink=sink)
    plain, plain_lse = dsa_kernels.merge_attention_states(outs, lses, backend=backend)
    assert_bitwise_equal(lse, plain_lse)  # the sink is not in lse
    assert_bitwise_equal(out[:, 0], plain[:, 0])
    assert_bitwise_equal(out[:, 3], plain[:, 3])
    assert out[:, 1].eq(0).all() and out[:, 2].eq(0).all()
    assert (out[:, 4].abs() < plain[:, 4].abs()).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_sink_enters_once_however_many_parts(backend):
    outs, lses = random_parts(1, 4, 3, 32)
    sink = torch.tensor([2.0, 5.0, 8.0])
    want, _ = check(outs, lses, backend, sink=sink)
    for parts in (2, 5):
        split = lses.expand(parts, -1, -1) - math.log(parts)
        out, _ = dsa_kernels.merge_attention_states(
            outs.expand(parts, -1, -1, -1), split, attn_sink=sink, backend=backend
        )
        torch.testing.assert_close(out, want, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_extreme_lses(backend):
    """Sums that overflow or vanish without the shift by the maximum."""
    outs, _ = random_parts(3, 1, 5, 16)
    lses = torch.tensor(
        [
            [[1e4, -1e4, 3e38, 100.0, -1e30]],
            [[1e4, -1e4, 0.0, -100.0, -INF]],
            [[1e4 + 1, -1e4 - 1, -3e38, 100.0, -1e38]],
        ]
    )
    out, lse = check(outs, lses, backend)
    assert out.isfinite().all() and lse.isfinite().all()
    check(outs, lses, backend, sink=torch.tensor([1e4, -1e4, 0.0, 100.0, 0.0]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((NAN, 1.0), NAN),
        ((1.0, NAN), NAN),
        ((INF, 1.0), INF),
        ((1.0, INF), INF),
        ((INF, INF), INF),
        ((NAN, INF), NAN),
        ((INF, NAN), NAN),
        ((-INF, INF), INF),
        ((-INF, NAN), NAN),
        ((NAN, -INF), NAN),
    ],
)
def test_nan_and_infinite_lse_poison_their_own_row_and_head_only(backend, values, expected):
    outs, lses = random_parts(2, 2, 2, 16)
    clean, clean_lse = dsa_kernels.merge_attention_states(outs, lses, backend=backend)
    lses[:, 1, 0] = torch.tensor(values)
    out, lse = dsa_kernels.merge_attention_states(outs, lses, backend=backend)
    assert out[1, 0].isnan().all()
    assert lse[1, 0].isnan() if math.isnan(expected) else lse[1, 0] == expected
    for r, h in ((0, 0), (0, 1), (1, 1)):
        assert_bitwise_equal(out[r, h], clean[r, h])
        assert_bitwise_equal(lse[r, h], clean_lse[r, h])


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_in_an_out_stays_in_its_dim(backend):
    outs, lses = random_parts(2, 2, 2, 600)
    outs[1, 1, 0, 550] = NAN
    outs[0, 0, 1, 3] = INF
    out, _ = check(outs, lses, backend)
    assert out.isnan().sum() == 1 and out.isinf().sum() == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_guard_bands_and_strides(backend, dtype):
    outs, lses = random_parts(3, 4, 2, 33, dtype)
    sink = torch.tensor([1.0, 2.0])
    clean = dsa_kernels.merge_attention_states(outs, lses, attn_sink=sink, backend=backend)
    wide = torch.full((4, 3, 5, 40), NAN, dtype=dtype)  # rows before parts, holes of NaN
    wide[:, :, 1:3, :33] = outs.transpose(0, 1)
    strided = wide.transpose(0, 1)[:, :, 1:3, :33]
    wide_lses = torch.full((3, 4, 5), NAN)
    wide_lses[..., 1:3] = lses
    for padding in (0, 7):
        head = 33 + padding
        out = Guarded((4, 2, 33), dtype, strides=(2 * head + padding, head, 1), shift=padding & 1)
        lse = Guarded((4, 2), torch.float32, strides=(2 + padding, 1), shift=padding & 1)
        returned = dsa_kernels.merge_attention_states(
            strided,
            wide_lses[..., 1:3],
            attn_sink=sink,
            out=out.tensor,
            lse=lse.tensor,
            backend=backend,
        )
        out.check()
        lse.check()
        assert returned[0] is out.tensor and returned[1] is lse.tensor
        assert_bitwise_equal(out.tensor, clean[0])
        assert_bitwise_equal(lse.tensor, clean[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_do_not_depend_on_the_batch_or_threads(backend, threads):
    outs, lses = random_parts(4, 21, 3, 72)
    lses[1, ::3] = -INF
    sink = torch.tensor([1.0, -2.0, 6.0])
    call = functools.partial(dsa_kernels.merge_attention_states, attn_sink=sink, backend=backend)
    whole = call(outs, lses)
    order = torch.randperm(21)
    for count in (1, 2, 5):
        threads(count)
        for actual, expected in zip(call(outs[:, order], lses[:, order]), whole, strict=True):
            assert_bitwise_equal(actual, expected[order])
        for r in range(0, 21, 5):
            alone = call(outs[:, r : r + 1], lses[:, r : r + 1])
            for actual, expected in zip(alone, whole, strict=True):
                assert_bitwise_equal(actual[0], expected[r])


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty(backend):
    call = functools.partial(dsa_kernels.merge_attention_states, backend=backend)
    out, lse = call(torch.empty(3, 0, 2, 8), torch.empty(3, 0, 2))
    assert out.shape == (0, 2, 8) and lse.shape == (0, 2)
    out, lse = call(torch.empty(0, 4, 2, 8), torch.empty(0, 4, 2), attn_sink=torch.zeros(2))
    assert out.eq(0).all() and lse.eq(-INF).all() and out.shape == (4, 2, 8)
    out, lse = call(torch.empty(2, 4, 2, 0), torch.zeros(2, 4, 2))
    assert out.shape == (4, 2, 0)
    torch.testing.assert_close(lse, torch.full((4, 2), math.log(2)))


GOOD = {"outs": torch.zeros(2, 4, 3, 8), "lses": torch.zeros(2, 4, 3)}


def with_(**changes):
    return lambda: dsa_kernels.merge_attention_states(**{**GOOD, **changes})


ERRORS = {
    "outs dtype": (
        with_(outs=GOOD["outs"].half()),
        TypeError,
        r"merge_attention_states: outs must be bfloat16 or float32 "
        r"\[num_parts, num_rows, num_heads, d_v\]; got float16 \[2, 4, 3, 8\] on cpu",
    ),
    "not a tensor": (with_(outs=[1.0]), TypeError, "outs must be .* got list"),
    "rank": (with_(outs=torch.zeros(4, 3, 8)), ValueError, r"got float32 \[4, 3, 8\]"),
    "outs strided": (
        with_(outs=torch.zeros(2, 4, 8, 3).transpose(2, 3)),
        ValueError,
        "outs .* must be contiguous in its last dim",
    ),
    "lses dtype": (
        with_(lses=GOOD["lses"].bfloat16()),
        TypeError,
        r"lses must be float32 .* Convert with \.float\(\)",
    ),
    "lses parts": (
        with_(lses=torch.zeros(3, 4, 3)),
        ValueError,
        "lses must be .* with num_parts = 2 from outs",
    ),
    "sink dtype": (
        with_(attn_sink=torch.zeros(3).double()),
        TypeError,
        "attn_sink must be float32",
    ),
    "sink length": (
        with_(attn_sink=torch.zeros(4)),
        ValueError,
        r"attn_sink must be float32 \[num_heads\] with num_heads = 3 from outs or None",
    ),
    "out_dtype": (with_(out_dtype=torch.float16), TypeError, "out must be bfloat16 or float32"),
    "out shape": (with_(out=torch.zeros(4, 3, 9)), ValueError, "out must be .* with d_v = 8"),
    "out overlaps": (
        with_(out=torch.zeros(1, 3, 8).expand(4, 3, 8)),
        ValueError,
        "out .* must not overlap itself",
    ),
    "lse shape": (with_(lse=torch.zeros(4, 2)), ValueError, "lse must be .* with num_heads = 3"),
    "lse dtype": (with_(lse=torch.zeros(4, 3).double()), TypeError, "lse must be float32"),
    "outs grad": (
        with_(outs=torch.zeros(2, 4, 3, 8, requires_grad=True)),
        ValueError,
        "outs requires grad, and this op has no backward",
    ),
    "lses grad": (
        with_(lses=torch.zeros(2, 4, 3, requires_grad=True)),
        ValueError,
        "lses requires grad",
    ),
    "sink grad": (
        with_(attn_sink=torch.zeros(3, requires_grad=True)),
        ValueError,
        "attn_sink requires grad",
    ),
    "unknown backend": (with_(backend="cuda"), ValueError, "there is no such backend"),
}


test_errors = errors_test(ERRORS)


def test_direct_call_with_bad_arguments_raises():
    op = torch.ops.dsa_kernels.merge_attention_states
    outs, lses, out, lse = *GOOD.values(), torch.zeros(4, 3, 8), torch.zeros(4, 3)
    sink = torch.zeros(3)
    for args in (
        (outs.half(), lses, None, out, lse),
        (outs[0], lses, None, out, lse),
        (outs.transpose(2, 3).contiguous().transpose(2, 3), lses, None, out, lse),
        (outs, lses[:1], None, out, lse),
        (outs, lses[:, :2], None, out, lse),
        (outs, lses.double(), None, out, lse),
        (outs, lses, sink[:2], out, lse),
        (outs, lses, sink.half(), out, lse),
        (outs, lses, None, out[:3], lse),
        (outs, lses, None, out[..., :7], lse),
        (outs, lses, None, out.half(), lse),
        (outs, lses, None, out, lse[:, :2]),
        (outs, lses, None, out, lse.double()),
    ):
        with pytest.raises(RuntimeError, match="merge_attention_states: "):
            op(*args)
