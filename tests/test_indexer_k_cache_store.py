"""indexer_k_cache_store against its steps in fp64 (indexer_oracle.py), and the page's layout."""

from __future__ import annotations

import functools
import math

import indexer_oracle as oracle
import pytest
import torch
from refusals import errors_test

import dsa_kernels
from dsa_kernels.testing import Guarded, assert_bitwise_equal

BACKENDS = dsa_kernels.backends("indexer_k_cache_store")
OP = dsa_kernels.indexer_k_cache_store
RAW = {"rope_layout": "none", "hadamard": False}


def read(cache: torch.Tensor, slots: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 codes [n, head_dim] and float32 scales [n], from offsets written out here."""
    _, page_size, record = cache.shape
    head_dim = record - 4
    codes, scales = [], []
    for slot in slots:
        page = cache[slot // page_size].reshape(-1)
        token = slot % page_size
        codes.append(page[token * head_dim : token * head_dim + head_dim])
        at = page_size * head_dim + 4 * token
        scales.append(page[at : at + 4].clone().view(torch.float32))
    return torch.stack(codes), torch.cat(scales)


def keys(num_tokens, head_dim, dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(num_tokens, head_dim, generator=generator) * 3 + 0.5).to(dtype)


def empty_cache(num_pages, page_size, head_dim):
    return torch.full((num_pages, page_size, head_dim + 4), 0xA5, dtype=torch.uint8)


def norm_of(head_dim, dtype=torch.float32):
    generator = torch.Generator().manual_seed(11)
    weight = 1 + 0.2 * torch.randn(head_dim, generator=generator)
    return weight.to(dtype), 0.1 * torch.randn(head_dim, generator=generator).to(dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("hadamard", [False, True])
@pytest.mark.parametrize("layout", ["neox", "interleaved", "none"])
@pytest.mark.parametrize(("head_dim", "page_size"), [(128, 64), (64, 3), (128, 1)])
def test_formulas(backend, dtype, norm, hadamard, layout, head_dim, page_size):
    n, eps = 40, 1e-3
    k = keys(n, head_dim, dtype)
    slots = torch.randperm(64 * 3, generator=torch.Generator().manual_seed(2))[:n]
    positions, cos_sin = torch.arange(n) % 17, oracle.rope_table(17, 64)
    weight, bias = norm_of(head_dim)
    gold = oracle.prepare(
        k, positions, cos_sin, layout, hadamard, (weight, bias, eps) if norm else None
    )
    gold_codes, gold_scales = oracle.quantize(gold.float(), "ue8m0")
    cache = empty_cache(-(-192 // page_size), page_size, head_dim)
    options = {"rope_layout": layout, "hadamard": hadamard}
    if layout != "none":
        options |= {"positions": positions, "cos_sin": cos_sin}
    if norm:
        options |= {"norm_weight": weight, "norm_bias": bias, "norm_eps": eps}
    assert OP(k, cache, slots, **options, backend=backend) is None
    codes, scales = read(cache, slots.tolist())
    assert_bitwise_equal(scales, gold_scales)
    oracle.assert_codes_close(codes, gold_codes, rate=2e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale_format", ["ue8m0", "float32"])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_raw_quantiser_is_exact(backend, scale_format, head_dim):
    k = oracle.hostile_keys(head_dim)
    expected = oracle.quantize(k, scale_format)
    cache = empty_cache(4, 32, head_dim)
    slots = torch.arange(k.shape[0]) + 5
    OP(k, cache, slots, **RAW, scale_format=scale_format, backend=backend)
    codes, scales = read(cache, slots.tolist())
    assert_bitwise_equal(codes, expected[0], "codes")
    assert_bitwise_equal(scales, expected[1], "scales")


def store_rows(k, backend, **options):
    cache = empty_cache(k.shape[0], 1, k.shape[1])
    OP(k, cache, torch.arange(k.shape[0]), **RAW, **options, backend=backend)
    return cache[:, 0, :-4], cache[:, 0, -4:].contiguous().view(torch.float32)[:, 0]


def expected_codes(x):
    """torch's own cast, with the contract's saturation and its one NaN."""
    codes = x.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)
    return torch.where(x.isnan(), 0x7F, codes.int()).to(torch.uint8)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale_format", ["ue8m0", "float32"])
def test_every_bfloat16_encodes_as_torch_casts(backend, scale_format):
    """Beside a 448 the scale is 1, so codes are those of the values."""
    values = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    values = values[~(values.float().abs() > 448)]  # NaN stays
    values = torch.cat([values, values.new_zeros(-values.numel() % 127)]).view(-1, 127)
    k = torch.cat([values, torch.full((values.shape[0], 1), 448.0, dtype=torch.bfloat16)], dim=1)
    codes, scales = store_rows(k, backend, scale_format=scale_format)
    assert scales.eq(1).all()
    assert_bitwise_equal(codes, expected_codes(k.float()))
    assert_bitwise_equal(codes, oracle.encode(k.float()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_float32_patterns_encode_as_torch_casts(backend):
    generator = torch.Generator().manual_seed(5)
    bits = torch.randint(-(2**31), 2**31 - 1, (2000, 127), generator=generator).int()
    exponent = torch.randint(127 - 14, 127 + 8, bits.shape, generator=generator).int()
    in_range = (bits & ~0x7F800000) | exponent << 23  # any sign and mantissa, 2^-14 to 2^8
    # Half of the rows lie at ties between codes, and next to them.
    ties = (in_range & ~0xFFFFF) | 0x80000
    in_range[::2] = ties[::2] + torch.randint(-1, 2, ties[::2].shape, generator=generator).int()
    k = torch.cat([in_range.view(torch.float32), torch.full((2000, 1), -448.0)], dim=1)
    codes, scales = store_rows(k, backend)
    assert scales.eq(1).all()
    assert_bitwise_equal(codes, expected_codes(k))
    anything = bits[:, :64].contiguous().view(torch.float32)
    for scale_format in ("ue8m0", "float32"):
        codes, scales = store_rows(anything, backend, scale_format=scale_format)
        expected = store_rows(anything, "reference", scale_format=scale_format)
        assert_bitwise_equal(codes, expected[0])
        assert_bitwise_equal(scales, expected[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale_format", ["ue8m0", "float32"])
def test_float32_next_to_every_code_and_tie(backend, scale_format):
    """Each e4m3 value and each midpoint of two, and the floats next to them; the scale is 1."""
    values = oracle.FP8[:127].float()
    ties = (values[1:] + values[:-1]) / 2
    exact = torch.cat([values, ties])
    near = torch.cat([exact.nextafter(torch.tensor(end)) for end in (math.inf, -math.inf)])
    x = torch.cat([exact, near, -exact, -near])
    x = x[x.abs() <= 448]
    x = torch.cat([x, x.new_zeros(-x.numel() % 127)]).view(-1, 127)
    rows = torch.cat([x, torch.full((x.shape[0], 1), 448.0)], dim=1)
    codes, scales = store_rows(rows, backend, scale_format=scale_format)
    assert scales.eq(1).all()
    assert_bitwise_equal(codes, expected_codes(rows))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("amax", "scale"),
    [
        (0.0, 2.0**-22),  # the floor: 1e-4 / 448 is 1.87 * 2^-23
        (1e-45, 2.0**-22),
        (1e-5, 2.0**-22),
        (1e-4, 2.0**-22),
        (448.0, 1.0),
        (448.00003, 2.0),
        (447.99997, 1.0),
        (3.5, 2.0**-7),
        (3.5000002, 2.0**-6),
        (1.0, 2.0**-8),
        (448.0 * 2.0**100, 2.0**100),
        (3.4028234663852886e38, 2.0**120),
        (math.inf, math.inf),
    ],
)
def test_power_of_two_scales(backend, amax, scale):
    k = torch.zeros(1, 128)
    k[0, 77] = -amax
    _, scales = store_rows(k, backend)
    assert scales.item() == scale
    _, scales = store_rows(k, backend, scale_format="float32")
    assert scales.item() == float(torch.tensor(max(amax, 1e-4)) / 448)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("layout", ["neox", "interleaved", "none"])
@pytest.mark.parametrize("hadamard", [False, True])
@pytest.mark.parametrize("scale_format", ["ue8m0", "float32"])
def test_bitwise_equal_to_reference_without_norm(backend, dtype, layout, hadamard, scale_format):
    k = torch.cat([oracle.hostile_keys(128).to(dtype), keys(100, 128, dtype)])
    n = k.shape[0]
    options = {"rope_layout": layout, "hadamard": hadamard, "scale_format": scale_format}
    if layout != "none":
        options["positions"] = (torch.arange(n) * 7 - 3) % 1003 - 1  # one is invalid
        options["cos_sin"] = oracle.rope_table(1000, 64)
    caches = []
    for choice in (backend, "reference"):
        caches.append(empty_cache(3, 64, 128))
        OP(k, caches[-1], torch.arange(n), **options, backend=choice)
    assert_bitwise_equal(*caches)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("hadamard", [False, True])
@pytest.mark.parametrize("scale_format", ["ue8m0", "float32"])
def test_norm_is_within_the_stated_rate_of_reference(backend, dtype, hadamard, scale_format):
    n = 1000
    k = keys(n, 128, dtype, seed=9) * torch.logspace(-3, 3, n)[:, None].to(dtype)
    weight, bias = norm_of(128, torch.bfloat16)
    planes = []
    for choice in (backend, "reference"):
        cache = empty_cache(n, 1, 128)
        OP(
            k,
            cache,
            torch.arange(n),
            rope_layout="neox",
            hadamard=hadamard,
            scale_format=scale_format,
            norm_weight=weight,
            norm_bias=bias,
            positions=torch.arange(n),
            cos_sin=oracle.rope_table(n, 64),
            backend=choice,
        )
        planes.append(read(cache, list(range(n))))
    (codes, scales), (expected_codes, expected_scales) = planes
    if scale_format == "ue8m0":
        assert_bitwise_equal(scales, expected_scales)
    else:
        torch.testing.assert_close(scales, expected_scales, rtol=1e-6, atol=0.0)
    oracle.assert_codes_close(codes, expected_codes, rate=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_constant_row_norms_to_the_bias(backend):
    weight, bias = norm_of(128)
    k = torch.full((2, 128), 3.0)
    cache = empty_cache(2, 1, 128)
    OP(k, cache, torch.arange(2), **RAW, norm_weight=weight, norm_bias=bias, backend=backend)
    codes, scales = read(cache, [0, 1])
    expected = oracle.quantize(bias.expand(2, 128), "ue8m0")
    assert_bitwise_equal(codes, expected[0])
    assert_bitwise_equal(scales, expected[1])


INVALID = {
    torch.int32: [-1, -(2**31), 2**31 - 1],
    torch.int64: [-1, -(2**31), -(2**63), 2**31, 2**32 + 1, 2**63 - 1],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("page_size", [1, 3, 64])
@pytest.mark.parametrize("padding", [0, 12, 7])
def test_writes_the_slots_and_nothing_else(backend, dtype, page_size, padding):
    """Guard bands around the cache and in the holes between pages; bytes of other slots stay."""
    num_pages, head_dim = 5, 64
    capacity, page_bytes = num_pages * page_size, page_size * (head_dim + 4)
    valid = sorted({0, page_size - 1, page_size, capacity // 2, capacity - 1})
    slots = torch.tensor([*valid, capacity, *INVALID[dtype]], dtype=dtype)
    slots = slots[torch.randperm(slots.numel())]
    k = keys(slots.numel(), head_dim, torch.bfloat16)
    guarded = Guarded(
        (num_pages, page_size, head_dim + 4),
        torch.uint8,
        strides=(page_bytes + padding, head_dim + 4, 1),
        shift=padding,
    ).fill(0x5A)
    OP(k, guarded.tensor, slots, **RAW, backend=backend)
    guarded.check()

    expected = torch.full((num_pages, page_bytes), 0x5A, dtype=torch.uint8)
    codes, scales = oracle.quantize(k.float(), "ue8m0")
    for token, slot in enumerate(slots.tolist()):
        if 0 <= slot < capacity:
            page, offset = divmod(slot, page_size)
            expected[page, offset * head_dim : (offset + 1) * head_dim] = codes[token]
            at = page_size * head_dim + 4 * offset
            expected[page, at : at + 4] = scales[token : token + 1].view(torch.uint8)
    assert_bitwise_equal(guarded.tensor.reshape(num_pages, page_bytes), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(0, 64), (3, 0)])
def test_cache_without_slots(backend, shape):
    cache = torch.empty(*shape, 132, dtype=torch.uint8)
    OP(keys(3, 128, torch.float32), cache, torch.tensor([0, -1, 5]), **RAW, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_tokens(backend):
    cache = empty_cache(2, 3, 128)
    slots = torch.empty(0, dtype=torch.int32)
    OP(
        keys(0, 128, torch.bfloat16),
        cache,
        slots,
        rope_layout="neox",
        hadamard=True,
        positions=slots,
        cos_sin=oracle.rope_table(4, 64),
        backend=backend,
    )
    assert cache.eq(0xA5).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_invalid_positions_are_stored_as_nan(backend):
    positions = torch.tensor([0, -1, 9, 10, 2**40, -(2**63)])
    for hadamard in (False, True):
        cache = empty_cache(6, 1, 128)
        OP(
            keys(6, 128, torch.bfloat16),
            cache,
            torch.arange(6),
            rope_layout="interleaved",
            hadamard=hadamard,
            positions=positions,
            cos_sin=oracle.rope_table(10, 64),
            backend=backend,
        )
        codes, scales = read(cache, list(range(6)))
        invalid = torch.tensor([False, True, False, True, True, True])
        assert codes[invalid].eq(0x7F).all()
        assert scales[invalid].view(torch.int32).eq(0x7FC00000).all()
        assert not codes[~invalid].eq(0x7F).any() and scales[~invalid].isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_strided_keys(backend, dtype):
    k = keys(6, 128, dtype)
    wide = torch.full((6, 300), math.nan, dtype=dtype)
    wide[:, 33:161] = k
    caches = [empty_cache(2, 3, 128) for _ in range(2)]
    for x, cache in zip((k, wide[:, 33:161]), caches, strict=True):
        OP(x, cache, torch.arange(6), **RAW, backend=backend)
    assert_bitwise_equal(*caches)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_do_not_depend_on_the_batch_or_threads(backend, threads):
    n = 150
    k = keys(n, 128, torch.bfloat16)
    weight, bias = norm_of(128)
    positions, slots = torch.arange(n) * 3, torch.randperm(192)[:n]

    def store(parts):
        cache = empty_cache(3, 64, 128)
        for rows in parts:
            OP(
                k[rows],
                cache,
                slots[rows],
                rope_layout="neox",
                hadamard=True,
                norm_weight=weight,
                norm_bias=bias,
                positions=positions[rows],
                cos_sin=cos_sin,
                backend=backend,
            )
        return cache

    cos_sin = oracle.rope_table(3 * n, 64)
    whole = store([slice(None)])
    assert_bitwise_equal(store([torch.randperm(n)]), whole)
    for count in (1, 2, 5):
        threads(count)
        assert_bitwise_equal(store([slice(None)]), whole)
        assert_bitwise_equal(store([slice(i, i + 13) for i in range(0, n, 13)]), whole)
    assert_bitwise_equal(store([slice(i, i + 1) for i in range(n)]), whole)


def bad(**changes):
    call = {
        "k": torch.zeros(4, 128),
        "cache": torch.zeros(2, 3, 132, dtype=torch.uint8),
        "slots": torch.arange(4),
        "rope_layout": "neox",
        "hadamard": False,
        "positions": torch.arange(4),
        "cos_sin": torch.zeros(8, 64),
        **changes,
    }
    return lambda: OP(**call)


ERRORS = {
    "k dtype": (
        bad(k=torch.zeros(4, 128).half()),
        TypeError,
        r"indexer_k_cache_store: k must be bfloat16 or float32 \[num_tokens, head_dim\]; "
        r"got float16 \[4, 128\] on cpu",
    ),
    "k rank": (bad(k=torch.zeros(4, 1, 128)), ValueError, "k must be"),
    "k is no tensor": (bad(k=None), TypeError, "k must be .*; got NoneType"),
    "k strided": (bad(k=torch.zeros(4, 256)[:, ::2]), ValueError, "k .* must be contiguous in its"),
    "head_dim": (
        bad(k=torch.zeros(4, 96), cache=torch.zeros(2, 3, 100, dtype=torch.uint8)),
        ValueError,
        "head_dim must be 64 or 128; got 96",
    ),
    "slots dtype": (
        bad(slots=torch.zeros(4)),
        TypeError,
        r"slots must be int32 or int64 \[num_tokens\]; got float32",
    ),
    "slots length": (
        bad(slots=torch.arange(3)),
        ValueError,
        "slots must be .* with num_tokens = 4 from k; got int64",
    ),
    "cache dtype": (
        bad(cache=torch.zeros(2, 3, 132)),
        TypeError,
        r"cache must be uint8 \[num_pages | page_size, head_dim\+4\]; got float32",
    ),
    "cache record": (
        bad(cache=torch.zeros(2, 3, 128, dtype=torch.uint8)),
        ValueError,
        "cache must be uint8 .* with head_dim = 128 from k; got uint8",
    ),
    "cache not packed": (
        bad(cache=torch.zeros(2, 3, 140, dtype=torch.uint8)[..., :132]),
        ValueError,
        "cache .* must be contiguous within each num_pages entry",
    ),
    "cache overlaps": (
        bad(cache=torch.zeros(1, 3, 132, dtype=torch.uint8).expand(2, 3, 132)),
        ValueError,
        "cache .* must not overlap itself",
    ),
    "norm_weight alone": (
        bad(norm_weight=torch.ones(128)),
        ValueError,
        "norm_weight and norm_bias go together",
    ),
    "norm_bias alone": (
        bad(norm_bias=torch.ones(128)),
        ValueError,
        "norm_weight and norm_bias go together",
    ),
    "norm_weight shape": (
        bad(norm_weight=torch.ones(64), norm_bias=torch.ones(128)),
        ValueError,
        "norm_weight must be .* with head_dim = 128 from k or None",
    ),
    "norm_bias dtype": (
        bad(norm_weight=torch.ones(128), norm_bias=torch.ones(128).half()),
        TypeError,
        "norm_bias must be float32 or bfloat16",
    ),
    "norm_eps": (
        bad(norm_weight=torch.ones(128), norm_bias=torch.ones(128), norm_eps=-1e-6),
        ValueError,
        "norm_eps must not be negative; got -1e-06",
    ),
    "norm_eps NaN": (bad(norm_eps=math.nan), ValueError, "norm_eps must not be negative; got nan"),
    "rope_layout": (
        bad(rope_layout="gptj"),
        ValueError,
        "rope_layout must be one of neox, interleaved, none; got 'gptj'",
    ),
    "no positions": (bad(positions=None), ValueError, "positions is required with rope_layout"),
    "no cos_sin": (bad(cos_sin=None), ValueError, "cos_sin is required with rope_layout 'neox'"),
    "positions without rope": (
        bad(rope_layout="none", cos_sin=None),
        ValueError,
        "positions must be None with rope_layout 'none'",
    ),
    "cos_sin without rope": (
        bad(rope_layout="none", positions=None),
        ValueError,
        "cos_sin must be None with rope_layout 'none'",
    ),
    "positions dtype": (bad(positions=torch.zeros(4)), TypeError, "positions must be int32 or"),
    "cos_sin dtype": (
        bad(cos_sin=torch.zeros(8, 64).double()),
        TypeError,
        r"cos_sin must be float32 .* Convert with \.float\(\)",
    ),
    "rope_dim odd": (bad(cos_sin=torch.zeros(8, 3)), ValueError, "rope_dim must be even"),
    "rope_dim too large": (bad(cos_sin=torch.zeros(8, 130)), ValueError, "rope_dim must .*130"),
    "scale_format": (bad(scale_format=""), ValueError, "scale_format must be one of ue8m0, float"),
    "k needs grad": (
        bad(k=torch.zeros(4, 128, requires_grad=True)),
        ValueError,
        "k requires grad, and this op has no backward",
    ),
    "norm_weight needs grad": (
        bad(norm_weight=torch.ones(128, requires_grad=True), norm_bias=torch.ones(128)),
        ValueError,
        "norm_weight requires grad, and this op has no backward",
    ),
    "unknown backend": (bad(backend="cuda"), ValueError, "backend 'cuda' was asked for"),
}


test_errors = errors_test(ERRORS)


@pytest.mark.parametrize("name", ["rope_layout", "hadamard"])
def test_required_arguments(name):
    call = functools.partial(
        OP, torch.zeros(1, 128), torch.zeros(1, 1, 132, dtype=torch.uint8), torch.arange(1)
    )
    with pytest.raises(TypeError, match=name):
        call(**{k: v for k, v in RAW.items() if k != name})


def test_direct_call_with_bad_arguments_raises():
    op = torch.ops.dsa_kernels.indexer_k_cache_store
    good = {
        "k": torch.zeros(4, 128),
        "slots": torch.arange(4),
        "norm_weight": torch.ones(128),
        "norm_bias": torch.ones(128),
        "norm_eps": 1e-6,
        "positions": torch.arange(4),
        "cos_sin": torch.zeros(8, 64),
        "rope_layout": "neox",
        "hadamard": True,
        "scale_format": "ue8m0",
        "cache": torch.zeros(2, 3, 132, dtype=torch.uint8),
    }
    op(**good)
    cache = good["cache"]
    for changes in (
        {"k": torch.zeros(4, 128).double()},
        {"k": torch.zeros(4)},
        {"k": torch.zeros(4, 256)[:, ::2]},
        {"k": torch.zeros(4, 256), "cache": torch.zeros(2, 3, 260, dtype=torch.uint8)},
        {"slots": torch.arange(3)},
        {"slots": torch.arange(8)[::2]},
        {"slots": torch.zeros(4)},
        {"norm_weight": None},
        {"norm_bias": None},
        {"norm_weight": torch.ones(127)},
        {"norm_bias": torch.ones(256)[::2]},
        {"norm_bias": torch.ones(128).double()},
        {"positions": None},
        {"cos_sin": None},
        {"positions": torch.arange(5)},
        {"cos_sin": torch.zeros(8, 130)},
        {"cos_sin": torch.zeros(8, 5)},
        {"rope_layout": "none"},
        {"rope_layout": "x"},
        {"scale_format": "x"},
        {"cache": cache.float()},
        {"cache": cache[..., :128]},
        {"cache": cache[0]},
        {"cache": torch.zeros(2, 3, 140, dtype=torch.uint8)[..., :132]},
        {"cache": torch.zeros(3, 2, 132, dtype=torch.uint8).transpose(0, 1)},
    ):
        with pytest.raises(RuntimeError, match="indexer_k_cache_store: "):
            op(**{**good, **changes})
