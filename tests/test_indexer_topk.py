"""indexer_topk is topk_indices(mqa_logits(...)) of its own backend, bit for bit."""

from __future__ import annotations

import math

import pytest
import torch
from dtypes import refuses, widest
from refusals import errors_test

import dsa_kernels
from dsa_kernels.ops.indexer_topk import WORKSPACE_BUDGET, workspace_bytes
from dsa_kernels.testing import Guarded, assert_bitwise_equal, random_fp8

BACKENDS = dsa_kernels.backends("indexer_topk")


def make(rows, keys, dtype=torch.float8_e4m3fn, heads=16, dim=64, seed=0):
    g = torch.Generator().manual_seed(seed)
    if dtype == torch.float8_e4m3fn:
        q, k = random_fp8((rows, heads, dim), g), random_fp8((keys, dim), g)
    else:
        q = torch.randn(rows, heads, dim, generator=g).to(dtype)
        k = torch.randn(keys, dim, generator=g).to(dtype)
    weights = torch.randn(rows, heads, generator=g)
    ends = torch.randint(-3, keys + 4, (rows,), generator=g, dtype=torch.int32)
    starts = torch.randint(-3, max(keys // 4, 1), (rows,), generator=g, dtype=torch.int32)
    return q, k, weights, torch.rand(keys, generator=g), starts, ends


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("rows", "keys", "topk"), [(13, 400, 32), (5, 90, 100), (3, 2500, 2048)])
def test_equals_scoring_then_selecting(backend, dtype, rows, keys, topk):
    if refuses(backend, dtype):
        pytest.skip("refused: test_mqa_logits.py::test_cuda_refuses_float32")
    q, k, weights, k_scale, starts, ends = make(rows, keys, dtype)
    args = {"k_scale": k_scale, "row_start": starts, "row_end": ends, "backend": backend}
    logits = dsa_kernels.mqa_logits(q, k, weights, **args)
    want = dsa_kernels.topk_indices(logits, topk, row_start=starts, row_end=ends, backend=backend)
    assert_bitwise_equal(dsa_kernels.indexer_topk(q, k, weights, topk, **args), want)
    for rows_held in (1, 2, rows):  # the workspace must not show
        space = Guarded((4 * keys * rows_held,), torch.uint8)
        out = Guarded((rows, topk), torch.int32, strides=(topk + 3, 1))
        dsa_kernels.indexer_topk(
            q, k, weights, topk, out=out.tensor, workspace=space.tensor, **args
        )
        out.check()
        space.check()
        assert_bitwise_equal(out.tensor, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zero_plateau_is_cut_at_the_smallest_index(backend):
    """All-negative dots make every score exactly 0: a tie across the whole row."""
    dtype = widest(backend)
    q, k = torch.ones(2, 8, 64, dtype=dtype), -torch.ones(500, 64, dtype=dtype)
    got = dsa_kernels.indexer_topk(q, k, torch.ones(2, 8), 40, backend=backend)
    assert got.tolist() == [list(range(40))] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_of_at_most_topk_keys_are_not_scored(backend):
    """Their keys may be anything, for they are all selected."""
    q, k, weights, _, _, _ = make(3, 64, widest(backend))
    k[:] = math.nan
    ends = torch.tensor([10, 64, 0], dtype=torch.int32)
    got = dsa_kernels.indexer_topk(q, k, weights, 64, row_end=ends, backend=backend)
    for row, end in zip(got.tolist(), ends.tolist(), strict=True):
        assert row == list(range(end)) + [-1] * (64 - end)


@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths_around_topk(backend):
    topk = 20
    q, k, weights, _, _, _ = make(5, 64, widest(backend))
    ends = torch.tensor([topk - 1, topk, topk + 1, topk + 2, 64], dtype=torch.int32)
    logits = dsa_kernels.mqa_logits(q, k, weights, row_end=ends, backend=backend)
    want = dsa_kernels.topk_indices(logits, topk, row_end=ends, backend=backend)
    space = torch.empty(4 * 64 * 5, dtype=torch.uint8)
    space.view(torch.float32).copy_(torch.arange(320.0))  # stale scores that favour late keys
    got = dsa_kernels.indexer_topk(
        q, k, weights, topk, row_end=ends, workspace=space, backend=backend
    )
    assert_bitwise_equal(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sets_agree_with_the_reference_where_the_gap_is_clear(backend):
    q, k, weights, k_scale, _, _ = make(8, 600, torch.bfloat16)
    topk = 64
    logits = dsa_kernels.mqa_logits(q, k, weights, k_scale=k_scale, backend="reference")
    ranked = logits.sort(descending=True).values
    clear = (ranked[:, topk - 1] - ranked[:, topk]) > 1e-4 * ranked[:, topk - 1].abs()
    assert clear.any()
    got, want = (
        dsa_kernels.indexer_topk(q, k, weights, topk, k_scale=k_scale, backend=b)
        for b in (backend, "reference")
    )
    assert_bitwise_equal(got[clear], want[clear])


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_do_not_depend_on_the_batch_or_threads(backend, threads):
    q, k, weights, k_scale, starts, ends = make(12, 700)

    def call(pick):
        return dsa_kernels.indexer_topk(
            q[pick],
            k,
            weights[pick],
            50,
            k_scale=k_scale,
            row_start=starts[pick],
            row_end=ends[pick],
            backend=backend,
        )

    everything = torch.arange(12)
    whole = call(everything)
    order = torch.randperm(12)
    assert_bitwise_equal(call(order), whole[order])
    for count in (1, 2, 5):
        threads(count)
        assert_bitwise_equal(call(everything), whole)
    for r in range(12):
        assert_bitwise_equal(call(everything[r : r + 1])[0], whole[r])


def test_workspace_is_bounded():
    assert workspace_bytes(100_000, 131_072) <= WORKSPACE_BUDGET
    assert workspace_bytes(4, 10_000_000) == 4 * 10_000_000
    assert workspace_bytes(3, 100) == 3 * 100 * 4
    assert workspace_bytes(0, 100) >= 400 and workspace_bytes(5, 0) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty(backend):
    q, k, weights, _, _, _ = make(3, 64, widest(backend))
    assert dsa_kernels.indexer_topk(q[:0], k, weights[:0], 5, backend=backend).shape == (0, 5)
    got = dsa_kernels.indexer_topk(q, k[:0], weights, 5, backend=backend)
    assert got.eq(-1).all()


Q, K, W, S, _, _ = make(2, 20, torch.float32)
ERRORS = {
    "topk": (
        lambda: dsa_kernels.indexer_topk(Q, K, W, 5000),
        ValueError,
        r"indexer_topk: topk must be in \[1, 4096\]; got 5000",
    ),
    "heads": (
        lambda: dsa_kernels.indexer_topk(Q[:, :9], K, W[:, :9], 5),
        ValueError,
        r"num_heads must be one of \(8, 16, 32, 64\); got 9",
    ),
    "workspace": (
        lambda: dsa_kernels.indexer_topk(Q, K, W, 5, workspace=torch.empty(79, dtype=torch.uint8)),
        ValueError,
        r"workspace must have at least 80 bytes \(float32 logits of 1 row\(s\) of 20 keys\)",
    ),
    "workspace alignment": (
        lambda: dsa_kernels.indexer_topk(
            Q, K, W, 5, workspace=torch.empty(100, dtype=torch.uint8)[1:]
        ),
        ValueError,
        "workspace must be aligned to 4 bytes",
    ),
    "out": (
        lambda: dsa_kernels.indexer_topk(Q, K, W, 5, out=torch.empty(2, 5)),
        TypeError,
        r"out must be int32 \[num_rows, topk\]",
    ),
    "grad": (
        lambda: dsa_kernels.indexer_topk(Q.clone().requires_grad_(), K, W, 5),
        ValueError,
        "q requires grad",
    ),
}


test_errors = errors_test(ERRORS)


def test_direct_call_with_bad_arguments_raises():
    op = torch.ops.dsa_kernels.indexer_topk
    space, out = torch.empty(400, dtype=torch.uint8), torch.empty(2, 5, dtype=torch.int32)
    for args in (
        (Q, K, W, None, None, None, 0, space, out),
        (Q, K, W, None, None, None, 6, space, out),
        (Q, K, W, None, None, None, 5, space[:40], out),
        (Q, K, W, None, None, None, 5, space[1:], out),
        (Q, K, W[:, :8], None, None, None, 5, space, out),
        (Q, K, W, None, None, out[:, 0], 5, space, out[:1]),
    ):
        with pytest.raises(RuntimeError, match="indexer_topk: "):
            op(*args)
