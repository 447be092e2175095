"""mla_cache_gather against records decoded here, in fp64, and the block-table walk in Python."""

from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from refusals import errors_test

import dsa_kernels
from dsa_kernels.testing import Guarded, assert_bitwise_equal

BACKENDS = dsa_kernels.backends("mla_cache_gather")
INT_MIN, INT_MAX = -(2**31), 2**31 - 1
INF, NAN = math.inf, math.nan
# name -> cache_format, latent dims, record size, cache dtype
FORMATS = {
    "v32": ("v32", 512, 656, torch.uint8),
    "v4": ("v4", 448, 584, torch.uint8),
    "bf16-576": ("bf16", 512, 576, torch.bfloat16),
    "bf16-512": ("bf16", 448, 512, torch.bfloat16),
}


def e4m3_value(code: int) -> float:
    exponent, mantissa = (code >> 3) & 15, code & 7
    if code & 0x7F == 0x7F:
        return NAN
    value = mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)
    return -value if code & 0x80 else value


E4M3 = torch.tensor([e4m3_value(c) for c in range(256)], dtype=torch.float64)


def nearest_bfloat16(x: torch.Tensor) -> torch.Tensor:
    """bfloat16 nearest to fp32(x) of float64 x, ties to even, by integer arithmetic."""
    bits = x.float().view(torch.int32).long() & 0xFFFFFFFF
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return torch.where(x.isnan(), 0x7FC0, rounded).to(torch.int16).view(torch.bfloat16)


def key_at(cache, cache_format, page, token):
    """bfloat16 [d_qk]: one record, by the byte offsets of the format."""
    page_size = cache.shape[1]
    if cache_format == "bf16":
        return cache[page, token].clone()
    flat = cache[page].reshape(-1)
    if cache_format == "v32":
        at = token * 656
        codes, rope = flat[at : at + 512], flat[at + 528 : at + 656]
        scales = flat[at + 512 : at + 528].clone().view(torch.float32).double()
        group = 128
    else:
        at = token * 576
        codes, rope = flat[at : at + 448], flat[at + 448 : at + 576]
        at = page_size * 576 + token * 8
        exponents = flat[at : at + 7].tolist()
        scales = torch.tensor([NAN if e == 255 else 2.0 ** (e - 127) for e in exponents]).double()
        group = 64
    nope = E4M3[codes.long()] * scales.repeat_interleave(group)
    return torch.cat([nearest_bfloat16(nope), rope.clone().view(torch.bfloat16)])


def oracle(cache, table, bounds, starts, cache_format, out):
    """`out` after the gather, by Python loops; `out` is not changed."""
    out, num_tokens = out.clone(), out.shape[0]
    num_pages, page_size = cache.shape[:2]
    for b in range(len(table)):
        begin, end = (max(0, min(x, num_tokens)) for x in bounds[b : b + 2])
        for row in range(begin, end):
            position = (starts[b] if starts else 0) + row - begin
            page = -1
            if 0 <= position < len(table[b]) * page_size:
                page = table[b][position // page_size]
            if 0 <= page < num_pages:
                out[row] = key_at(cache, cache_format, page, position % page_size).to(out.dtype)
            else:
                out[row] = 0
    return out


def int32(values, *shape):
    t = torch.tensor(values, dtype=torch.int32)
    return t.view(*shape) if shape else t


def random_cache(name, num_pages, page_size, seed=0):
    """Random bytes everywhere but in scales, which are any finite ones, not powers of two (v32)."""
    cache_format, _, record, _ = FORMATS[name]
    g = torch.Generator().manual_seed(seed)
    if cache_format == "bf16":
        return torch.randn(num_pages, page_size, record, generator=g).bfloat16()
    cache = torch.randint(0, 256, (num_pages, page_size, record), generator=g, dtype=torch.uint8)
    flat = cache.view(num_pages, -1)
    if cache_format == "v32":
        scales = torch.rand(num_pages, page_size, 4, generator=g) * 3e-3
        rope = torch.randn(num_pages, page_size, 64, generator=g).bfloat16()
        cache[..., 512:528] = scales.view(torch.uint8)
        cache[..., 528:] = rope.view(torch.uint8)
    else:
        exponents = torch.randint(90, 135, (num_pages, page_size * 8), generator=g)
        rope = torch.randn(num_pages, page_size, 64, generator=g).bfloat16()
        data = flat[:, : page_size * 576].view(num_pages, page_size, 576)
        data[..., 448:] = rope.view(torch.uint8)
        flat[:, page_size * 576 :] = exponents.byte()
    return cache


def check(cache, table, bounds, starts, name, num_tokens, backend, dtype=torch.bfloat16):
    cache_format, nope, _, _ = FORMATS[name]
    before = torch.full((num_tokens, nope + 64), 7.0, dtype=dtype)
    out = before.clone()
    dsa_kernels.mla_cache_gather(
        cache,
        int32(table, len(table), -1) if len(table) else torch.empty(0, 3, dtype=torch.int32),
        int32(bounds),
        cache_format=cache_format,
        seq_start=None if starts is None else int32(starts),
        out=out,
        backend=backend,
    )
    expected = oracle(cache, table, bounds, starts, cache_format, before)
    assert_bitwise_equal(out, expected)
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("page_size", [1, 3, 64])
@pytest.mark.parametrize("name", FORMATS)
def test_every_value(backend, name, page_size, dtype):
    """Pages further apart than their size, and NaN bytes in between."""
    _, _, record, cache_dtype = FORMATS[name]
    cache = random_cache(name, 4, page_size)
    apart = torch.full((4, page_size * record + 24), 0xFF, dtype=torch.uint8)
    apart = apart.to(cache_dtype) if cache_dtype == torch.uint8 else apart.bfloat16() * NAN
    spread = apart.as_strided(cache.shape, (apart.stride(0), record, 1))
    spread.copy_(cache)
    lengths = [2 * page_size, 1, min(page_size + 2, 2 * page_size)]
    bounds = [0, lengths[0], lengths[0] + 1, sum(lengths)]
    table = [[3, 1], [0, 2], [2, 0]]
    check(spread, table, bounds, None, name, bounds[-1], backend, dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_codes_and_hostile_scales_v32(backend):
    scales = [
        1.0,
        0.0,
        -0.0,
        1e-45,
        1.1e-38,
        3e38,
        0.1,
        1 / 3,
        -0.7,
        INF,
        NAN,
        2.0**-22,
        1e-4 / 448,
    ]
    scales += [1.00390625, 1.01171875, 2.0**-133]  # products that tie in bfloat16, or are subnormal
    cache = torch.zeros(len(scales), 1, 656, dtype=torch.uint8)
    cache[..., :512] = torch.arange(256).repeat(2).byte()
    cache[..., 512:528] = torch.tensor(scales).repeat_interleave(4).view(-1, 1, 4).view(torch.uint8)
    table = [list(range(len(scales)))]
    out = check(cache, table, [0, len(scales)], None, "v32", len(scales), backend)
    assert out[0, :256].double().nan_to_num(9.0).tolist() == E4M3.nan_to_num(9.0).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_codes_and_all_exponents_v4(backend):
    cache = torch.full((256, 584), 0xFF, dtype=torch.uint8)  # the pad byte is not read
    cache[:, :448] = torch.arange(448).remainder(256).byte()
    cache[:, 448:576] = 0
    cache[:, 576:583] = (
        torch.arange(256)[:, None].add(torch.tensor([0, 64, 9, 128, 3, 200, 1])).byte()
    )
    cache = cache.view(256, 1, 584)
    check(cache, [list(range(256))], [0, 256], None, "v4", 256, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_special_rope_values(backend):
    for name in FORMATS:
        cache = random_cache(name, 1, 1)
        rope = torch.tensor([INF, -INF, NAN, 0.0, -0.0, 1e-40, 3e38, 1.0] * 8).bfloat16()
        if FORMATS[name][0] == "bf16":
            cache[0, 0, -64:] = rope
        else:
            at = 528 if name == "v32" else 448
            cache[0, 0, at : at + 128] = rope.view(torch.uint8)
        out = check(cache, [[0]], [0, 1], None, name, 1, backend, torch.float32)
        assert_bitwise_equal(out[0, -64:], rope.float())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "scale_format"),
    [("v32", "ue8m0"), ("v32", "float32")]
    + [(name, "ue8m0") for name in ("v4", "bf16-576", "bf16-512")],
)
def test_round_trip(backend, name, scale_format):
    """Store then gather: within half a step of e4m3 at the group's scale, by an fp64 bound."""
    cache_format, nope, record, cache_dtype = FORMATS[name]
    kv_c = (torch.randn(12, nope) * 10.0 ** torch.linspace(-6, 3, 12)[:, None]).bfloat16()
    k_pe = torch.randn(12, 64).bfloat16()
    cache = torch.full((5, 3, record), 0xFF, dtype=torch.uint8).to(cache_dtype)
    positions = torch.randperm(15)[:12]
    dsa_kernels.mla_cache_store(
        kv_c,
        k_pe,
        cache,
        positions,
        cache_format=cache_format,
        scale_format=scale_format,
        backend=backend,
    )
    out = torch.empty(12, nope + 64, dtype=torch.float32)
    for i, slot in enumerate(positions.tolist()):
        page, offset = divmod(slot, 3)
        dsa_kernels.mla_cache_gather(
            cache,
            int32([[page]]),
            int32([0, 1]),
            seq_start=int32([offset]),
            cache_format=cache_format,
            out=out[i : i + 1],
            backend=backend,
        )
    assert_bitwise_equal(out[:, nope:], k_pe.float())
    if cache_format == "bf16":
        assert_bitwise_equal(out[:, :nope], kv_c.float())
        return
    group = 128 if name == "v32" else 64
    x = kv_c.double().view(12, -1, group)
    amax = x.abs().amax(-1, keepdim=True).clamp_min(1e-4)
    scale = amax / 448 if scale_format == "float32" else 2.0 ** (amax / 448).log2().ceil()
    # Half an ulp of e4m3 (2^-4, or half of 2^-9 scales below its normal range), and of bfloat16
    # (2^-9) where scales are not powers of two.
    bound = torch.maximum(x.abs() * 2.0**-4, scale * 2.0**-10)
    bound = bound * (1 + 1e-6) + (x.abs() * 2.0**-8 if scale_format == "float32" else 0)
    assert ((out[:, :nope].double().view(x.shape) - x).abs() <= bound).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FORMATS)
def test_invalid_pages_give_zeros(backend, name):
    cache = random_cache(name, 3, 2)
    table = [[-1, 2, INT_MIN, 0], [3, 1, INT_MAX, 1]]
    out = check(cache, table, [0, 9, 18], None, name, 18, backend)  # one position past each table
    assert out[[0, 1, 4, 5, 8]].eq(0).all() and out[[2, 3]].ne(0).any()
    # Positions far outside, and a start before the request.
    table = [[0, 1, 2]]
    for start in (-3, 5, 6, 7, INT_MAX, INT_MAX - 2, INT_MIN):
        check(cache, table, [0, 9], [start], name, 9, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_seq_start(backend):
    cache = random_cache("v4", 5, 3)
    check(cache, [[4, 3], [2, 1], [0, 1]], [0, 3, 4, 9], [2, 5, 0], "v4", 9, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "bounds",
    [
        [2, 4, 4, 7],  # rows before, after, and an empty request
        [0, 0, 0, 0],
        [4, 2, 6, 6],  # a reversed span
        [0, 5, 2, 8],  # rows 2 to 4 are claimed twice: the later request has them
        [-3, 2, 5, 99],
        [INT_MIN, INT_MAX, INT_MIN, INT_MAX],
        [INT_MAX, INT_MIN, 3, 4],
    ],
)
def test_rows_outside_every_request_are_untouched(backend, bounds):
    cache = random_cache("v32", 6, 2)
    out = check(cache, [[0, 1], [2, 3], [4, 5]], bounds, None, "v32", 10, backend)
    claimed = set()
    for begin, end in itertools.pairwise(bounds):
        claimed |= set(range(max(begin, 0), min(end, 10)))
    untouched = [r for r in range(10) if r not in claimed]
    assert out[untouched].eq(7.0).all()


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_property(backend, data):
    number = st.one_of(st.integers(-2, 9), st.sampled_from([INT_MIN, INT_MAX]))
    batch, pages = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    table = [[data.draw(number) for _ in range(pages)] for _ in range(batch)]
    bounds = [data.draw(number) for _ in range(batch + 1)]
    starts = data.draw(st.none() | st.just([data.draw(number) for _ in range(batch)]))
    cache = random_cache("v32", data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3)))
    check(cache, table, bounds, starts, "v32", data.draw(st.integers(0, 8)), backend)


def large_case():
    """More rows than a block of work; spans that end within one."""
    cache = random_cache("v4", 40, 4)
    table = torch.randint(-1, 41, (5, 12), dtype=torch.int32)
    bounds = int32([3, 47, 47, 95, 130, 171])
    return cache, table, bounds, int32([0, 1, -2, 9, 7])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("falling", [False, True])
def test_many_requests(backend, falling):
    """More requests than a kernel looks at together, in order and overlapping in any order."""
    generator = torch.Generator().manual_seed(5)
    cache = random_cache("v4", 9, 3)
    table = torch.randint(-1, 10, (77, 4), generator=generator).tolist()
    bounds = torch.randint(-9, 60, (78,), generator=generator)
    bounds = bounds if falling else bounds.sort().values
    check(cache, table, bounds.tolist(), None, "v4", 50, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_rows(backend):
    cache, table, bounds, starts = large_case()
    check(cache, table.tolist(), bounds.tolist(), starts.tolist(), "v4", 180, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_do_not_depend_on_the_batch_or_threads(backend, threads):
    cache, table, bounds, starts = large_case()
    call = functools.partial(dsa_kernels.mla_cache_gather, cache_format="v4", backend=backend)
    whole = call(cache, table, bounds, seq_start=starts, num_tokens=180)
    order = torch.randperm(5)
    lengths = bounds.diff()
    for count in (1, 2, 5):
        threads(count)
        assert_bitwise_equal(call(cache, table, bounds, seq_start=starts, num_tokens=180), whole)
        permuted_bounds = torch.cat([int32([0]), lengths[order].cumsum(0).int()])
        permuted = call(
            cache, table[order], permuted_bounds, seq_start=starts[order], num_tokens=180
        )
        for new, old in enumerate(order.tolist()):
            rows = permuted[permuted_bounds[new] : permuted_bounds[new + 1]]
            assert_bitwise_equal(rows, whole[bounds[old] : bounds[old + 1]])
        for row in range(95, 130, 6):  # request 3, a row at a time
            alone = call(
                cache,
                table[3:4],
                int32([0, 1]),
                seq_start=starts[3:4] + (row - 95),
                num_tokens=1,
            )
            assert_bitwise_equal(alone[0], whole[row])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", FORMATS)
def test_guard_bands_and_strides(backend, name, dtype):
    cache_format, nope, _, _ = FORMATS[name]
    cache = random_cache(name, 6, 2)
    wide_table = torch.zeros(2, 9, dtype=torch.int32)  # entries past max_pages look valid
    wide_table[:, :2] = int32([[5, 1], [0, -1]])
    call = functools.partial(
        dsa_kernels.mla_cache_gather, cache_format=cache_format, backend=backend
    )
    clean = call(cache, wide_table[:, :2], int32([0, 5, 8]), num_tokens=8, out_dtype=dtype)
    assert clean.dtype == dtype
    for pad, shift in ((0, 0), (13, 1)):
        out = Guarded((8, nope + 64), dtype, strides=(nope + 64 + pad, 1), shift=shift)
        returned = call(cache, wide_table[:, :2], int32([0, 5, 8]), num_tokens=8, out=out.tensor)
        out.check()
        assert returned is out.tensor
        assert_bitwise_equal(out.tensor, clean)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FORMATS)
def test_unselected_records_never_matter(backend, name):
    """NaN bytes in every record, page and pad that no position reaches."""
    cache_format, _, _, cache_dtype = FORMATS[name]
    cache = random_cache(name, 4, 3)
    call = functools.partial(
        dsa_kernels.mla_cache_gather,
        block_table=int32([[2, 0]]),
        cu_seq_lens=int32([0, 4]),
        cache_format=cache_format,
        num_tokens=4,
        backend=backend,
    )
    clean = call(cache)
    assert clean.float().ne(0).any(1).all()
    cache[1], cache[3] = NAN if cache_dtype != torch.uint8 else 0xFF, 0x7F
    assert_bitwise_equal(call(cache), clean)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FORMATS)
def test_empty(backend, name):
    cache_format, nope, record, _ = FORMATS[name]
    cache = random_cache(name, 2, 3)
    call = functools.partial(
        dsa_kernels.mla_cache_gather, cache_format=cache_format, backend=backend
    )
    out = call(cache, int32([[0]]), int32([0, 4]), num_tokens=0)
    assert out.shape == (0, nope + 64)
    out = call(cache, torch.empty(0, 2, dtype=torch.int32), int32([0]), num_tokens=3)
    assert out.shape == (3, nope + 64) and out.eq(0).all()
    out = call(cache, torch.empty(1, 0, dtype=torch.int32), int32([0, 3]), num_tokens=3)
    assert out.eq(0).all()
    for shape in ((0, 3), (2, 0)):  # caches without a slot
        none = cache.new_empty((*shape, record))
        out = torch.full((3, nope + 64), 7.0)
        call(none, int32([[0, 1]]), int32([0, 2]), out=out)
        assert out[:2].eq(0).all() and out[2].eq(7.0).all()


GOOD = {
    "cache": torch.zeros(2, 3, 656, dtype=torch.uint8),
    "block_table": torch.zeros(2, 4, dtype=torch.int32),
    "cu_seq_lens": torch.zeros(3, dtype=torch.int32),
    "cache_format": "v32",
    "num_tokens": 5,
}


def with_(**changes):
    return lambda: dsa_kernels.mla_cache_gather(**{**GOOD, **changes})


ERRORS = {
    "cache dtype": (
        with_(cache=torch.zeros(2, 3, 656)),
        TypeError,
        r"mla_cache_gather: cache must be uint8 or bfloat16 \[num_pages \| page_size, record\]; "
        r"got float32 \[2, 3, 656\] on cpu",
    ),
    "not a tensor": (with_(cache=[0]), TypeError, "cache must be .* got list"),
    "cache rank": (with_(cache=GOOD["cache"][0]), ValueError, r"got uint8 \[3, 656\]"),
    "cache record": (
        with_(cache=torch.zeros(2, 3, 584, dtype=torch.uint8)),
        ValueError,
        r"a 'v32' cache is uint8 \[num_pages, page_size, 656\]; got uint8 \[2, 3, 584\]",
    ),
    "cache not packed": (
        with_(cache=torch.zeros(2, 6, 656, dtype=torch.uint8)[:, ::2]),
        ValueError,
        "cache .* must be contiguous within each num_pages entry",
    ),
    "bf16 record": (
        with_(cache=torch.zeros(2, 3, 640).bfloat16(), cache_format="bf16"),
        ValueError,
        "keys of cache_format 'bf16' have d_qk = 576 or 512; got d_qk = 640",
    ),
    "table dtype": (
        with_(block_table=GOOD["block_table"].long()),
        TypeError,
        r"block_table must be int32 .* Convert with \.int\(\)",
    ),
    "cu_seq_lens length": (
        with_(cu_seq_lens=torch.zeros(2, dtype=torch.int32)),
        ValueError,
        r"cu_seq_lens must be int32 \[batch\+1\] with batch = 2 from block_table",
    ),
    "cu_seq_lens dtype": (
        with_(cu_seq_lens=torch.zeros(3).long()),
        TypeError,
        "cu_seq_lens must be int32",
    ),
    "seq_start length": (
        with_(seq_start=torch.zeros(3, dtype=torch.int32)),
        ValueError,
        r"seq_start must be int32 \[batch\] with batch = 2 from block_table or None",
    ),
    "cache_format": (
        with_(cache_format="fp8"),
        ValueError,
        "cache_format must be one of v32, v4, bf16; got 'fp8'",
    ),
    "cache_format with out": (
        with_(cache_format="fp8", num_tokens=None, out=torch.zeros(5, 576)),
        ValueError,
        "cache_format must be one of v32, v4, bf16; got 'fp8'",
    ),
    "no size": (with_(num_tokens=None), ValueError, "num_tokens is needed where out is not given"),
    "two sizes": (
        with_(out=torch.zeros(4, 576)),
        ValueError,
        r"num_tokens must be out's number of rows; got 5 and \[4, 576\]",
    ),
    "out dims": (
        with_(out=torch.zeros(5, 512)),
        ValueError,
        "keys of cache_format 'v32' have d_qk = 576; got d_qk = 512",
    ),
    "out_dtype": (with_(out_dtype=torch.float16), TypeError, "out must be bfloat16 or float32"),
    "out overlaps": (
        with_(out=torch.zeros(1, 576).expand(5, 576)),
        ValueError,
        "out .* must not overlap itself",
    ),
    "grad": (
        with_(
            cache=torch.zeros(2, 3, 576, dtype=torch.bfloat16, requires_grad=True),
            cache_format="bf16",
        ),
        ValueError,
        "cache requires grad, and this op has no backward",
    ),
    "unknown backend": (with_(backend="cuda"), ValueError, "there is no such backend"),
}


test_errors = errors_test(ERRORS)


def test_direct_call_with_bad_arguments_raises():
    op = torch.ops.dsa_kernels.mla_cache_gather
    cache, table, bounds, _, _ = GOOD.values()
    out = torch.zeros(5, 576)
    for args in (
        (cache.float(), table, bounds, None, "v32", out),
        (cache[0], table, bounds, None, "v32", out),
        (cache[..., :584].contiguous(), table, bounds, None, "v32", out),
        (cache.transpose(0, 1), table, bounds, None, "v32", out),
        (cache, table, bounds, None, "v4", out),
        (cache, table, bounds, None, "bf16", out),
        (cache, table, bounds, None, "", out),
        (cache, table.long(), bounds, None, "v32", out),
        (cache, table.t().contiguous().t(), bounds, None, "v32", out),
        (cache, table, bounds[:2], None, "v32", out),
        (cache, table, bounds.float(), None, "v32", out),
        (cache, table, bounds, bounds, "v32", out),
        (cache, table, bounds, bounds[:2].long(), "v32", out),
        (cache, table, bounds, None, "v32", out[:, :512]),
        (cache, table, bounds, None, "v32", out.half()),
        (cache, table, bounds, None, "v32", out[0]),
    ):
        with pytest.raises(RuntimeError, match="mla_cache_gather: "):
            op(*args)
