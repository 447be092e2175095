"""paged_mqa_logits against the formula in fp64 over keys placed byte by byte."""

from __future__ import annotations

import functools
import math

import gold
import paged
import pytest
import torch
from refusals import errors_test

import dsa_kernels
from dsa_kernels.testing import Guarded, assert_bitwise_equal, assert_close_to_gold, random_fp8

BACKENDS = dsa_kernels.backends("paged_mqa_logits")


class Case:
    """Requests whose pages are scattered over a cache that is NaN wherever no key lives."""

    def __init__(self, lens, next_n=1, heads=16, dim=64, page_size=4, gap=0, seed=0):
        g = torch.Generator().manual_seed(seed)
        batch = len(lens)
        table_len = max(-(-max(max(lens), 1) // page_size), 1) + 1
        num_pages = batch * table_len + 3
        order = torch.randperm(num_pages, generator=g)
        self.block_table = order[: batch * table_len].view(batch, table_len).int()
        self.cache, _ = paged.padded_pages(num_pages, page_size, dim + 4, gap=gap)
        self.keys, self.scales = [], []
        for b, length in enumerate(lens):
            n = max(length, 0)
            codes = random_fp8((n, dim), g)
            scale = torch.rand(n, generator=g) * 0.2 + 0.01
            for s in range(n):
                slot = int(self.block_table[b, s // page_size]) * page_size + s % page_size
                paged.write_index_key(self.cache, slot, codes[s], float(scale[s]))
            self.keys.append(codes)
            self.scales.append(scale)
        self.lens = torch.tensor(lens, dtype=torch.int32)
        self.q = random_fp8((batch, next_n, heads, dim), g)
        self.weights = torch.randn(batch * next_n, heads, generator=g) * heads**-0.5
        self.max_seq_len = max(max(lens), 0) + 3

    def run(self, backend, **more):
        more = {"max_seq_len": self.max_seq_len, **more}
        return dsa_kernels.paged_mqa_logits(
            self.q, self.cache, self.weights, self.lens, self.block_table, backend=backend, **more
        )

    def gold(self):
        batch, next_n = self.q.shape[:2]
        out = torch.full((batch * next_n, self.max_seq_len), -math.inf, dtype=torch.float64)
        for b in range(batch):
            for i in range(next_n):
                n = max(int(self.lens[b]) - next_n + 1 + i, 0)
                row = b * next_n + i
                out[row, :n] = gold.logits(
                    self.q[b, i][None],
                    self.keys[b][:n],
                    self.weights[row][None],
                    self.scales[b][:n],
                )[0]
        return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("heads", "dim"), [(8, 64), (16, 128), (32, 128), (64, 128)])
@pytest.mark.parametrize(("next_n", "page_size", "gap"), [(1, 64, 0), (3, 5, 7), (9, 1, 3)])
def test_formula(backend, heads, dim, next_n, page_size, gap):
    case = Case([70, 0, 9, -4, 33], next_n, heads, dim, page_size, gap)
    assert_close_to_gold(case.run(backend), case.gold(), case.run("reference"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("heads", "page_size", "gap"), [(64, 64, 0), (8, 5, 7), (8, 700, 3)])
def test_long_request(backend, heads, page_size, gap):
    """Longer than a thread takes at once, in pages shorter and longer than it reads ahead."""
    case = Case([1500], 2, heads, 128, page_size, gap)
    assert_close_to_gold(case.run(backend), case.gold(), case.run("reference"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths_per_token_and_extremes(backend):
    case = Case([40, 40], next_n=2)
    per_request = case.run(backend)
    lens = torch.tensor([[39, 40], [39, 40]], dtype=torch.int32)
    case.lens = lens
    assert_bitwise_equal(case.run(backend), per_request)
    case.lens = torch.tensor([[-(2**31), 7], [2**31 - 1, 0]], dtype=torch.int32)
    got = case.run(backend)
    assert got[0].eq(-math.inf).all() and got[3].eq(-math.inf).all()
    assert got[1, :7].isfinite().all() and got[1, 7:].eq(-math.inf).all()
    assert_bitwise_equal(got[2, :40], per_request[3, :40] * 0 + got[2, :40])
    case.lens = torch.full((2,), -(2**31), dtype=torch.int32)
    assert case.run(backend).eq(-math.inf).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_invalid_pages_score_minus_infinity(backend):
    assert_same = assert_bitwise_equal
    if backend == "reference":  # a BLAS may sum in another order when it is given fewer keys
        assert_same = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-2)
    case = Case([30], page_size=4)
    whole = case.run(backend)
    num_pages = case.cache.shape[0]
    for bad in (-1, num_pages, 2**31 - 1, -(2**31)):
        table = case.block_table.clone()
        table[0, 2] = bad
        got = dsa_kernels.paged_mqa_logits(
            case.q, case.cache, case.weights, case.lens, table, max_seq_len=33, backend=backend
        )
        assert got[0, 8:12].eq(-math.inf).all()
        got[0, 8:12] = whole[0, 8:12]
        assert_same(got, whole)
    short = case.block_table[:, :3].contiguous()  # 12 of 30 positions have a page
    for fill in (True, False):
        got = dsa_kernels.paged_mqa_logits(
            case.q,
            case.cache,
            case.weights,
            case.lens,
            short,
            fill=fill,
            out=torch.full((1, 33), 42.0),
            backend=backend,
        )
        assert_same(got[0, :12], whole[0, :12])
        assert got[0, 12:30].eq(-math.inf).all()
        assert got[0, 30:].eq(-math.inf if fill else 42.0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fill", [True, False])
def test_guard_bands_and_bfloat16(backend, fill):
    case = Case([12, 5, 0], next_n=2)
    whole = case.run(backend)
    columns = case.max_seq_len
    for dtype, strides in ((torch.float32, (columns + 5, 1)), (torch.bfloat16, (columns + 1, 1))):
        out = Guarded((6, columns), dtype, strides=strides, shift=1).fill(42.0)
        case.run(backend, fill=fill, out=out.tensor)
        out.check()
        want = whole.to(dtype)
        if not fill:
            want = want.masked_fill(whole == -math.inf, 42.0)
        assert_bitwise_equal(out.tensor, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_do_not_depend_on_the_batch_or_threads(backend, threads):
    case = Case([700, 1, 90, 0, 333], next_n=2)
    whole = case.run(backend).view(5, 2, -1)
    for count in (1, 2, 5):
        threads(count)
        assert_bitwise_equal(case.run(backend).view(5, 2, -1), whole)
    order = torch.tensor([3, 0, 4, 2, 1])
    weights = case.weights.view(5, 2, -1)
    for pick in (order, order[1:2], order[2:3]):
        got = dsa_kernels.paged_mqa_logits(
            case.q[pick],
            case.cache,
            weights[pick].flatten(0, 1),
            case.lens[pick],
            case.block_table[pick],
            max_seq_len=case.max_seq_len,
            backend=backend,
        )
        assert_bitwise_equal(got.view(len(pick), 2, -1), whole[pick])


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_ragged_op(backend):
    """The paged op scores exactly what mqa_logits scores on the same keys."""
    case = Case([200, 77])
    got = case.run(backend)
    for b, n in enumerate((200, 77)):
        want = dsa_kernels.mqa_logits(
            case.q[b],
            case.keys[b],
            case.weights[b : b + 1],
            k_scale=case.scales[b],
            backend=backend,
        )
        assert_bitwise_equal(got[b : b + 1, :n], want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty(backend):
    case = Case([5])
    for pick in (slice(0, 0),):
        got = dsa_kernels.paged_mqa_logits(
            case.q[pick],
            case.cache,
            case.weights[pick],
            case.lens[pick],
            case.block_table[pick],
            max_seq_len=9,
            backend=backend,
        )
        assert got.shape == (0, 9)
    caches = [case.cache[:0]]
    if backend != "emulated":  # CUDA's kernel refuses more than 2**31 keys
        # A table of 256 of these pages has over 2**63 positions.
        caches.append(torch.empty(0, 2**55 + 1, case.cache.shape[2], dtype=torch.uint8))
    for cache in caches:
        got = dsa_kernels.paged_mqa_logits(
            case.q,
            cache,
            case.weights,
            case.lens,
            torch.zeros(1, 256, dtype=torch.int32),
            max_seq_len=9,
            backend=backend,
        )
        assert got.eq(-math.inf).all()
    no_pages = case.block_table[:, :0]
    got = dsa_kernels.paged_mqa_logits(
        case.q, case.cache, case.weights, case.lens, no_pages, max_seq_len=9, backend=backend
    )
    assert got.eq(-math.inf).all()


GOOD = Case([6, 6], next_n=2)


def call(**change):
    args = {
        "q": GOOD.q,
        "cache": GOOD.cache,
        "weights": GOOD.weights,
        "seq_lens": GOOD.lens,
        "block_table": GOOD.block_table,
        "max_seq_len": 9,
        **change,
    }
    return dsa_kernels.paged_mqa_logits(**args)


ERRORS = {
    "max_seq_len is not out's": (
        {"max_seq_len": 9, "out": torch.empty(4, 8)},
        ValueError,
        r"max_seq_len must be out's number of columns; got 9 and \[4, 8\]",
    ),
    "max_seq_len is no integer": ({"max_seq_len": 9.0}, TypeError, r"be an integer; got 9\.0"),
    "no weights": ({"weights": None}, TypeError, "weights must be .* got NoneType"),
    "q dtype": (
        {"q": GOOD.q.bfloat16()},
        TypeError,
        r"paged_mqa_logits: q must be float8_e4m3fn .* Quantise with indexer_q_rope_quant\.",
    ),
    "cache record": (
        {"cache": GOOD.cache[..., :67]},
        ValueError,
        r"cache must be uint8 \[num_pages \| page_size, head_dim\+4\] with head_dim = 64 from q",
    ),
    "cache not packed": (
        {"cache": torch.zeros(3, 8, 68, dtype=torch.uint8)[:, ::2]},
        ValueError,
        "cache .* must be contiguous within each num_pages entry",
    ),
    "weights rows": (
        {"weights": GOOD.weights[:3]},
        ValueError,
        r"weights must have batch \* next_n = 4 rows; got 3",
    ),
    "seq_lens dtype": ({"seq_lens": GOOD.lens.long()}, TypeError, "seq_lens must be int32"),
    "block_table batch": (
        {"block_table": GOOD.block_table[:1]},
        ValueError,
        r"block_table must be int32 \[batch, max_pages\] with batch = 2 from q",
    ),
    "no max_seq_len": (
        {"max_seq_len": None},
        TypeError,
        "max_seq_len must be given where out is not",
    ),
    "grad": ({"weights": GOOD.weights.clone().requires_grad_()}, ValueError, "requires grad"),
}


test_errors = errors_test(ERRORS, call)


def test_direct_call_with_bad_arguments_raises():
    op = torch.ops.dsa_kernels.paged_mqa_logits
    lens, out = torch.zeros(2, 2, dtype=torch.int32), torch.empty(4, 9)
    good = [GOOD.q, GOOD.cache, GOOD.weights, lens, GOOD.block_table, True, out]
    for at, bad in (
        (0, GOOD.q.float()),
        (0, GOOD.q[:, :, :3]),
        (1, GOOD.cache[..., :66]),
        (2, GOOD.weights[:2]),
        (3, lens[:1]),
        (3, GOOD.lens),
        (4, GOOD.block_table[:1]),
        (6, out[:3]),
        (6, out.double()),
    ):
        args = list(good)
        args[at] = bad
        with pytest.raises(RuntimeError, match="paged_mqa_logits: "):
            op(*args)
