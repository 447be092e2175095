"""paged_indexer_topk is topk_indices(paged_mqa_logits(...)) of its own backend, bit for bit."""

from __future__ import annotations

import pytest
import torch
from refusals import errors_test
from test_paged_mqa_logits import Case

import dsa_kernels
from dsa_kernels.ops.paged_mqa_logits import lengths_per_token
from dsa_kernels.testing import Guarded, assert_bitwise_equal

BACKENDS = dsa_kernels.backends("paged_indexer_topk")


def select(case, topk, backend, **more):
    return dsa_kernels.paged_indexer_topk(
        case.q,
        case.cache,
        case.weights,
        case.lens,
        case.block_table,
        topk,
        backend=backend,
        **{"max_seq_len": case.max_seq_len, **more},
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("next_n", "page_size"), [(1, 64), (3, 4), (2, 1)])
@pytest.mark.parametrize("topk", [1, 20, 300])
def test_equals_scoring_then_selecting(backend, next_n, page_size, topk):
    case = Case([150, 0, 20, 19, -7, 21], next_n, page_size=page_size, gap=5)
    logits = case.run(backend)
    ends = lengths_per_token(case.lens, next_n).flatten()
    want = dsa_kernels.topk_indices(logits, topk, row_end=ends, backend=backend)
    assert_bitwise_equal(select(case, topk, backend), want)
    rows = want.shape[0]
    for rows_held in (next_n, rows):  # the workspace must not show
        space = Guarded((4 * case.max_seq_len * rows_held,), torch.uint8)
        out = Guarded((rows, topk), torch.int32, strides=(topk + 1, 1))
        select(case, topk, backend, out=out.tensor, workspace=space.tensor)
        out.check()
        space.check()
        assert_bitwise_equal(out.tensor, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_missing_pages_come_last(backend):
    """Positions on invalid pages score -inf: selected only when nothing else is left."""
    case = Case([40], page_size=4)
    case.block_table[0, :5] = -1
    got = select(case, 20, backend)
    assert got.tolist() == [list(range(20, 40))]
    assert select(case, 22, backend)[0, :2].tolist() == [0, 1]
    assert select(case, 64, backend)[0, :40].tolist() == list(range(40))


@pytest.mark.parametrize("backend", BACKENDS)
def test_max_seq_len_bounds_the_candidates(backend):
    case = Case([40, 12])
    got = select(case, 10, backend, max_seq_len=12)
    assert got.max() < 12
    assert_bitwise_equal(got[1], select(case, 10, backend)[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_do_not_depend_on_the_batch_or_threads(backend, threads):
    case = Case([300, 1, 90, 0], next_n=2)
    whole = select(case, 40, backend)
    for count in (1, 2, 5):
        threads(count)
        assert_bitwise_equal(select(case, 40, backend), whole)
    for b in range(4):
        one = dsa_kernels.paged_indexer_topk(
            case.q[b : b + 1],
            case.cache,
            case.weights[2 * b : 2 * b + 2],
            case.lens[b : b + 1],
            case.block_table[b : b + 1],
            40,
            max_seq_len=case.max_seq_len,
            backend=backend,
        )
        assert_bitwise_equal(one, whole[2 * b : 2 * b + 2])


GOOD = Case([6, 6], next_n=2)
ERRORS = {
    "topk": ({"topk": 0}, ValueError, r"topk must be in \[1, 4096\]; got 0"),
    "max_seq_len 2^40": (
        {"max_seq_len": 2**40},
        ValueError,
        r"max_seq_len must be in \[0, 2\^31\)",
    ),
    "max_seq_len": ({"max_seq_len": -1}, ValueError, r"max_seq_len must be in \[0, 2\^31\)"),
    "workspace": (
        {"workspace": torch.empty(71, dtype=torch.uint8)},
        ValueError,
        r"workspace must have at least 72 bytes \(float32 logits of 2 row\(s\) of 9 keys\)",
    ),
    "weights rows": ({"weights": GOOD.weights[:2]}, ValueError, "must have batch"),
    "grad": ({"weights": GOOD.weights.clone().requires_grad_()}, ValueError, "requires grad"),
}


def call(**change):
    args = {
        "q": GOOD.q,
        "cache": GOOD.cache,
        "weights": GOOD.weights,
        "seq_lens": GOOD.lens,
        "block_table": GOOD.block_table,
        "topk": 4,
        "max_seq_len": 9,
        **change,
    }
    return dsa_kernels.paged_indexer_topk(**args)


test_errors = errors_test(ERRORS, call)


def test_direct_call_with_bad_arguments_raises():
    op = torch.ops.dsa_kernels.paged_indexer_topk
    lens, space = torch.zeros(2, 2, dtype=torch.int32), torch.empty(500, dtype=torch.uint8)
    out = torch.empty(4, 5, dtype=torch.int32)
    good = [GOOD.q, GOOD.cache, GOOD.weights, lens, GOOD.block_table, 5, 9, space, out]
    for at, bad in ((3, GOOD.lens), (5, 4), (6, -1), (6, 2**31), (7, space[:71]), (8, out[:3])):
        args = list(good)
        args[at] = bad
        with pytest.raises(RuntimeError, match="paged_indexer_topk: "):
            op(*args)
