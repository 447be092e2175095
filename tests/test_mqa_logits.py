"""mqa_logits against the indexer's formula in fp64."""

from __future__ import annotations

import functools
import math

import gold
import pytest
import torch
from dtypes import refuses, widest
from refusals import errors_test

import dsa_kernels
from dsa_kernels.testing import (
    Guarded,
    assert_bitwise_equal,
    assert_close_to_gold,
    hostile_rows,
    random_fp8,
)

BACKENDS = dsa_kernels.backends("mqa_logits")
DTYPES = (torch.float8_e4m3fn, torch.bfloat16, torch.float32)


def make(rows, heads, dim, keys, dtype, seed=0):
    g = torch.Generator().manual_seed(seed)
    if dtype == torch.float8_e4m3fn:
        q, k = random_fp8((rows, heads, dim), g), random_fp8((keys, dim), g)
    else:
        q = torch.randn(rows, heads, dim, generator=g).to(dtype)
        k = torch.randn(keys, dim, generator=g).to(dtype)
    weights = torch.randn(rows, heads, generator=g) * heads**-0.5
    return q, k, weights, torch.rand(keys, generator=g) * 0.3


def ranges(rows, keys):
    starts = torch.tensor([0, 5, -3, keys, 7, 0, keys // 2])[torch.arange(rows) % 7]
    ends = torch.tensor([keys, keys + 9, 4, keys, 3, 0, keys - 1])[torch.arange(rows) % 7]
    return starts.int(), ends.int()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("heads", [8, 16, 32, 64])
@pytest.mark.parametrize("dim", [64, 128])
def test_formula(backend, dtype, heads, dim):
    if refuses(backend, dtype):
        pytest.skip("refused: test_cuda_refuses_float32")
    q, k, weights, k_scale = make(11, heads, dim, 333, dtype)
    want = gold.logits(q, k, weights, k_scale)
    emulated = dsa_kernels.mqa_logits(q, k, weights, k_scale=k_scale, backend="reference")
    got = dsa_kernels.mqa_logits(q, k, weights, k_scale=k_scale, backend=backend)
    assert_close_to_gold(got, want, emulated)
    assert_bitwise_equal(
        dsa_kernels.mqa_logits(
            q, k, weights, k_scale=k_scale, out_dtype=torch.bfloat16, backend=backend
        ),
        got.bfloat16(),
    )
    unscaled = dsa_kernels.mqa_logits(q, k, weights, backend=backend)
    assert_close_to_gold(unscaled, gold.logits(q, k, weights), emulated / k_scale)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", ["full", "compressed"])
@pytest.mark.parametrize("fill", [True, False])
def test_ranges_and_layouts(backend, layout, fill):
    rows, keys = 14, 150
    q, k, weights, k_scale = make(rows, 16, 64, keys, torch.bfloat16)
    starts, ends = ranges(rows, keys)
    whole = dsa_kernels.mqa_logits(q, k, weights, k_scale=k_scale, backend=backend)
    width = keys if layout == "full" else 60
    want = torch.full((rows, width), -math.inf if fill else 42.0)
    for r in range(rows):
        lo, hi = max(int(starts[r]), 0), min(int(ends[r]), keys)
        if lo >= hi:
            continue
        first = lo if layout == "full" else 0
        count = min(hi - lo, width - first)
        want[r, first : first + count] = whole[r, lo : lo + count]
    for strides, shift in (((width, 1), 0), ((width + 3, 1), 1)):
        out = Guarded((rows, width), torch.float32, strides=strides, shift=shift).fill(42.0)
        dsa_kernels.mqa_logits(
            q,
            k,
            weights,
            k_scale=k_scale,
            row_start=starts,
            row_end=ends,
            layout=layout,
            width=width,
            fill=fill,
            out=out.tensor,
            backend=backend,
        )
        out.check()
        if backend == "reference":  # its matmul may sum otherwise for another number of keys
            torch.testing.assert_close(out.tensor, want, rtol=1e-5, atol=1e-5)
        else:
            assert_bitwise_equal(out.tensor, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_relu_of_nan_is_nan_and_relu_of_minus_infinity_is_zero(backend):
    q = torch.ones(1, 8, 64, dtype=widest(backend))
    k = torch.ones(4, 64, dtype=widest(backend))
    k[1, 3], k[2, 3], k[3, 3] = math.nan, -math.inf, math.inf
    got = dsa_kernels.mqa_logits(q, k, torch.ones(1, 8), backend=backend)
    assert got[0, 0] == 8 * 64
    assert got[0, 1].isnan()
    assert got[0, 2] == 0.0
    assert got[0, 3] == math.inf


@pytest.mark.parametrize("backend", BACKENDS)
def test_keys_outside_a_rows_range_change_nothing(backend):
    rows, keys = 9, 200
    q, k, weights, k_scale = make(rows, 8, 128, keys, widest(backend))
    starts = torch.full((rows,), 20, dtype=torch.int32)
    ends = torch.full((rows,), 171, dtype=torch.int32)
    call = functools.partial(
        dsa_kernels.mqa_logits, weights=weights, row_start=starts, row_end=ends, backend=backend
    )
    clean = call(q, k, k_scale=k_scale)
    for poison in (math.nan, math.inf, 3e38):
        k2, scale2 = k.clone(), k_scale.clone()
        for outside in (slice(0, 20), slice(171, None)):
            k2[outside], scale2[outside] = poison, poison
        assert_bitwise_equal(call(q, k2, k_scale=scale2), clean)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["all_zero", "denormals", "fp_max", "inf_mix", "nan_mix"])
def test_hostile_weights(backend, name):
    q, k, _, _ = make(3, 32, 64, 70, torch.bfloat16)
    row = dict(hostile_rows(32, torch.Generator().manual_seed(0)))[name]
    weights = row.expand(3, 32).contiguous()
    got = dsa_kernels.mqa_logits(q, k, weights, backend=backend)
    want = dsa_kernels.mqa_logits(q, k, weights, backend="reference")
    assert torch.equal(got.isnan(), want.isnan())
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-30, equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_do_not_depend_on_the_batch_or_threads(backend, threads):
    rows, keys = 21, 1500
    q, k, weights, k_scale = make(rows, 64, 128, keys, torch.float8_e4m3fn)
    starts, ends = ranges(rows, keys)

    def call(pick):
        return dsa_kernels.mqa_logits(
            q[pick],
            k,
            weights[pick],
            k_scale=k_scale,
            row_start=starts[pick],
            row_end=ends[pick],
            backend=backend,
        )

    everything = torch.arange(rows)
    whole = call(everything)
    order = torch.randperm(rows)
    assert_bitwise_equal(call(order), whole[order])
    for count in (1, 2, 5):
        threads(count)
        assert_bitwise_equal(call(everything), whole)
    for r in (0, 1, 6, 20):
        assert_bitwise_equal(call(everything[r : r + 1]), whole[r : r + 1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_inputs(backend):
    q, k, weights, k_scale = make(6, 16, 64, 90, torch.bfloat16)
    want = dsa_kernels.mqa_logits(q, k, weights, k_scale=k_scale, backend=backend)
    wide_q = torch.full((6, 20, 100), math.nan, dtype=q.dtype)
    wide_q[:, 2:18, 5:69] = q
    wide_k = torch.full((90, 97), math.nan, dtype=k.dtype)
    wide_k[:, 1:65] = k
    wide_w = torch.full((6, 40), math.nan)
    wide_w[:, 3:19] = weights
    got = dsa_kernels.mqa_logits(
        wide_q[:, 2:18, 5:69],
        wide_k[:, 1:65],
        wide_w[:, 3:19],
        k_scale=k_scale,
        backend=backend,
    )
    assert_bitwise_equal(got, want)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty(backend):
    q, k, weights, _ = make(3, 8, 64, 10, widest(backend))
    assert dsa_kernels.mqa_logits(q[:0], k, weights[:0], backend=backend).shape == (0, 10)
    assert dsa_kernels.mqa_logits(q, k[:0], weights, backend=backend).shape == (3, 0)
    got = dsa_kernels.mqa_logits(q, k[:0], weights, layout="compressed", width=4, backend=backend)
    assert got.eq(-math.inf).all()


Q, K, W, S = make(2, 8, 64, 10, torch.float32)
ERRORS = {
    "no dims": (
        lambda: dsa_kernels.mqa_logits(Q, torch.tensor(1.0), W),
        ValueError,
        r"mqa_logits: k must be .* got float32 \[\] on cpu",
    ),
    "width is not out's": (
        lambda: dsa_kernels.mqa_logits(
            Q, K, W, layout="compressed", width=5, out=torch.empty(2, 7)
        ),
        ValueError,
        r"width must be out's number of columns; got 5 and \[2, 7\]",
    ),
    "heads": (
        lambda: dsa_kernels.mqa_logits(Q[:, :7], K, W[:, :7]),
        ValueError,
        r"mqa_logits: num_heads must be one of \(8, 16, 32, 64\); got 7",
    ),
    "head_dim": (
        lambda: dsa_kernels.mqa_logits(Q[..., :32].contiguous(), K[:, :32].contiguous(), W),
        ValueError,
        r"head_dim must be one of \(64, 128\); got 32",
    ),
    "q dtype": (
        lambda: dsa_kernels.mqa_logits(Q.half(), K.half(), W),
        TypeError,
        r"q must be float8_e4m3fn or bfloat16 or float32 \[num_rows, num_heads, head_dim\]",
    ),
    "k dtype": (
        lambda: dsa_kernels.mqa_logits(Q, K.bfloat16(), W),
        TypeError,
        r"k must be float32 \(the dtype of q\) \[seq_len, head_dim\]; got bfloat16 \[10, 64\]",
    ),
    "weights dtype": (
        lambda: dsa_kernels.mqa_logits(Q, K, W.bfloat16()),
        TypeError,
        r"weights must be float32 .* Convert with \.float\(\)",
    ),
    "k_scale shape": (
        lambda: dsa_kernels.mqa_logits(Q, K, W, k_scale=S[:9]),
        ValueError,
        r"k_scale must be float32 \[seq_len\] with seq_len = 10 from k or None; got float32 \[9\]",
    ),
    "layout": (
        lambda: dsa_kernels.mqa_logits(Q, K, W, layout="dense"),
        ValueError,
        "layout must be 'full' or 'compressed'; got 'dense'",
    ),
    "width": (
        lambda: dsa_kernels.mqa_logits(Q, K, W, width=5),
        ValueError,
        "out must have seq_len = 10 columns in the full layout; got 5",
    ),
    "out dtype": (
        lambda: dsa_kernels.mqa_logits(Q, K, W, out_dtype=torch.float16),
        TypeError,
        r"out must be float32 or bfloat16 \[num_rows, width\]",
    ),
    "grad": (
        lambda: dsa_kernels.mqa_logits(Q, K, W.clone().requires_grad_()),
        ValueError,
        "weights requires grad",
    ),
}


test_errors = errors_test(ERRORS)


@pytest.mark.skipif("emulated" not in BACKENDS, reason="no PTX")
def test_cuda_refuses_float32():
    with pytest.raises(TypeError, match="q must be float8_e4m3fn or bfloat16 for kernels of GPUs"):
        dsa_kernels.mqa_logits(Q, K, W, backend="emulated")
    out = torch.empty(2, 10)
    with pytest.raises(RuntimeError, match="mqa_logits: the CUDA kernel takes float8_e4m3fn"):
        torch.ops.dsa_kernels.mqa_logits.emulated(Q, K, W, None, None, None, "full", True, out)


def test_direct_call_with_bad_arguments_raises():
    op = torch.ops.dsa_kernels.mqa_logits
    out = torch.empty(2, 10)
    for args in (
        (Q.double(), K.double(), W, None, None, None, "full", True, out),
        (Q, K[:, :32], W, None, None, None, "full", True, out),
        (Q, K, W[:1], None, None, None, "full", True, out),
        (Q, K, W, S[:3], None, None, "full", True, out),
        (Q, K, W, None, torch.zeros(1, dtype=torch.int32), None, "full", True, out),
        (Q, K, W, None, None, None, "full", True, out[:, :5]),
        (Q, K, W, None, None, None, "other", True, out),
        (Q[:, :3], K, W[:, :3], None, None, None, "full", True, out),
        (torch.cat([Q] * 5, 1), K, torch.cat([W] * 5, 1), None, None, None, "full", True, out),
    ):
        with pytest.raises(RuntimeError, match="mqa_logits: "):
            op(*args)
