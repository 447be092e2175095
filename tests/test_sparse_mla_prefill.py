"""sparse_mla_prefill against softmax attention in fp64 over the selected keys."""

from __future__ import annotations

import math

import gold
import paged
import pytest
import torch
from dtypes import refuses, widest
from refusals import errors_test

import dsa_kernels
from dsa_kernels.testing import Guarded, assert_bitwise_equal, assert_close_to_gold
from dsa_kernels.testing.emulation import SCHEDULES, emulation

BACKENDS = dsa_kernels.backends("sparse_mla_prefill")
SCALE = 69 / 512  # exact in float32, as the kernels hold it
INT_MIN, INT_MAX = -(2**31), 2**31 - 1


def make(rows, heads, num_kv, topk, dtype, d_qk=576, seed=0):
    g = torch.Generator().manual_seed(seed)
    q = torch.randn(rows, heads, d_qk, generator=g).to(dtype)
    kv = torch.randn(num_kv, d_qk, generator=g).to(dtype)
    indices = torch.randint(0, num_kv, (rows, topk), generator=g, dtype=torch.int32)
    return q, kv, indices


def check(got, q, keys_of, sink=None, sm_scale=SCALE):
    """Compares (out, max_logits, lse) with fp64; keys_of(row) gives the row's selected keys."""
    rows = range(q.shape[0])
    exact = [gold.attention(q[r], keys_of(r), sm_scale, sink) for r in rows]
    emulated = [gold.attention_emulated(q[r], keys_of(r), sm_scale, sink) for r in rows]
    for what, result, want, yardstick in zip(
        ("out", "max_logits", "lse"),
        got,
        zip(*exact, strict=True),
        zip(*emulated, strict=True),
        strict=True,
    ):
        assert_close_to_gold(result, torch.stack(want), torch.stack(yardstick), what=what)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("heads", [1, 3, 8, 16, 37, 64, 128])
@pytest.mark.parametrize("d_qk", [576, 512])
def test_formula(backend, dtype, heads, d_qk):
    if refuses(backend, dtype):
        pytest.skip("refused: test_cuda_refuses_float32")
    q, kv, indices = make(3, heads, 200, 130, dtype, d_qk)
    got = dsa_kernels.sparse_mla_prefill(q, kv, indices, sm_scale=SCALE, backend=backend)
    check(got, q, lambda r: kv[indices[r].long()])


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_thousand_keys(backend):
    q, kv, indices = make(2, 16, 4000, 2048, torch.bfloat16)
    got = dsa_kernels.sparse_mla_prefill(q, kv, indices, sm_scale=SCALE, backend=backend)
    check(got, q, lambda r: kv[indices[r].long()])


HOSTILE_ROWS = {
    "all minus one": [-1] * 100,
    "all INT_MIN": [INT_MIN] * 100,
    "all past the end": [90] * 100,
    "first 64 missing": [-1] * 64 + list(range(36)),
    "every other missing": [i if i % 2 else -1 for i in range(89)] + [-1] * 11,
    "extremes mixed in": [INT_MIN, 5, INT_MAX, 90, 89, -2, 0] + [91, 7] * 46 + [3],
    "one key": [-1] * 99 + [17],
    "duplicates": [7] * 50 + [8] * 30 + [7] * 20,
    "ends on a tile": list(range(64)) + [-1] * 36,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("poison", [math.nan, 3e38])
def test_hostile_indices(backend, dtype, poison):
    if refuses(backend, dtype):
        pytest.skip("refused: test_cuda_refuses_float32")
    num_kv = 90
    q, kv, _ = make(len(HOSTILE_ROWS), 16, num_kv, 100, dtype)
    indices = torch.tensor(list(HOSTILE_ROWS.values()), dtype=torch.int32)
    want = dsa_kernels.sparse_mla_prefill(q, kv, indices, sm_scale=SCALE, backend=backend)
    check(want, q, lambda r: kv[gold.valid(indices[r], None, 0, num_kv)])
    for r, name in enumerate(HOSTILE_ROWS):
        used = gold.valid(indices[r], None, 0, num_kv)
        if not used:
            assert want[0][r].eq(0).all(), name
            assert want[1][r].eq(-math.inf).all() and want[2][r].eq(-math.inf).all(), name
        poisoned = torch.full_like(kv, poison)
        poisoned[used] = kv[used]
        one = slice(r, r + 1)
        got = dsa_kernels.sparse_mla_prefill(
            q[one], poisoned, indices[one], sm_scale=SCALE, backend=backend
        )
        for a, b in zip(got, want, strict=True):
            assert_bitwise_equal(a, b[one], name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_lengths_starts_and_sink(backend):
    q, kv, indices = make(8, 16, 300, 70, torch.bfloat16)
    indices[:, ::7] = torch.tensor([-1, INT_MIN, INT_MAX, 299, 300, 12, 250, 1])[:, None].int()
    lengths = torch.tensor([70, 0, -3, 1, 64, 65, 1000, INT_MIN], dtype=torch.int32)
    starts = torch.tensor([0, 5, 9, 100, 299, 300, -20, INT_MAX], dtype=torch.int32)
    sink = torch.randn(16)
    got = dsa_kernels.sparse_mla_prefill(
        q,
        kv,
        indices,
        sm_scale=SCALE,
        topk_length=lengths,
        kv_start=starts,
        attn_sink=sink,
        backend=backend,
    )
    check(got, q, lambda r: kv[gold.valid(indices[r], lengths[r], int(starts[r]), 300)], sink)
    beyond = indices.clone()
    for r, n in enumerate(lengths.tolist()):
        beyond[r, max(n, 0) :] = 3
    again = dsa_kernels.sparse_mla_prefill(
        q,
        kv,
        beyond,
        sm_scale=SCALE,
        topk_length=lengths,
        kv_start=starts,
        attn_sink=sink,
        backend=backend,
    )
    for a, b in zip(again, got, strict=True):
        assert_bitwise_equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sink_extremes(backend):
    q, kv, indices = make(3, 6, 50, 30, widest(backend))
    indices[2] = -1
    sink = torch.tensor([math.inf, -math.inf, math.nan, 200.0, -200.0, 0.0])
    out, _, lse = dsa_kernels.sparse_mla_prefill(
        q, kv, indices, sm_scale=SCALE, attn_sink=sink, backend=backend
    )
    plain, _, plain_lse = dsa_kernels.sparse_mla_prefill(
        q, kv, indices, sm_scale=SCALE, backend=backend
    )
    assert_bitwise_equal(lse, plain_lse, "lse is without the sink")
    assert out[2].eq(0).all()
    assert out[:2, 0].eq(0).all()
    assert_bitwise_equal(out[:2, 1], plain[:2, 1])
    assert out[:2, 2].isnan().all()
    assert out[:2, 3].abs().max() < 1e-30
    assert_bitwise_equal(out[:2, 4], plain[:2, 4])
    want = plain[:2, 5].double() / (1 + torch.exp(-lse[:2, 5].double()))[:, None]
    rtol, atol = (1e-6, 1e-7) if out.dtype == torch.float32 else (2**-7, 0)  # both sides round
    torch.testing.assert_close(out[:2, 5].double(), want, rtol=rtol, atol=atol)


@pytest.mark.parametrize("backend", BACKENDS)
def test_non_finite_scores(backend):
    q, kv, indices = make(3, 2, 40, 10, widest(backend))
    kv[indices[0, 3].long(), 570] = math.nan  # reaches scores through the RoPE part only
    q[1, 0] = -math.inf
    kv[indices[1].long()] = kv[indices[1].long()].abs()
    out, top, lse = dsa_kernels.sparse_mla_prefill(
        q[:2], kv, indices[:2], sm_scale=SCALE, backend=backend
    )
    assert out[0].isnan().all() and lse[0].isnan().all() and top[0].isnan().all()
    assert out[1, 0].eq(0).all() and lse[1, 0] == -math.inf and top[1, 0] == -math.inf
    assert out[1, 1].isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_far_apart_do_not_overflow(backend):
    q, kv, indices = make(2, 4, 100, 80, widest(backend))
    got = dsa_kernels.sparse_mla_prefill(q * 30, kv, indices, sm_scale=1.0, backend=backend)
    check(got, q * 30, lambda r: kv[indices[r].long()], sm_scale=1.0)
    # Maxima that grow tile after tile, and ones that fall.
    order = (kv.float() @ q[0, 0].float()).argsort()
    for row in (order, order.flip(0)):
        rising = row[None].int().contiguous()
        got = dsa_kernels.sparse_mla_prefill(q[:1], kv, rising, sm_scale=1.0, backend=backend)
        check(got, q[:1], lambda r, row=row: kv[row], sm_scale=1.0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cache_format", ["v32", "v4", "bf16"])
def test_paged_cache(backend, cache_format):
    d_qk = 512 if cache_format == "v4" else 576
    g = torch.Generator().manual_seed(3)
    slots = torch.randperm(7 * 9, generator=g)[:40].tolist()
    cache, seen = paged.latent_cache(cache_format, 7, 9, slots, g, d_qk, gap=24, odd=True)
    q = torch.randn(5, 16, d_qk, generator=g).bfloat16()
    indices = torch.tensor(slots, dtype=torch.int32)[torch.randint(0, 40, (5, 30), generator=g)]
    indices[:, ::5] = torch.tensor([-1, 63, INT_MAX, INT_MIN, 64], dtype=torch.int32)[:, None]
    got = dsa_kernels.sparse_mla_prefill(
        q, cache, indices, sm_scale=SCALE, cache_format=cache_format, backend=backend
    )

    def keys_of(r):
        picked = gold.valid(indices[r], None, 0, 63)
        return torch.stack([seen[s] for s in picked])

    check(got, q, keys_of)


@pytest.mark.parametrize("backend", BACKENDS)
def test_guard_bands_and_strided_inputs(backend):
    q, kv, indices = make(3, 5, 60, 20, torch.bfloat16)
    want = dsa_kernels.sparse_mla_prefill(q, kv, indices, sm_scale=SCALE, backend=backend)
    wide_q = torch.full((3, 9, 600), math.nan, dtype=q.dtype)
    wide_q[:, 2:7, 10:586] = q
    wide_kv = torch.full((60, 640), math.nan, dtype=kv.dtype)
    wide_kv[:, 3:579] = kv
    wide_indices = torch.full((3, 30), 7, dtype=torch.int32)
    wide_indices[:, 4:24] = indices
    out = Guarded((3, 5, 512), q.dtype, strides=(5 * 520 + 8, 520, 1), shift=1)
    top = Guarded((3, 5), torch.float32, strides=(9, 1))
    lse = Guarded((3, 5), torch.float32, strides=(6, 1), shift=1)
    dsa_kernels.sparse_mla_prefill(
        wide_q[:, 2:7, 10:586],
        wide_kv[:, 3:579],
        wide_indices[:, 4:24],
        sm_scale=SCALE,
        out=out.tensor,
        max_logits=top.tensor,
        lse=lse.tensor,
        backend=backend,
    )
    for guarded, b in zip((out, top, lse), want, strict=True):
        guarded.check()
        assert_bitwise_equal(guarded.tensor, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_do_not_depend_on_the_batch_or_threads(backend, threads):
    q, kv, indices = make(7, 20, 300, 150, torch.bfloat16)
    indices[3, 10:] = -1

    def call(pick):
        return dsa_kernels.sparse_mla_prefill(
            q[pick], kv, indices[pick], sm_scale=SCALE, backend=backend
        )

    everything = torch.arange(7)
    whole = call(everything)
    order = torch.randperm(7)
    for pick in (order, everything[3:4], everything[6:7]):
        for a, b in zip(call(pick), whole, strict=True):
            assert_bitwise_equal(a, b[pick])
    for count in (1, 2, 5):
        threads(count)
        for pick in (everything, everything[:1], everything[:2]):
            for a, b in zip(call(pick), whole, strict=True):
                assert_bitwise_equal(a, b[pick])


def test_masked_entries_change_no_bit():
    q, kv, indices = make(2, 16, 100, 90, torch.bfloat16)
    want = dsa_kernels.sparse_mla_prefill(q, kv, indices, sm_scale=SCALE)
    spread = torch.full((2, 200), -1, dtype=torch.int32)
    spread[:, torch.randperm(200)[:90].sort().values] = indices
    for a, b in zip(
        dsa_kernels.sparse_mla_prefill(q, kv, spread, sm_scale=SCALE), want, strict=True
    ):
        assert_bitwise_equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_keys_is_dense_attention(backend):
    q, kv, _ = make(3, 8, 64, 64, widest(backend))
    indices = torch.arange(64, dtype=torch.int32).expand(3, 64)
    out, _, _ = dsa_kernels.sparse_mla_prefill(q, kv, indices, sm_scale=SCALE, backend=backend)
    dense = torch.nn.functional.scaled_dot_product_attention(
        q.double(), kv.double().expand(3, 64, 576), kv.double()[:, :512].expand(3, 64, 512),
        scale=SCALE,
    )  # fmt: skip
    tolerance = 1e-5 if out.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(out.double(), dense, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty(backend):
    q, kv, indices = make(3, 4, 20, 5, widest(backend))
    for rows, keys, topk in ((0, 20, 5), (3, 0, 5), (3, 20, 0)):
        out, top, lse = dsa_kernels.sparse_mla_prefill(
            q[:rows], kv[:keys], indices[:rows, :topk], sm_scale=SCALE, backend=backend
        )
        assert out.shape == (rows, 4, 512) and out.eq(0).all()
        assert top.eq(-math.inf).all() and lse.eq(-math.inf).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("topk", [1, 64, 65, 128, 129, 192, 320])
@pytest.mark.parametrize("d_qk", [576, 512])
def test_any_number_of_blocks(backend, topk, d_qk):
    q, kv, indices = make(1, 3, 400, topk, torch.bfloat16, d_qk)
    got = dsa_kernels.sparse_mla_prefill(q, kv, indices, sm_scale=SCALE, backend=backend)
    check(got, q, lambda r: kv[indices[r].long()])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("at", [0, 63, 64, 200, 299])
def test_a_maximum_that_comes_late(backend, at):
    """One key outweighs all others, wherever it lies among them."""
    q, kv, _ = make(1, 16, 301, 1, torch.bfloat16)
    indices = torch.arange(1, 301, dtype=torch.int32)[None].clone()
    indices[0, at], kv[0] = 0, kv[0] * 40
    got = dsa_kernels.sparse_mla_prefill(q, kv, indices, sm_scale=SCALE, backend=backend)
    check(got, q, lambda r: kv[indices[r].long()])


@pytest.mark.parametrize("backend", BACKENDS)
def test_maxima_that_creep_up(backend):
    """Each block's largest score is a little above the last one's, by less than a renewal takes."""
    q, kv, _ = make(1, 8, 320, 1, torch.bfloat16)
    kv = (kv[:1] + 0.01 * kv) * torch.linspace(0.1, 3, 320)[:, None]
    kv = (kv * (q[0, 0].float() @ kv[0].float()).sign()).bfloat16()
    indices = torch.arange(320, dtype=torch.int32)[None]
    got = dsa_kernels.sparse_mla_prefill(q, kv, indices, sm_scale=SCALE, backend=backend)
    check(got, q, lambda r: kv)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [-SCALE, 0.0])
def test_scale_of_either_sign(backend, scale):
    q, kv, indices = make(2, 5, 200, 150, torch.bfloat16)
    indices[:, 3:90] = -1
    out, top, lse = dsa_kernels.sparse_mla_prefill(q, kv, indices, sm_scale=scale, backend=backend)
    for r in range(2):
        keys = kv[gold.valid(indices[r], None, 0, 200)].double()
        scores = scale * q[r].double() @ keys.T
        torch.testing.assert_close(top[r].double(), scores.amax(-1), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(lse[r].double(), scores.logsumexp(-1), rtol=1e-5, atol=1e-5)
        want = scores.softmax(-1) @ keys[:, :512]
        torch.testing.assert_close(out[r].double(), want, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cache_format", ["v32", "v4", "bf16"])
def test_alignment_of_pages_changes_no_bit(backend, cache_format):
    """Pages that begin at multiples of 16 bytes, and pages that do not."""
    d_qk = 512 if cache_format == "v4" else 576
    want = None
    for gap in (9, 8, 32):
        g = torch.Generator().manual_seed(5)
        slots = list(range(2, 160))
        cache, seen = paged.latent_cache(cache_format, 40, 4, slots, g, d_qk, gap=gap, odd=True)
        q = torch.randn(1, 5, d_qk, generator=g).bfloat16()
        indices = torch.tensor(slots, dtype=torch.int32)[None]
        got = dsa_kernels.sparse_mla_prefill(
            q, cache, indices, sm_scale=SCALE, cache_format=cache_format, backend=backend
        )
        if want is None:
            check(got, q, lambda r, seen=seen: torch.stack(list(seen.values())))
            want = got
        for a, b in zip(got, want, strict=True):
            assert_bitwise_equal(a, b)


@pytest.mark.skipif("emulated" not in BACKENDS, reason="no PTX")
@pytest.mark.parametrize("cache_format", [None, "v32", "v4", "bf16"])
def test_every_schedule_gives_the_same_bytes(cache_format):
    """Six blocks, some of whose keys are not there; races are looked for."""
    d_qk = 512 if cache_format == "v4" else 576
    q, kv, indices = make(1, 70, 420, 380, torch.bfloat16, d_qk)
    if cache_format is not None:
        slots, g = range(420), torch.Generator().manual_seed(1)
        kv, _ = paged.latent_cache(cache_format, 60, 7, slots, g, d_qk, gap=32)
    indices[0, 100:120] = -1
    want = None
    for schedule in SCHEDULES:
        with emulation(*schedule):
            got = dsa_kernels.sparse_mla_prefill(
                q, kv, indices, sm_scale=SCALE, cache_format=cache_format, backend="emulated"
            )
        want = got if want is None else want
        for a, b in zip(got, want, strict=True):
            assert_bitwise_equal(a, b)


Q, KV, I = make(2, 4, 20, 5, torch.float32)  # noqa: E741
CACHE = torch.zeros(3, 4, 656, dtype=torch.uint8)
ERRORS = {
    "d_qk": (
        lambda: dsa_kernels.sparse_mla_prefill(Q[..., :320], KV[:, :320], I, sm_scale=1.0),
        ValueError,
        r"sparse_mla_prefill: d_qk must be 576 \(latent 512 \+ RoPE 64\) or 512; got 320\. "
        "Other latent ranks are not covered",
    ),
    "heads": (
        lambda: dsa_kernels.sparse_mla_prefill(torch.zeros(1, 129, 576), KV, I[:1], sm_scale=1.0),
        ValueError,
        r"num_heads must be in \[1, 128\]; got 129",
    ),
    "dtype": (
        lambda: dsa_kernels.sparse_mla_prefill(Q.half(), KV.half(), I, sm_scale=1.0),
        TypeError,
        r"q must be bfloat16 or float32 \[num_queries, num_heads, d_qk\]",
    ),
    "kv dtype": (
        lambda: dsa_kernels.sparse_mla_prefill(Q, KV.bfloat16(), I, sm_scale=1.0),
        TypeError,
        r"kv must be float32 \(the dtype of q\) \[num_kv, d_qk\] or None; got bfloat16",
    ),
    "indices dtype": (
        lambda: dsa_kernels.sparse_mla_prefill(Q, KV, I.long(), sm_scale=1.0),
        TypeError,
        r"indices must be int32 .* Convert with \.int\(\)",
    ),
    "no sm_scale": (
        lambda: dsa_kernels.sparse_mla_prefill(Q, KV, I),
        TypeError,
        "sm_scale",
    ),
    "unknown format": (
        lambda: dsa_kernels.sparse_mla_prefill(Q, CACHE, I, sm_scale=1.0, cache_format="v5"),
        ValueError,
        "cache_format must be one of v32, v4, bf16; got 'v5'",
    ),
    "format and record": (
        lambda: dsa_kernels.sparse_mla_prefill(
            Q, CACHE[..., :584].contiguous(), I, sm_scale=1.0, cache_format="v32"
        ),
        ValueError,
        r"a 'v32' cache is uint8 \[num_pages, page_size, 656\]; got uint8 \[3, 4, 584\]",
    ),
    "format and d_qk": (
        lambda: dsa_kernels.sparse_mla_prefill(Q, CACHE, I, sm_scale=1.0, cache_format="v4"),
        ValueError,
        "keys of cache_format 'v4' have d_qk = 512; got d_qk = 576",
    ),
    "kv_start with a cache": (
        lambda: dsa_kernels.sparse_mla_prefill(
            Q, CACHE, I, sm_scale=1.0, cache_format="v32", kv_start=I[:, 0].contiguous()
        ),
        ValueError,
        "kv_start must be None with a paged cache, whose indices are physical slots",
    ),
    "sink shape": (
        lambda: dsa_kernels.sparse_mla_prefill(Q, KV, I, sm_scale=1.0, attn_sink=torch.ones(3)),
        ValueError,
        r"attn_sink must be float32 \[num_heads\] with num_heads = 4",
    ),
    "grad": (
        lambda: dsa_kernels.sparse_mla_prefill(Q, KV.clone().requires_grad_(), I, sm_scale=1.0),
        ValueError,
        "kv requires grad, and this op has no backward",
    ),
}


test_errors = errors_test(ERRORS)


@pytest.mark.skipif("emulated" not in BACKENDS, reason="no PTX")
def test_cuda_refuses_float32():
    with pytest.raises(TypeError, match="q must be bfloat16 for kernels of GPUs"):
        dsa_kernels.sparse_mla_prefill(Q, KV, I, sm_scale=1.0, backend="emulated")
    out, top, lse = torch.empty(2, 4, 512), torch.empty(2, 4), torch.empty(2, 4)
    args = [Q, KV, None, I, None, None, None, 1.0, "", out, top, lse]
    with pytest.raises(RuntimeError, match="sparse_mla_prefill: the CUDA kernel takes bfloat16"):
        torch.ops.dsa_kernels.sparse_mla_prefill.emulated(*args)


def test_direct_call_with_bad_arguments_raises():
    op = torch.ops.dsa_kernels.sparse_mla_prefill
    out, top, lse = torch.empty(2, 4, 512), torch.empty(2, 4), torch.empty(2, 4)
    good = [Q, KV, None, I, None, None, None, 1.0, "", out, top, lse]
    for at, bad in (
        (0, Q.double()),
        (0, Q[..., :100]),
        (1, KV[:, :512]),
        (1, None),
        (2, CACHE),
        (3, I[:1]),
        (3, I.long()),
        (4, I[0]),
        (5, I[0]),
        (6, torch.ones(9)),
        (9, out[..., :500]),
        (9, out.bfloat16()),
        (10, top[:1]),
        (11, lse.double()),
    ):
        args = list(good)
        args[at] = bad
        with pytest.raises(RuntimeError, match="sparse_mla_prefill: "):
            op(*args)
    paged_args = [Q, None, CACHE, I, None, None, None, 1.0, "v32", out, top, lse]
    for at, bad in ((2, CACHE[..., :600]), (2, CACHE.float()), (8, "v4"), (8, "x"), (4, I[:, 0])):
        args = list(paged_args)
        args[at] = bad
        with pytest.raises(RuntimeError, match="sparse_mla_prefill: "):
            op(*args)
