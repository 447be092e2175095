"""indexer_k_cache_gather: bitwise against a walk over bytes, written out here."""

from __future__ import annotations

import functools

import pytest
import torch
from refusals import errors_test

import dsa_kernels
from dsa_kernels.testing import Guarded, assert_bitwise_equal

BACKENDS = dsa_kernels.backends("indexer_k_cache_gather")
FP8 = torch.float8_e4m3fn
OP = dsa_kernels.indexer_k_cache_gather


def random_cache(num_pages, page_size, head_dim, seed=0):
    """Any bytes: NaN codes, NaN and infinite scales too."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_pages, page_size, head_dim + 4)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def int32(values):
    return torch.tensor(values, dtype=torch.int32)


def walk(cache, table, bounds, starts, num_tokens, untouched):
    """(list of code bytes, list of scale bytes) per row, from the layout's offsets."""
    num_pages, page_size, record = cache.shape
    head_dim = record - 4
    codes, scales = [untouched * head_dim] * num_tokens, [untouched * 4] * num_tokens
    pages = [bytes(page.reshape(-1).tolist()) for page in cache]
    for b in range(len(table)):
        begin = min(max(bounds[b], 0), num_tokens)
        end = min(max(bounds[b + 1], 0), num_tokens)
        for i in range(max(end - begin, 0)):
            position = (starts[b] if starts else 0) + i
            codes[begin + i], scales[begin + i] = bytes(head_dim), bytes(4)
            if not 0 <= position < len(table[b]) * page_size:
                continue
            page, token = table[b][position // page_size], position % page_size
            if 0 <= page < num_pages:
                at = token * head_dim
                codes[begin + i] = pages[page][at : at + head_dim]
                at = page_size * head_dim + 4 * token
                scales[begin + i] = pages[page][at : at + 4]
    return codes, scales


def check(got, expected):
    codes, scales = got
    for row, (code, scale) in enumerate(zip(*expected, strict=True)):
        assert bytes(codes[row].view(torch.uint8).tolist()) == code, f"codes of row {row}"
        assert bytes(scales[row : row + 1].view(torch.uint8).tolist()) == scale, f"scale {row}"


INT_MIN, INT_MAX = -(2**31), 2**31 - 1
TABLE = [[4, 0, 2], [1, -1, 5], [6, INT_MAX, INT_MIN], [3, 3, 0], [0, 1, 2]]
BOUNDS = {
    "plain": [0, 4, 9, 15, 20, 24],
    "empty requests": [0, 0, 5, 5, 24, 24],
    "rows of nobody": [3, 7, 9, 15, 15, 20],
    "past the table": [0, 24, 24, 24, 24, 24],
    "falling": [0, 12, 6, 20, 4, 24],
    "out of range": [-5, 3, 2**30, INT_MIN, INT_MAX, 24],
    "extremes": [INT_MIN, INT_MAX, INT_MIN, INT_MAX, INT_MIN, INT_MAX],
}
STARTS = {
    "none": None,
    "inside": [0, 1, 2, 3, 4],
    "outside": [-3, INT_MIN, INT_MAX, INT_MAX - 2, 2],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("starts", STARTS)
@pytest.mark.parametrize(("head_dim", "page_size"), [(128, 3), (64, 1), (64, 64)])
def test_hostile_tables(backend, bounds, starts, head_dim, page_size):
    """Any table and any lengths; outputs between guard bands, with holes between rows."""
    num_tokens = 24
    cache = random_cache(6, page_size, head_dim)
    k_out = Guarded((num_tokens, head_dim), FP8, strides=(head_dim + 9, 1), shift=1)
    scale_out = Guarded((num_tokens,), torch.float32, shift=1)
    starts = STARTS[starts]
    result = OP(
        cache,
        int32(TABLE),
        int32(BOUNDS[bounds]),
        seq_start=None if starts is None else int32(starts),
        k_out=k_out.tensor,
        scale_out=scale_out.tensor,
        backend=backend,
    )
    assert result[0] is k_out.tensor and result[1] is scale_out.tensor
    k_out.check()
    scale_out.check()
    check(result, walk(cache, TABLE, BOUNDS[bounds], starts, num_tokens, b"\xa5"))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_many_requests(backend, falling, head_dim):
    """More requests than a kernel looks at together, in order and overlapping in any order."""
    generator = torch.Generator().manual_seed(5)
    cache = random_cache(9, 16, head_dim)
    table = torch.randint(-1, 10, (77, 4), generator=generator).tolist()
    bounds = torch.randint(-9, 160, (78,), generator=generator)
    bounds = (bounds if falling else bounds.sort().values).tolist()
    outputs = {
        "k_out": torch.full((150, head_dim), 0xA5, dtype=torch.uint8).view(FP8),
        "scale_out": torch.full((600,), 0xA5, dtype=torch.uint8).view(torch.float32),
    }
    got = OP(cache, int32(table), int32(bounds), **outputs, backend=backend)
    check(got, walk(cache, table, bounds, None, 150, b"\xa5"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_positions_beyond_int32(backend):
    """A table that reaches past 2^31 positions, and a request that begins just before them."""
    page_size, num_tokens = 4096, 9
    start = INT_MAX - 4
    table = torch.full((1, start // page_size + 2), -1, dtype=torch.int32)
    table[0, -2:] = int32([1, 0])
    cache = random_cache(2, page_size, 64)
    codes, scales = OP(
        cache,
        table,
        int32([0, num_tokens]),
        seq_start=int32([start]),
        num_tokens=num_tokens,
        backend=backend,
    )
    for row in range(num_tokens):
        page, token = (1, page_size - 5 + row) if row < 5 else (0, row - 5)
        flat = cache[page].reshape(-1)
        assert_bitwise_equal(codes[row].view(torch.uint8), flat[64 * token : 64 * token + 64])
        scale = flat[64 * page_size + 4 * token :][:4]
        assert_bitwise_equal(scales[row : row + 1].view(torch.uint8), scale)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("padding", [0, 12, 7])
def test_padded_pages_and_a_strided_table(backend, padding):
    page_size, head_dim, num_tokens = 3, 64, 15
    cache = random_cache(5, page_size, head_dim)
    page_bytes = page_size * (head_dim + 4)
    apart = torch.full((5, page_bytes + padding), 0x7F, dtype=torch.uint8)
    apart[:, :page_bytes] = cache.view(5, page_bytes)
    apart = apart[:, :page_bytes].view(5, page_size, head_dim + 4)
    table = torch.full((2, 9), INT_MAX, dtype=torch.int32)
    table[:, 4:7] = int32([[4, 0, 1], [2, 3, 1]])
    bounds = [0, 7, 15]
    got = OP(apart, table[:, 4:7], int32(bounds), num_tokens=num_tokens, backend=backend)
    check(got, walk(cache, table[:, 4:7].tolist(), bounds, None, num_tokens, b""))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("page_size", [1, 3, 64])
@pytest.mark.parametrize("scale_format", ["ue8m0", "float32"])
def test_round_trip(backend, page_size, scale_format):
    """What indexer_k_cache_store writes comes back as indexer_q_rope_quant quantises it."""
    n, head_dim, num_pages = 100, 128, 130
    k = torch.randn(n, head_dim).bfloat16()
    max_pages = -(-n // page_size)
    table = torch.randperm(num_pages)[:max_pages].int()
    position = torch.arange(n)
    slots = table[position // page_size].long() * page_size + position % page_size
    cache = torch.full((num_pages, page_size, head_dim + 4), 0xFF, dtype=torch.uint8)
    raw = {"rope_layout": "none", "hadamard": False, "scale_format": scale_format}
    raw["backend"] = backend
    dsa_kernels.indexer_k_cache_store(k, cache, slots, **raw)
    codes, scales = OP(cache, table[None], int32([0, n]), num_tokens=n, backend=backend)
    expected = dsa_kernels.indexer_q_rope_quant(k[:, None], torch.ones(n, 1), **raw)
    assert_bitwise_equal(codes, expected[0][:, 0])
    assert_bitwise_equal(scales, expected[1][:, 0])
    error = (codes.float() * scales[:, None] - k.float()).abs().amax(1)
    assert (error <= 16.001 * scales).all()  # half a step of the largest codes


@pytest.mark.parametrize("backend", BACKENDS)
def test_requests_do_not_depend_on_the_batch_or_threads(backend, threads):
    batch, page_size, max_pages = 7, 64, 5
    cache = random_cache(40, page_size, 128)
    table = torch.randperm(40)[: batch * max_pages].view(batch, max_pages).int()
    lengths = [300, 0, 1, 63, 64, 65, 320]
    bounds = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    call = functools.partial(OP, cache, num_tokens=bounds[-1], backend=backend)
    whole = call(table, int32(bounds))
    for count in (1, 2, 5):
        threads(count)
        for x, y in zip(call(table, int32(bounds)), whole, strict=True):
            assert_bitwise_equal(x.view(torch.uint8), y.view(torch.uint8))
        for b, length in enumerate(lengths):
            alone = OP(
                cache, table[b : b + 1], int32([0, length]), num_tokens=length, backend=backend
            )
            for x, y in zip(alone, whole, strict=True):
                part = y[bounds[b] : bounds[b + 1]]
                assert_bitwise_equal(x.view(torch.uint8), part.view(torch.uint8))


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty(backend):
    cache = random_cache(2, 3, 64)
    codes, scales = OP(cache, int32([[0]]), int32([0, 0]), num_tokens=0, backend=backend)
    assert codes.shape == (0, 64) and scales.shape == (0,)
    no_requests = torch.empty(0, 4, dtype=torch.int32)
    scales = torch.full((2,), 5.0)
    codes, result = OP(cache, no_requests, int32([0]), scale_out=scales, backend=backend)
    assert codes.shape == (2, 64) and result is scales and scales.eq(5).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
@pytest.mark.parametrize("max_pages", [0, 2])
def test_nothing_to_find(backend, shape, max_pages):
    """No pages, pages of no slots, tables of no entries: zeros."""
    cache = torch.empty(*shape, 68, dtype=torch.uint8)
    table = torch.zeros(1, max_pages, dtype=torch.int32)
    codes, scales = OP(cache, table, int32([0, 4]), num_tokens=4, backend=backend)
    assert codes.view(torch.uint8).eq(0).all() and scales.eq(0).all()


def test_one_output_is_enough():
    cache = random_cache(2, 3, 64)
    whole = OP(cache, int32([[0, 1]]), int32([0, 5]), num_tokens=5)
    k_out = torch.zeros(5, 64, dtype=FP8)
    got = OP(cache, int32([[0, 1]]), int32([0, 5]), k_out=k_out, num_tokens=5)
    assert got[0] is k_out
    for x, y in zip(got, whole, strict=True):
        assert_bitwise_equal(x, y)


def bad(**changes):
    call = {
        "cache": random_cache(2, 3, 64),
        "block_table": int32([[0, 1], [1, 0]]),
        "cu_seq_lens": int32([0, 2, 5]),
        "num_tokens": 5,
        **changes,
    }
    return lambda: OP(**call)


ERRORS = {
    "no size": (
        bad(num_tokens=None),
        ValueError,
        "indexer_k_cache_gather: num_tokens is needed when neither k_out nor scale_out is given",
    ),
    "negative size": (bad(num_tokens=-1), ValueError, "not negative; got -1"),
    "size against k_out": (
        bad(k_out=torch.zeros(4, 64, dtype=FP8)),
        ValueError,
        "num_tokens must be the rows of k_out and scale_out, and not negative; got 5",
    ),
    "outputs against each other": (
        bad(k_out=torch.zeros(5, 64, dtype=FP8), scale_out=torch.zeros(4)),
        ValueError,
        r"scale_out must be float32 \[num_tokens\] with num_tokens = 5 from k_out; got float32 \[4",
    ),
    "cache dtype": (
        bad(cache=torch.zeros(2, 3, 68)),
        TypeError,
        r"cache must be uint8 \[num_pages | page_size, head_dim\+4\]; got float32",
    ),
    "cache is no tensor": (bad(cache=None), TypeError, "cache must be uint8 .*; got NoneType"),
    "cache rank": (bad(cache=torch.zeros(3, 68).byte()), ValueError, "cache must be uint8"),
    "record too small": (bad(cache=torch.zeros(2, 3, 2).byte()), ValueError, "cache must be uint8"),
    "head_dim": (
        bad(cache=torch.zeros(2, 3, 656).byte()),
        ValueError,
        "head_dim must be 64 or 128; got 652",
    ),
    "cache not packed": (
        bad(cache=torch.zeros(2, 3, 80).byte()[..., :68]),
        ValueError,
        "cache .* must be contiguous within each num_pages entry",
    ),
    "block_table dtype": (
        bad(block_table=torch.zeros(2, 2).long()),
        TypeError,
        r"block_table must be int32 \[batch, max_pages\]; got int64",
    ),
    "block_table strided": (
        bad(block_table=torch.zeros(2, 4, dtype=torch.int32)[:, ::2]),
        ValueError,
        "block_table .* must be contiguous in its last dim",
    ),
    "cu_seq_lens length": (
        bad(cu_seq_lens=int32([0, 5])),
        ValueError,
        r"cu_seq_lens must be int32 \[batch\+1\] with batch = 2 from block_table; got int32 \[2\]",
    ),
    "cu_seq_lens dtype": (
        bad(cu_seq_lens=torch.zeros(3).long()),
        TypeError,
        "cu_seq_lens must be int32",
    ),
    "seq_start length": (
        bad(seq_start=int32([0])),
        ValueError,
        "seq_start must be .* with batch = 2 from block_table or None",
    ),
    "seq_start dtype": (bad(seq_start=torch.zeros(2)), TypeError, "seq_start must be int32"),
    "k_out dtype": (
        bad(k_out=torch.zeros(5, 64, dtype=torch.uint8)),
        TypeError,
        "k_out must be float8_e4m3fn",
    ),
    "k_out head_dim": (
        bad(k_out=torch.zeros(5, 128, dtype=FP8)),
        ValueError,
        "k_out must be .* with head_dim = 64 from cache",
    ),
    "k_out overlaps": (
        bad(k_out=torch.zeros(1, 64, dtype=FP8).expand(5, 64)),
        ValueError,
        "k_out .* must not overlap itself",
    ),
    "scale_out needs grad": (
        bad(scale_out=torch.zeros(5, requires_grad=True)),
        ValueError,
        "scale_out requires grad, and this op has no backward",
    ),
    "unknown backend": (bad(backend="cuda"), ValueError, "backend 'cuda' was asked for"),
}


test_errors = errors_test(ERRORS)


def test_direct_call_with_bad_arguments_raises():
    op = torch.ops.dsa_kernels.indexer_k_cache_gather
    good = {
        "cache": random_cache(2, 3, 64),
        "block_table": int32([[0, 1], [1, 0]]),
        "cu_seq_lens": int32([0, 2, 5]),
        "seq_start": int32([0, 1]),
        "k_out": torch.zeros(5, 64, dtype=FP8),
        "scale_out": torch.zeros(5),
    }
    op(**good)
    for changes in (
        {"cache": good["cache"].int()},
        {"cache": good["cache"][0]},
        {"cache": good["cache"][..., :60]},
        {"cache": torch.zeros(2, 3, 80).byte()[..., :68]},
        {"block_table": good["block_table"][0]},
        {"block_table": good["block_table"].long()},
        {"block_table": good["block_table"].t()},
        {"cu_seq_lens": int32([0, 5])},
        {"cu_seq_lens": int32([0, 0, 2, 2, 5])[::2]},
        {"seq_start": int32([0])},
        {"seq_start": torch.zeros(2)},
        {"k_out": torch.zeros(5, 128, dtype=FP8)},
        {"k_out": torch.zeros(4, 64, dtype=FP8)},
        {"k_out": torch.zeros(5, 64)},
        {"scale_out": torch.zeros(6)},
        {"scale_out": torch.zeros(10)[::2]},
        {"scale_out": torch.zeros(5).double()},
    ):
        with pytest.raises(RuntimeError, match="indexer_k_cache_gather: "):
            op(**{**good, **changes})
