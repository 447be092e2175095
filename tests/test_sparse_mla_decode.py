"""sparse_mla_decode against softmax attention in fp64 over records placed byte by byte."""

from __future__ import annotations

import math

import gold
import paged
import pytest
import torch
from refusals import errors_test
from test_sparse_mla_prefill import check

import dsa_kernels
from dsa_kernels.testing import Guarded, assert_bitwise_equal
from dsa_kernels.testing.emulation import SCHEDULES, emulation

BACKENDS = dsa_kernels.backends("sparse_mla_decode")
SCALE = 69 / 512  # exact in float32, as the kernels hold it
INT_MIN, INT_MAX = -(2**31), 2**31 - 1
FORMATS = {"v32": 576, "v4": 512, "bf16": 576, "bf16-512": 512}


class Case:
    """Queries over a cache whose every other byte is NaN: unselected slots, gaps between pages."""

    def __init__(self, fmt, batch=2, next_n=3, heads=16, page_size=5, topk=40, seed=0, gap=40):
        self.fmt, d_qk = fmt.partition("-")[0], FORMATS[fmt]
        g = torch.Generator().manual_seed(seed)
        self.capacity = 12 * page_size
        chosen = torch.randperm(self.capacity, generator=g)[:45].tolist()
        self.cache, self.seen = paged.latent_cache(
            self.fmt, 12, page_size, chosen, g, d_qk, gap=gap, odd=True
        )
        pick = torch.randint(0, len(chosen), (batch, next_n, topk), generator=g)
        self.indices = torch.tensor(chosen, dtype=torch.int32)[pick]
        self.q = torch.randn(batch, next_n, heads, d_qk, generator=g).bfloat16()

    def run(self, backend, **more):
        args = {"q": self.q, "indices": self.indices, "sm_scale": SCALE, **more}
        return dsa_kernels.sparse_mla_decode(
            cache=self.cache, cache_format=self.fmt, backend=backend, **args
        )

    def keys(self, indices, length=None):
        picked = gold.valid(indices, length, 0, self.capacity)
        return torch.stack([self.seen[s] for s in picked]) if picked else torch.zeros(0, 1)


def check_decode(got, q, keys_of, sink=None):
    """keys_of(b, n): the keys that query token n of request b attends to."""
    out, lse = got
    next_n = q.shape[1]
    rows = q.flatten(0, 1)
    keys = [keys_of(r // next_n, r % next_n) for r in range(rows.shape[0])]
    top = torch.stack([gold.attention(rows[r], keys[r], SCALE, sink)[1] for r in range(len(rows))])
    check((out.flatten(0, 1), top.float(), lse.flatten(0, 1)), rows, lambda r: keys[r], sink, SCALE)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(
    ("heads", "next_n", "page_size"),
    [(1, 1, 64), (16, 3, 5), (17, 2, 1), (32, 1, 5), (33, 1, 16), (128, 2, 7)],
)
def test_formula(backend, fmt, heads, next_n, page_size):
    case = Case(fmt, heads=heads, next_n=next_n, page_size=page_size)
    got = case.run(backend)
    check_decode(got, case.q, lambda b, n: case.keys(case.indices[b, n]))
    if backend == "emulated":
        return  # which refuses float32: test_cuda_refuses_float32
    exact = case.run(backend, q=case.q.float())
    assert exact[0].dtype == torch.float32
    torch.testing.assert_close(got[0].float(), exact[0], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_alignment_of_pages_changes_no_bit(backend, fmt):
    """Pages that begin at multiples of 16 bytes, and pages that do not."""
    want = None
    for gap in (9, 8, 32):
        case = Case(fmt, batch=1, page_size=2, topk=70, heads=5, gap=gap)
        got = case.run(backend, attn_sink=torch.ones(5))
        want = got if want is None else want
        for a, b in zip(got, want, strict=True):
            assert_bitwise_equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", [-SCALE, 0.0])
def test_scale_of_either_sign(backend, scale):
    case = Case("v32", batch=1, topk=150)
    case.indices[0, 0, 3:90] = -1
    out, lse = case.run(backend, sm_scale=scale)
    for n in range(3):
        keys = case.keys(case.indices[0, n]).double()
        scores = scale * case.q[0, n].double() @ keys.T
        torch.testing.assert_close(lse[0, n].double(), scores.logsumexp(-1), rtol=1e-5, atol=1e-5)
        want = scores.softmax(-1) @ keys[:, :512]
        torch.testing.assert_close(out[0, n].double(), want, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("at", [0, 63, 64, 200, 299])
def test_a_maximum_that_comes_late(backend, at):
    """One key outweighs all others, wherever it lies among them."""
    case = Case("bf16", batch=1, next_n=1, topk=300)
    slot = int(case.indices[0, 0, 0])
    case.indices[case.indices == slot] = case.indices[case.indices != slot][0]
    case.indices[0, 0, at] = slot
    page, token = divmod(slot, case.cache.shape[1])
    case.cache[page, token] *= 40
    case.seen[slot] = case.cache[page, token].float()
    check_decode(case.run(backend), case.q, lambda b, n: case.keys(case.indices[b, n]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fmt", FORMATS)
def test_hostile_slots_lengths_and_sink(backend, fmt):
    case = Case(fmt, batch=5, next_n=2, topk=70)
    case.indices[0, 0] = -1
    case.indices[0, 1, :64] = -1
    case.indices[1, :, ::3] = INT_MIN
    case.indices[1, :, 1::3] = INT_MAX
    case.indices[2, :, ::2] = case.capacity
    case.indices[3] = case.indices[3, 0, 0]  # duplicates
    lengths = torch.tensor(
        [[70, 70], [70, 69], [1000, 64], [3, 0], [-5, INT_MIN]], dtype=torch.int32
    )
    sink = torch.randn(16)
    got = case.run(backend, topk_length=lengths, attn_sink=sink)
    check_decode(got, case.q, lambda b, n: case.keys(case.indices[b, n], lengths[b, n]), sink)
    for b, n in ((0, 0), (3, 1), (4, 0), (4, 1)):
        assert got[0][b, n].eq(0).all() and got[1][b, n].eq(-math.inf).all()
    beyond = case.indices.clone()
    for b in range(5):
        for n in range(2):
            beyond[b, n, max(int(lengths[b, n]), 0) :] = 1
    again = case.run(backend, indices=beyond, topk_length=lengths, attn_sink=sink)
    assert_bitwise_equal(again[0], got[0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fmt", ["v32", "v4", "bf16"])
def test_second_scope(backend, fmt):
    """One softmax over both scopes, each with its own page size, lengths and capacity."""
    window, rest = Case(fmt, page_size=5), Case(fmt, page_size=3, topk=25, seed=1)
    lengths = torch.tensor([[25, 0, 7], [-1, 24, 25]], dtype=torch.int32)
    rest.indices[0, 0, ::4] = rest.capacity
    sink = torch.randn(16)
    extra = {
        "extra_cache": rest.cache,
        "extra_indices": rest.indices,
        "extra_topk_length": lengths,
        "attn_sink": sink,
    }
    got = window.run(backend, **extra)

    def keys_of(b, n):
        first = window.keys(window.indices[b, n])
        second = rest.keys(rest.indices[b, n], lengths[b, n])
        return torch.cat([first, second]) if second.numel() else first

    check_decode(got, window.q, keys_of, sink)
    nothing = torch.full_like(window.indices, -1)
    only_extra = window.run(backend, indices=nothing, **extra)
    check_decode(
        only_extra, window.q, lambda b, n: rest.keys(rest.indices[b, n], lengths[b, n]), sink
    )


@pytest.mark.skipif("emulated" not in BACKENDS, reason="no PTX")
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(
    ("heads", "topk", "page_size", "gap"),
    [(9, 270, 5, 40), (30, 270, 5, 40), (70, 270, 5, 40), (100, 550, 4, 32)],
)
def test_every_schedule_gives_the_same_bytes(fmt, heads, topk, page_size, gap):
    """Blocks of two scopes, split over many CTAs and over few; races are looked for."""
    case = Case(fmt, batch=1, next_n=1, heads=heads, topk=topk, page_size=page_size, gap=gap)
    case.indices[0, 0, 100:120] = -1
    rest = Case(
        fmt, batch=1, next_n=1, heads=heads, page_size=page_size - 2, topk=30, seed=1, gap=gap
    )
    more = {"extra_cache": rest.cache, "extra_indices": rest.indices}
    for batch_invariant in (False, True):
        want = None
        for schedule in SCHEDULES:
            with emulation(*schedule):
                got = case.run("emulated", batch_invariant=batch_invariant, **more)
            want = got if want is None else want
            for a, b in zip(got, want, strict=True):
                assert_bitwise_equal(a, b)
        keys = torch.cat([case.keys(case.indices[0, 0]), rest.keys(rest.indices[0, 0])])
        gold_out, _, gold_lse = gold.attention(case.q[0, 0], keys, SCALE)
        torch.testing.assert_close(want[0][0, 0].double(), gold_out, rtol=2e-2, atol=2e-2)
        torch.testing.assert_close(want[1][0, 0].double(), gold_lse, rtol=1e-5, atol=1e-5)


# CUDA kernels for prefill and decode sum in different orders.
@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "emulated"])
def test_equals_prefill_on_the_same_cache(backend):
    case = Case("v32")
    out, lse = case.run(backend)
    flat, _, flat_lse = dsa_kernels.sparse_mla_prefill(
        case.q.flatten(0, 1),
        case.cache,
        case.indices.flatten(0, 1),
        sm_scale=SCALE,
        cache_format="v32",
        backend=backend,
    )
    assert_bitwise_equal(out.flatten(0, 1), flat)
    assert_bitwise_equal(lse.flatten(0, 1), flat_lse)


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_merge_into_the_whole(backend):
    """Attention over two halves of the selection, merged by lse, is attention over all of it."""
    case = Case("bf16", topk=40)
    q = case.q.float() if backend != "emulated" else case.q
    sink = torch.randn(16)
    whole, _ = case.run(backend, q=q, attn_sink=sink)
    parts = [case.run(backend, q=q, indices=case.indices[..., i : i + 20]) for i in (0, 20)]
    outs, lses = (torch.stack([p[i].flatten(0, 1) for p in parts]) for i in range(2))
    merged, _ = dsa_kernels.merge_attention_states(outs, lses, attn_sink=sink)
    tolerance = 1e-5 if q.dtype == torch.float32 else 2**-7  # outs rounded to bfloat16
    torch.testing.assert_close(merged, whole.flatten(0, 1), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_guard_bands_and_strides(backend):
    case = Case("v4")
    want = case.run(backend)
    wide_q = torch.full((2, 3, 20, 530), math.nan, dtype=case.q.dtype)
    wide_q[:, :, 2:18, 7:519] = case.q
    wide_indices = torch.full((2, 4, 50), 1, dtype=torch.int32)
    wide_indices[:, 1:, 5:45] = case.indices
    out = Guarded((2, 3, 16, 512), case.q.dtype, strides=(30000, 9000, 520, 1), shift=1)
    lse = Guarded((2, 3, 16), torch.float32, strides=(70, 20, 1))
    case.run(
        backend,
        q=wide_q[:, :, 2:18, 7:519],
        indices=wide_indices[:, 1:, 5:45],
        out=out.tensor,
        lse=lse.tensor,
    )
    for guarded, b in zip((out, lse), want, strict=True):
        guarded.check()
        assert_bitwise_equal(guarded.tensor, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_do_not_depend_on_the_batch_or_threads(backend, threads):
    case = Case("v32", batch=4, next_n=2, heads=37, topk=150)
    case.indices[2, 0, 5:] = -1
    whole = case.run(backend)
    assert_bitwise_equal(case.run(backend, batch_invariant=True)[0], whole[0])
    order = torch.tensor([2, 0, 3, 1])
    for pick in (order, order[:1], order[2:3]):
        got = case.run(backend, q=case.q[pick], indices=case.indices[pick])
        for a, b in zip(got, whole, strict=True):
            assert_bitwise_equal(a, b[pick])
    for count in (1, 2, 5):
        threads(count)
        for pick in (slice(None), slice(1, 2)):
            got = case.run(backend, q=case.q[pick], indices=case.indices[pick])
            for a, b in zip(got, whole, strict=True):
                assert_bitwise_equal(a, b[pick])


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_invariance_where_a_large_batch_splits_less(backend):
    """CUDA splits a row's keys the more the fewer rows there are, unless told not to."""
    case = Case("bf16", batch=70, next_n=1, heads=1, topk=530)
    whole = case.run(backend, batch_invariant=True)
    rows = torch.tensor([0, 69])
    for few in (rows, rows[:1]):
        got = case.run(backend, q=case.q[few], indices=case.indices[few], batch_invariant=True)
        for a, b in zip(got, whole, strict=True):
            assert_bitwise_equal(a, b[few])


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "reference"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_heads_do_not_depend_on_each_other(backend, fmt):
    """On CUDA, two groups of 64 heads share the keys that they dequantise."""
    case = Case(fmt, batch=1, next_n=1, heads=128, page_size=4, topk=1600, gap=32)
    case.indices[0, 0, 10:50] = case.capacity
    case.indices[0, 0, 70:1500:3] = -1
    lengths = torch.full((1, 1), 1590, dtype=torch.int32)
    more = {"topk_length": lengths, "batch_invariant": True}
    whole = case.run(backend, **more)
    check_decode(whole, case.q, lambda b, n: case.keys(case.indices[b, n], lengths[b, n]))
    for heads in (slice(0, 64), slice(64, 128)):
        part = case.run(backend, q=case.q[:, :, heads], **more)
        for a, b in zip(part, whole, strict=True):
            assert_bitwise_equal(a, b[:, :, heads])


@pytest.mark.parametrize("heads", [16, 100])
def test_a_row_does_not_depend_on_how_threads_share_it(heads, threads):
    # Three splits of its keys, and of 100 heads two groups.
    case = Case("v32", batch=1, next_n=1, heads=heads, topk=1200)
    whole = None
    for count in (1, 2, 3, 5):
        threads(count)
        got = case.run("native")
        whole = got if whole is None else whole
        for a, b in zip(got, whole, strict=True):
            assert_bitwise_equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty(backend):
    case = Case("v32")
    out, lse = case.run(backend, q=case.q[:0], indices=case.indices[:0])
    assert out.shape == (0, 3, 16, 512) and lse.shape == (0, 3, 16)
    out, lse = case.run(backend, indices=case.indices[..., :0])
    assert out.eq(0).all() and lse.eq(-math.inf).all()
    out, lse = dsa_kernels.sparse_mla_decode(
        case.q, case.cache[:0], case.indices, sm_scale=1.0, cache_format="v32", backend=backend
    )
    assert out.eq(0).all() and lse.eq(-math.inf).all()


@pytest.mark.slow
@pytest.mark.parametrize("cache_format", ["v32", "bf16"])
def test_byte_offsets_past_4_gib(cache_format):
    """The last slots of a cache larger than 2^32 bytes."""
    record, dtype = (656, torch.uint8) if cache_format == "v32" else (576, torch.bfloat16)
    page_bytes = 64 * record * dtype.itemsize
    num_pages = (2**32 + 2**28) // page_bytes
    torch.use_deterministic_algorithms(False)  # do not fill 4 GiB with poison
    cache = torch.empty(num_pages, 64, record, dtype=dtype)
    slots = [num_pages * 64 - 1, num_pages * 64 - 64, (2**32 // page_bytes) * 64, 3]
    g = torch.Generator().manual_seed(0)
    exponents = torch.tensor([-8, -7, -6, -9])
    seen = {}
    for slot in slots:
        cache[slot // 64].view(torch.uint8).fill_(0xFF)
    for slot in slots:
        key = torch.randn(576, generator=g)
        seen[slot] = paged.write_latent(cache, slot, cache_format, key, exponents)
    q = torch.randn(1, 1, 16, 576, generator=g).bfloat16()
    indices = torch.tensor([[slots]], dtype=torch.int32)
    got = dsa_kernels.sparse_mla_decode(
        q, cache, indices, sm_scale=SCALE, cache_format=cache_format
    )
    check_decode(got, q, lambda b, n: torch.stack([seen[s] for s in slots]))


GOOD = Case("v32")
EXTRA = {"extra_cache": GOOD.cache, "extra_indices": GOOD.indices}


def call(**change):
    args = {
        "q": GOOD.q,
        "cache": GOOD.cache,
        "indices": GOOD.indices,
        "sm_scale": 1.0,
        "cache_format": "v32",
        **change,
    }
    return dsa_kernels.sparse_mla_decode(**args)


ERRORS = {
    "d_qk": (
        {"q": GOOD.q[..., :128]},
        ValueError,
        "sparse_mla_decode: d_qk must be 576 .* or 512; got 128",
    ),
    "heads": (
        {"q": GOOD.q[:, :, :1].expand(-1, -1, 130, -1)},
        ValueError,
        r"num_heads must be in \[1, 128\]; got 130",
    ),
    "format": ({"cache_format": "fp8"}, ValueError, "cache: cache_format must be one of v32"),
    "extra format": (
        {**EXTRA, "extra_cache": GOOD.cache[..., :584].contiguous()},
        ValueError,
        r"extra_cache must be uint8 \(the dtype of cache\) .* with record = 656 from cache",
    ),
    "extra without indices": (
        {"extra_cache": GOOD.cache},
        ValueError,
        "extra_cache and extra_indices must be given together",
    ),
    "extra length alone": (
        {"extra_topk_length": torch.zeros(2, 3, dtype=torch.int32)},
        ValueError,
        "extra_topk_length needs extra_cache and extra_indices",
    ),
    "topk_length shape": (
        {"topk_length": torch.zeros(2, dtype=torch.int32)},
        ValueError,
        r"topk_length must be int32 \[batch, next_n\] or None; got int32 \[2\]",
    ),
    "indices dtype": ({"indices": GOOD.indices.long()}, TypeError, r"Convert with \.int\(\)"),
    "grad": (
        {"q": GOOD.q.clone().requires_grad_()},
        ValueError,
        "q requires grad, and this op has no backward",
    ),
}


test_errors = errors_test(ERRORS, call)


@pytest.mark.skipif("emulated" not in BACKENDS, reason="no PTX")
def test_cuda_refuses_float32():
    with pytest.raises(TypeError, match="q must be bfloat16 for kernels of GPUs"):
        GOOD.run("emulated", q=GOOD.q.float())
    out, lse = torch.empty(2, 3, 16, 512), torch.empty(2, 3, 16)
    args = [GOOD.q.float(), GOOD.cache, GOOD.indices, *[None] * 5, 1.0, "v32", False, out, lse]
    with pytest.raises(RuntimeError, match="sparse_mla_decode: the CUDA kernel takes bfloat16"):
        torch.ops.dsa_kernels.sparse_mla_decode.emulated(*args)


def test_direct_call_with_bad_arguments_raises():
    op = torch.ops.dsa_kernels.sparse_mla_decode
    out, lse = torch.empty_like(GOOD.q[..., :512]), torch.empty(2, 3, 16)
    lengths = torch.zeros(2, 3, dtype=torch.int32)
    good = [GOOD.q, GOOD.cache, GOOD.indices, lengths, None, None, None, None]
    good += [1.0, "v32", False, out.contiguous(), lse]
    for at, bad in (
        (0, GOOD.q.half()),
        (1, GOOD.cache[..., :600]),
        (1, GOOD.cache.transpose(0, 1)),
        (2, GOOD.indices[:1]),
        (3, lengths[:1]),
        (4, torch.zeros(3)),
        (5, GOOD.cache),
        (6, GOOD.indices),
        (9, "v4"),
        (9, "nothing"),
        (11, out.float()),
        (12, lse[:1]),
    ):
        args = list(good)
        args[at] = bad
        with pytest.raises(RuntimeError, match="sparse_mla_decode: "):
            op(*args)
