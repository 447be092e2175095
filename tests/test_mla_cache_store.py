"""mla_cache_store: every byte, against offsets and a quantiser written out here."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from refusals import errors_test

import dsa_kernels
from dsa_kernels.testing import Guarded, assert_bitwise_equal

BACKENDS = dsa_kernels.backends("mla_cache_store")
INF, NAN = math.inf, math.nan
# cache_format, latent dims, record size, cache dtype
FORMATS = {
    "v32": ("v32", 512, 656, torch.uint8),
    "v4": ("v4", 448, 584, torch.uint8),
    "bf16-576": ("bf16", 512, 576, torch.bfloat16),
    "bf16-512": ("bf16", 448, 512, torch.bfloat16),
}
SCALES = [("v32", "ue8m0"), ("v32", "float32"), ("v4", "ue8m0")]
ALL = [*SCALES, ("bf16-576", "ue8m0"), ("bf16-512", "ue8m0")]

# The non-negative finite e4m3fn values, by code.
E4M3 = torch.tensor(
    [m * 2.0**-9 if e == 0 else (8 + m) * 2.0 ** (e - 10) for e in range(16) for m in range(8)][
        :127
    ],
    dtype=torch.float64,
)


def nearest_code(x: torch.Tensor) -> torch.Tensor:
    """uint8 code of the e4m3fn value nearest to each float32, by search; ties to the even code."""
    magnitude = x.double().abs().clamp(max=448.0)
    high = torch.searchsorted(E4M3, magnitude.nan_to_num(0.0)).clamp(max=126)
    low = (high - 1).clamp(min=0)
    above, below = E4M3[high] - magnitude, magnitude - E4M3[low]
    code = torch.where((below < above) | ((below == above) & (low % 2 == 0)), low, high)
    code = code + 128 * torch.signbit(x)
    return torch.where(x.isnan(), 0x7F, code).to(torch.uint8)


def quantize(x: torch.Tensor, group: int, scale_format: str):
    """Codes and float32 scales of float32 [n, dim]."""
    codes, scales = torch.empty(x.shape, dtype=torch.uint8), []
    for row in range(x.shape[0]):
        for begin in range(0, x.shape[1], group):
            part = x[row, begin : begin + group]
            amax = max([abs(v) for v in part.tolist() if not math.isnan(v)], default=0.0)
            floor = torch.tensor(1e-4)  # float32
            scale = torch.maximum(torch.tensor(amax), floor) / 448.0
            if scale_format == "ue8m0" and scale != INF:
                mantissa, exponent = math.frexp(float(scale))
                scale = torch.tensor(2.0 ** (exponent - 1 if mantissa == 0.5 else exponent))
            codes[row, begin : begin + group] = nearest_code(part / scale)
            scales.append(scale)
    return codes, torch.stack(scales).view(x.shape[0], -1)


def bfloat16_bits(x: torch.Tensor) -> torch.Tensor:
    """int16 bits of the nearest bfloat16, ties to even, by integer arithmetic; NaN is 0x7fc0."""
    bits = x.float().contiguous().view(torch.int32).long() & 0xFFFFFFFF
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return torch.where(x.isnan(), 0x7FC0, rounded).to(torch.int16)


def expected_cache(before, kv_c, k_pe, slots, cache_format, scale_format):
    """`before` (contiguous) after the store, byte for byte."""
    cache = before.clone()
    num_pages, page_size, _ = cache.shape
    rope = bfloat16_bits(k_pe).view(torch.uint8)
    for i, slot in enumerate(slots.tolist()):
        if not 0 <= slot < num_pages * page_size:
            continue
        page, token = divmod(slot, page_size)
        if cache_format == "bf16":
            bits = torch.cat([bfloat16_bits(kv_c[i]), bfloat16_bits(k_pe[i])])
            cache[page, token] = bits.view(torch.bfloat16)
            continue
        group = 128 if cache_format == "v32" else 64
        codes, scales = quantize(kv_c[i : i + 1].float(), group, scale_format)
        flat = cache[page].view(-1)
        if cache_format == "v32":
            at = token * 656
            flat[at : at + 512] = codes[0]
            flat[at + 512 : at + 528] = scales[0].view(torch.uint8)
            flat[at + 528 : at + 656] = rope[i]
        else:
            at = token * 576
            flat[at : at + 448] = codes[0]
            flat[at + 448 : at + 576] = rope[i]
            at = page_size * 576 + token * 8
            exponents = [255 if s == INF else 126 + math.frexp(s)[1] for s in scales[0].tolist()]
            flat[at : at + 8] = torch.tensor([*exponents, 0], dtype=torch.uint8)
    return cache


def as_bytes(cache):
    return cache.contiguous().view(torch.uint8)


def new_cache(name, num_pages, page_size):
    _, _, record, dtype = FORMATS[name]
    fill = torch.full((num_pages, page_size, record * dtype.itemsize), 0xC3, dtype=torch.uint8)
    return fill.view(dtype)


def random_inputs(name, n, dtype=torch.bfloat16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    nope = FORMATS[name][1]
    spread = 2.0 ** torch.randint(-12, 8, (n, nope // 64, 1), generator=generator)
    kv_c = torch.randn(n, nope // 64, 64, generator=generator) * spread
    k_pe = torch.randn(n, 64, generator=generator)
    return kv_c.view(n, nope).to(dtype), k_pe.to(dtype)


def hostile_inputs(name, dtype):
    """A row for each hostile group; its other groups are normal."""
    big = torch.finfo(torch.float32).max
    groups = [
        [0.0],
        [-0.0],
        [1e-45, -1e-40, 0.0],  # subnormals
        [1e-4],  # the floor itself
        [math.nextafter(1e-4, 1.0) * 1.001, 1e-6],  # just over it
        [9.9e-5, -3e-5],  # just under it
        [448.0, -448.0, 1.0, 2.0**-9, 2.0**-10, 3 * 2.0**-10],  # scale exactly 1; subnormal ties
        [448.5, 17.0, 19.0, 21.0, 23.0],  # scale just over a power of two
        [447.9, 17.0, 19.0, 1.0625, 1.1875, 1.3125],  # scale 1, ties both ways
        [896.0, 464.0, 480.0, 0.25],
        [big, -big, 1.0],
        [big, 1e-38],
        [INF, 1.0, -2.0],
        [-INF, INF, NAN],
        [NAN, 3.0, -1.0],
        [NAN],
        [1.18e-38, 1.0],
    ]
    kv_c, k_pe = random_inputs(name, len(groups), dtype, seed=1)
    for row, values in enumerate(groups):
        start = 128 * (row % 3)
        pattern = torch.tensor(values).repeat(128)[:128]
        kv_c[row, start : start + 128] = pattern.to(dtype)
        k_pe[row, : len(values)] = torch.tensor(values).to(dtype)
    return kv_c, k_pe


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("page_size", [1, 3, 64])
@pytest.mark.parametrize(("name", "scale_format"), ALL)
def test_every_byte(backend, name, scale_format, page_size, dtype):
    """Padded pages: everything between them, and every record that no slot names, is untouched."""
    cache_format, _, record, cache_dtype = FORMATS[name]
    num_pages, n = 4, min(9, 4 * page_size)
    kv_c, k_pe = random_inputs(name, n, dtype)
    slots = torch.randperm(num_pages * page_size)[:n]
    before = new_cache(name, num_pages, page_size)
    for pad, shift in ((0, 0), (24, 1)):
        strides = (page_size * record + pad, record, 1)
        cache = Guarded(before.shape, cache_dtype, strides=strides, shift=shift).fill(before)
        result = dsa_kernels.mla_cache_store(
            kv_c,
            k_pe,
            cache.tensor,
            slots,
            cache_format=cache_format,
            scale_format=scale_format,
            backend=backend,
        )
        assert result is None
        cache.check()
        expected = expected_cache(before, kv_c, k_pe, slots, cache_format, scale_format)
        assert_bitwise_equal(as_bytes(cache.tensor), as_bytes(expected))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("name", "scale_format"), ALL)
def test_hostile_values(backend, name, scale_format, dtype):
    kv_c, k_pe = hostile_inputs(name, dtype)
    cache_format = FORMATS[name][0]
    before = new_cache(name, 7, 3)
    slots = torch.randperm(21)[: len(kv_c)].int()
    store = functools.partial(
        dsa_kernels.mla_cache_store, cache_format=cache_format, scale_format=scale_format
    )
    cache = before.clone()
    store(kv_c, k_pe, cache, slots, backend=backend)
    expected = expected_cache(before, kv_c, k_pe, slots, cache_format, scale_format)
    assert_bitwise_equal(as_bytes(cache), as_bytes(expected))
    reference = before.clone()
    store(kv_c, k_pe, reference, slots, backend="reference")
    assert_bitwise_equal(as_bytes(cache), as_bytes(reference))


@pytest.mark.parametrize("backend", BACKENDS)
def test_known_records(backend):
    """Worked by hand: amax 448 gives scale 1; zeros give the floor, 2^-22 (0x69 = 105)."""
    kv_c, k_pe = torch.zeros(1, 512), torch.zeros(1, 64)
    kv_c[0, :3] = torch.tensor([448.0, 1.0, -(2.0**-9)])
    k_pe[0, 0] = 1.0
    cache = torch.full((1, 1, 656), 0xFF, dtype=torch.uint8)
    dsa_kernels.mla_cache_store(
        kv_c, k_pe, cache, torch.tensor([0]), cache_format="v32", backend=backend
    )
    record = cache[0, 0].tolist()
    assert record[:4] == [0x7E, 0x38, 0x81, 0x00]
    assert record[512:516] == [0, 0, 0x80, 0x3F]
    assert record[516:520] == [0, 0, 0x80, 0x34]  # 2^-22
    assert record[528:531] == [0x80, 0x3F, 0]
    cache = torch.full((1, 1, 584), 0xFF, dtype=torch.uint8)
    dsa_kernels.mla_cache_store(
        kv_c[:, :448], k_pe, cache, torch.tensor([0]), cache_format="v4", backend=backend
    )
    record = cache[0, 0].tolist()
    assert record[:4] == [0x7E, 0x38, 0x81, 0x00]
    assert record[448:451] == [0x80, 0x3F, 0]
    assert record[576:] == [127, *[105] * 6, 0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("name", FORMATS)
def test_invalid_slots_are_skipped(backend, name, dtype):
    """The cache is the middle of a larger one, so that a near miss lands where it is seen."""
    cache_format = FORMATS[name][0]
    capacity = 5 * 3
    bad = [-1, -2, -(2**31), capacity, capacity + 1, 2**31 - 1]
    if dtype == torch.int64:
        bad += [-(2**63), 2**63 - 1, 2**32, 2**32 + 4, -(2**32)]
    slots = torch.tensor([0, *bad, capacity - 1], dtype=dtype)
    kv_c, k_pe = random_inputs(name, len(slots))
    kv_c[1:-1], k_pe[1:-1] = NAN, NAN
    before = new_cache(name, 9, 3)
    cache = before.clone()
    dsa_kernels.mla_cache_store(
        kv_c, k_pe, cache[2:7], slots, cache_format=cache_format, backend=backend
    )
    inner = expected_cache(before[2:7], kv_c, k_pe, slots, cache_format, "ue8m0")
    expected = torch.cat([before[:2], inner, before[7:]])
    assert_bitwise_equal(as_bytes(cache), as_bytes(expected))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FORMATS)
def test_strided_inputs(backend, name):
    """kv_c and k_pe as slices of one projection, as engines have them."""
    cache_format, nope, _, _ = FORMATS[name]
    kv_c, k_pe = random_inputs(name, 6)
    joint = torch.full((6, nope + 64 + 9), NAN, dtype=torch.bfloat16)
    joint[:, 5 : 5 + nope], joint[:, 5 + nope : 5 + nope + 64] = kv_c, k_pe
    slots = torch.tensor([4, 1, 0, 7, -1, 5])
    plain, strided = new_cache(name, 3, 3), new_cache(name, 3, 3)
    store = functools.partial(
        dsa_kernels.mla_cache_store, cache_format=cache_format, backend=backend
    )
    store(kv_c, k_pe, plain, slots)
    store(joint[:, 5 : 5 + nope], joint[:, 5 + nope : 5 + nope + 64], strided, slots)
    assert_bitwise_equal(as_bytes(strided), as_bytes(plain))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FORMATS)
def test_tokens_do_not_depend_on_the_batch_or_threads(backend, name, threads):
    cache_format = FORMATS[name][0]
    kv_c, k_pe = random_inputs(name, 40)
    slots = torch.randperm(48)[:40]
    store = functools.partial(
        dsa_kernels.mla_cache_store, cache_format=cache_format, backend=backend
    )
    whole = new_cache(name, 16, 3)
    store(kv_c, k_pe, whole, slots)
    order = torch.randperm(40)
    for count in (1, 2, 5):
        threads(count)
        permuted = new_cache(name, 16, 3)
        store(kv_c[order], k_pe[order], permuted, slots[order])
        assert_bitwise_equal(as_bytes(permuted), as_bytes(whole))
        alone = new_cache(name, 16, 3)
        for i in range(40):
            store(kv_c[i : i + 1], k_pe[i : i + 1], alone, slots[i : i + 1])
        assert_bitwise_equal(as_bytes(alone), as_bytes(whole))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FORMATS)
def test_empty(backend, name):
    cache_format = FORMATS[name][0]
    kv_c, k_pe = random_inputs(name, 2)
    store = functools.partial(
        dsa_kernels.mla_cache_store, cache_format=cache_format, backend=backend
    )
    cache = new_cache(name, 2, 3)
    store(kv_c[:0], k_pe[:0], cache, torch.empty(0, dtype=torch.int64))
    assert_bitwise_equal(as_bytes(cache), as_bytes(new_cache(name, 2, 3)))
    for shape in ((0, 3), (2, 0)):
        store(kv_c, k_pe, cache.new_empty((*shape, cache.shape[2])), torch.tensor([0, 1]))


GOOD = {
    "kv_c": torch.zeros(4, 512),
    "k_pe": torch.zeros(4, 64),
    "cache": torch.zeros(2, 3, 656, dtype=torch.uint8),
    "slots": torch.arange(4),
    "cache_format": "v32",
}
V4_CACHE = torch.zeros(2, 3, 584, dtype=torch.uint8)


def with_(**changes):
    return lambda: dsa_kernels.mla_cache_store(**{**GOOD, **changes})


ERRORS = {
    "kv_c dtype": (
        with_(kv_c=torch.zeros(4, 512).half()),
        TypeError,
        r"mla_cache_store: kv_c must be bfloat16 or float32 \[num_tokens, nope_dim\]; "
        r"got float16 \[4, 512\] on cpu",
    ),
    "not a tensor": (with_(kv_c=None), TypeError, "kv_c must be .* got NoneType"),
    "kv_c rank": (with_(kv_c=torch.zeros(4, 1, 512)), ValueError, r"got float32 \[4, 1, 512\]"),
    "kv_c strided": (
        with_(kv_c=torch.zeros(512, 4).t()),
        ValueError,
        "kv_c .* must be contiguous in its last dim",
    ),
    "latent rank": (
        with_(kv_c=torch.zeros(4, 256)),
        ValueError,
        r"keys of cache_format 'v32' have d_qk = 576; got d_qk = 320\. "
        r"\(d_qk is kv_c's 256 dims and k_pe's 64\.\)",
    ),
    "v4 latent": (
        with_(cache=V4_CACHE, cache_format="v4"),
        ValueError,
        "keys of cache_format 'v4' have d_qk = 512; got d_qk = 576",
    ),
    "k_pe dtype": (
        with_(k_pe=torch.zeros(4, 64).bfloat16()),
        TypeError,
        r"k_pe must be float32 \(the dtype of kv_c\)",
    ),
    "k_pe dims": (
        with_(k_pe=torch.zeros(4, 32)),
        ValueError,
        r"k_pe must be .* \[num_tokens, 64\]",
    ),
    "k_pe tokens": (
        with_(k_pe=torch.zeros(5, 64)),
        ValueError,
        "k_pe must be .* with num_tokens = 4 from kv_c",
    ),
    "slots dtype": (
        with_(slots=torch.zeros(4)),
        TypeError,
        r"slots must be int32 or int64 \[num_tokens\]; got float32 \[4\]",
    ),
    "slots length": (with_(slots=torch.arange(3)), ValueError, "with num_tokens = 4 from kv_c"),
    "cache record": (
        with_(cache=V4_CACHE),
        ValueError,
        r"a 'v32' cache is uint8 \[num_pages, page_size, 656\]; got uint8 \[2, 3, 584\]",
    ),
    "cache dtype": (
        with_(cache=torch.zeros(2, 3, 656).bfloat16()),
        ValueError,
        "a 'v32' cache is uint8 .* got bfloat16",
    ),
    "cache float": (
        with_(cache=torch.zeros(2, 3, 656)),
        TypeError,
        "cache must be uint8 or bfloat16",
    ),
    "cache not packed": (
        with_(cache=torch.zeros(2, 6, 656, dtype=torch.uint8)[:, ::2]),
        ValueError,
        "cache .* must be contiguous within each num_pages entry; got strides",
    ),
    "cache overlaps": (
        with_(cache=torch.zeros(1, 3, 656, dtype=torch.uint8).expand(2, 3, 656)),
        ValueError,
        "cache .* is written, so it must not overlap itself",
    ),
    "cache_format": (
        with_(cache_format="v41"),
        ValueError,
        "cache_format must be one of v32, v4, bf16; got 'v41'",
    ),
    "scale_format": (
        with_(scale_format="e8m0"),
        ValueError,
        "scale_format must be one of ue8m0, float32; got 'e8m0'",
    ),
    "float32 scales in v4": (
        with_(kv_c=torch.zeros(4, 448), cache=V4_CACHE, cache_format="v4", scale_format="float32"),
        ValueError,
        "scale_format 'float32' needs a 'v32' cache; a 'v4' cache has no float32 scales",
    ),
    "float32 scales in bf16": (
        with_(cache=torch.zeros(2, 3, 576).bfloat16(), cache_format="bf16", scale_format="float32"),
        ValueError,
        "scale_format 'float32' needs a 'v32' cache; a 'bf16' cache",
    ),
    "kv_c grad": (
        with_(kv_c=torch.zeros(4, 512, requires_grad=True)),
        ValueError,
        "kv_c requires grad, and this op has no backward",
    ),
    "k_pe grad": (
        with_(k_pe=torch.zeros(4, 64, requires_grad=True)),
        ValueError,
        "k_pe requires grad",
    ),
    "unknown backend": (with_(backend="cuda"), ValueError, "there is no such backend"),
}


test_errors = errors_test(ERRORS)


def test_direct_call_with_bad_arguments_raises():
    op = torch.ops.dsa_kernels.mla_cache_store
    kv_c, k_pe, cache, slots, _ = GOOD.values()
    for args in (
        (kv_c.half(), k_pe.half(), slots, "v32", "ue8m0", cache),
        (kv_c[0], k_pe, slots, "v32", "ue8m0", cache),
        (kv_c[:, :448], k_pe, slots, "v32", "ue8m0", cache),
        (kv_c.t().contiguous().t(), k_pe, slots, "v32", "ue8m0", cache),
        (kv_c, k_pe[:3], slots, "v32", "ue8m0", cache),
        (kv_c, k_pe[:, :32], slots, "v32", "ue8m0", cache),
        (kv_c, k_pe.bfloat16(), slots, "v32", "ue8m0", cache),
        (kv_c, k_pe, slots[:3], "v32", "ue8m0", cache),
        (kv_c, k_pe, slots.float(), "v32", "ue8m0", cache),
        (kv_c, k_pe, slots, "v41", "ue8m0", cache),
        (kv_c, k_pe, slots, "v4", "ue8m0", V4_CACHE),
        (kv_c, k_pe, slots, "v32", "ue8m0", V4_CACHE),
        (kv_c, k_pe, slots, "v32", "e8m0", cache),
        (kv_c, k_pe, slots, "bf16", "ue8m0", cache),
        (kv_c[:, :448], k_pe, slots, "v4", "float32", V4_CACHE),
        (kv_c, k_pe, slots, "v32", "ue8m0", cache[0]),
        (kv_c, k_pe, slots, "v32", "ue8m0", cache.transpose(0, 1)),
        (kv_c, k_pe, slots, "v32", "ue8m0", cache.to(torch.int32)),
    ):
        with pytest.raises(RuntimeError, match="mla_cache_store: "):
            op(*args)
