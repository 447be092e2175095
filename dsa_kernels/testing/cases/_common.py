"""What the case files share: models' sizes, hostile data, layouts, caches and block tables."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from dsa_kernels.formats import D_V, FP8_FORMATS, FP8_MAX, INDEX_SCALE_BYTES, ROPE_DIM

INT_MIN, INT_MAX = -(2**31), 2**31 - 1
HOSTILE_INDICES = (-1, INT_MIN, INT_MAX)


@dataclass(frozen=True)
class Work:
    """Algorithmic work of one call: what any implementation must compute and move at least."""

    flops: int
    bytes: int


@dataclass(frozen=True)
class Model:
    """Attention of a published model. heads: of MLA before tensor parallelism."""

    index_heads: int
    topk: int
    heads: int
    d_qk: int
    cache_format: str
    rope_layout: str
    compression: int = 1  # tokens per indexer key


MODELS = {
    "v32": Model(64, 2048, 128, 576, "v32", "neox"),  # DeepSeek-V3.2
    "glm5": Model(32, 2048, 64, 576, "v32", "interleaved"),  # GLM-5
    "v4": Model(64, 512, 64, 512, "v4", "interleaved", 4),  # DeepSeek-V4-Flash
}
CONTEXTS = {"8k": 8192, "32k": 32768, "128k": 131072, "1m": 1 << 20}
DECODE = [
    *(("v32", context) for context in CONTEXTS),
    *(("glm5", context) for context in ("32k", "128k")),
    *(("v4", context) for context in ("128k", "1m")),
]
PREFILL = [
    *(("v32", queries) for queries in (128, 512, 1024, 8192)),
    *(("glm5", queries) for queries in (128, 2048)),
    *(("v4", queries) for queries in (512, 4096)),
]
PREFILL_CONTEXT = 8192


def decode_shapes(shape_of) -> dict[str, dict]:
    """BENCH entries `<model>-decode-<context>`; shape_of(model, keys) gives each shape."""
    return {
        f"{m}-decode-{c}": shape_of(MODELS[m], CONTEXTS[c] // MODELS[m].compression)
        for m, c in DECODE
    }


def prefill_shapes(shape_of, fraction: int = 1) -> dict[str, dict]:
    """BENCH entries `<model>-prefill-<queries>x8k`; shape_of(model, queries, keys).

    fraction: take only so many of the queries, where all would take a CPU too long.
    """
    return {
        f"{m}-prefill-{n // fraction}x8k": shape_of(
            MODELS[m], n // fraction, PREFILL_CONTEXT // MODELS[m].compression
        )
        for m, n in PREFILL
    }


def dtype_of(name: str) -> torch.dtype:
    return getattr(torch, name)


def item_bytes(name: str) -> int:
    return dtype_of(name).itemsize


def floats(
    shape, generator: torch.Generator, dtype="float32", data: str = "normal", huge: float = 1e4
) -> torch.Tensor:
    """Random values: normal, zeros (of both signs), ties, tiny (subnormal), huge, nan or inf."""
    x = torch.randn(shape, generator=generator)
    if data == "zeros":
        x = torch.where(x > 0, 0.0, -0.0)
    elif data == "ties":
        x = x.round()
    elif data == "tiny":
        x = x * 1e-40
    elif data == "huge":
        x = x * huge
    elif data in ("nan", "inf"):
        rare = torch.rand(shape, generator=generator) < 0.02
        x = torch.where(rare, x * float(data), x)
    elif data != "normal":
        raise ValueError(f"there is no data {data!r}")
    if dtype == "float8_e4m3fn":
        x = torch.where(x.isfinite(), x.clamp(-FP8_MAX, FP8_MAX), x)
    return x.to(dtype_of(dtype))


def integers(low: int, high: int, shape, generator, dtype=torch.int32) -> torch.Tensor:
    """Uniform in [low, high]."""
    return torch.randint(low, high + 1, shape, generator=generator).to(dtype)


def sprinkle(
    x: torch.Tensor, values, generator: torch.Generator, probability: float
) -> torch.Tensor:
    """`x` with `values`, one after another, at random places."""
    choice = torch.tensor(values, dtype=x.dtype)[
        torch.randint(0, len(values), x.shape, generator=generator)
    ]
    return torch.where(torch.rand(x.shape, generator=generator) < probability, choice, x)


def ragged(rng: random.Random, count: int, longest: int) -> list[int]:
    """Lengths with the edges: empty, negative, one, and the whole."""
    edges = [0, 1, longest, -2, rng.randint(0, longest)]
    return [
        rng.choice(edges) if rng.random() < 0.4 else rng.randint(0, longest) for _ in range(count)
    ]


def poisoned(shape, dtype, *, pad: int = 0, packed_from: int | None = None) -> torch.Tensor:
    """A tensor whose every byte, and every byte between its entries, is 0xff: NaN in each float
    type, -1 in each signed one. Entries of dim `packed_from` - 1 lie `pad` elements further apart
    than they need to (default: the rows, entries of the last dim but one)."""
    shape = tuple(shape)
    dtype = dtype_of(dtype) if isinstance(dtype, str) else dtype
    packed_from = len(shape) - 1 if packed_from is None else packed_from
    strides, step = [0] * len(shape), 1
    for d in reversed(range(len(shape))):
        if d == packed_from - 1:
            step += pad
        strides[d] = step
        step *= max(shape[d], 1)
    arena = torch.full((max(step, 1) * dtype.itemsize,), 0xFF, dtype=torch.uint8)
    return arena.view(dtype).as_strided(shape, strides)


def strided(x: torch.Tensor, pad: int, packed_from: int | None = None) -> torch.Tensor:
    """The values of `x`, laid out as `poisoned` does."""
    if not pad or x.dim() < 2:
        return x
    wide = poisoned(x.shape, x.dtype, pad=pad, packed_from=packed_from)
    return wide.copy_(x)


def block_table(
    lengths: list[int],
    page_size: int,
    generator: torch.Generator,
    *,
    max_pages: int | None = None,
    spare: int = 2,
    broken: float = 0.0,
) -> tuple[torch.Tensor, int]:
    """int32 [batch, max_pages] of distinct pages in random order, and how many pages there are.

    Entries past a request's last page are hostile; so are a share `broken` of those before it.
    """
    needed = [-(-max(n, 0) // page_size) for n in lengths]
    max_pages = max([*needed, 1]) if max_pages is None else max_pages
    num_pages = sum(needed) + spare
    order = torch.randperm(num_pages, generator=generator, dtype=torch.int64).to(torch.int32)
    table = sprinkle(
        torch.full((len(lengths), max_pages), -1, dtype=torch.int32),
        (*HOSTILE_INDICES, num_pages),
        generator,
        0.5,
    )
    begin = 0
    for b, count in enumerate(needed):
        table[b, :count] = order[begin : begin + min(count, max_pages)]
        begin += count
    if broken:
        table = sprinkle(table, (*HOSTILE_INDICES, num_pages), generator, broken)
    return table, num_pages


def used_slots(table: torch.Tensor, lengths: list[int], page_size: int, num_pages: int):
    """bool [num_pages * page_size]: the slots that hold a key of some request."""
    used = torch.zeros(num_pages * page_size, dtype=torch.bool)
    for b, n in enumerate(lengths):
        position = torch.arange(max(n, 0))
        page = table[b, position // page_size].long()
        valid = (page >= 0) & (page < num_pages)
        used[(page * page_size + position % page_size)[valid]] = True
    return used


def _scales(shape, generator, scale_format: str, around: int) -> torch.Tensor:
    exponent = torch.randint(around - 2, around + 2, shape, generator=generator).float()
    if scale_format == "float32":  # not powers of two
        exponent = exponent + torch.rand(shape, generator=generator)
    return torch.exp2(exponent)


def index_cache(
    num_pages: int,
    page_size: int,
    head_dim: int,
    generator: torch.Generator,
    *,
    used: torch.Tensor | None = None,
    data: str = "normal",
    scale_format: str = "ue8m0",
    pad: int = 0,
) -> torch.Tensor:
    """uint8 [num_pages, page_size, head_dim + 4] of valid records; slots not `used` are NaN."""
    slots = num_pages * page_size
    codes = floats((slots, head_dim), generator, "float8_e4m3fn", data).view(torch.uint8)
    scales = _scales((slots, 1), generator, scale_format, 0).view(torch.uint8)
    if used is not None:
        codes[~used], scales[~used] = 0xFF, 0xFF
    pages = torch.cat([codes.view(num_pages, -1), scales.view(num_pages, -1)], 1)
    shape = (num_pages, page_size, head_dim + INDEX_SCALE_BYTES)
    return strided(pages.view(shape), pad, packed_from=1)


def mla_cache(
    num_pages: int,
    page_size: int,
    cache_format: str,
    d_qk: int,
    generator: torch.Generator,
    *,
    used: torch.Tensor | None = None,
    data: str = "normal",
    scale_format: str = "ue8m0",
    pad: int = 0,
) -> torch.Tensor:
    """A latent cache of valid records (dims about 1 in size); slots that are not `used` are NaN."""
    slots = num_pages * page_size
    if used is None:
        used = torch.ones(slots, dtype=torch.bool)
    count = int(used.sum())  # large caches, of which few slots are read, cost only those
    if cache_format == "bf16":
        keys = torch.full((slots, d_qk), torch.nan, dtype=torch.bfloat16)
        keys[used] = floats((count, d_qk), generator, "bfloat16", data, huge=100.0)
        return strided(keys.view(num_pages, page_size, d_qk), pad, packed_from=1)
    fmt = FP8_FORMATS[cache_format]
    codes = floats((count, fmt.nope_dim), generator, data=data, huge=100.0) * 8
    codes = codes.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn).view(torch.uint8)
    scales = _scales((count, fmt.num_groups), generator, scale_format, -3)
    rope = floats((count, ROPE_DIM), generator, "bfloat16", data, huge=100.0).view(torch.uint8)
    if cache_format == "v32":
        parts = [torch.cat([codes, scales.view(torch.uint8), rope], 1)]
    else:
        exponents = torch.zeros((count, 8), dtype=torch.uint8)
        exponents[:, : fmt.num_groups] = (scales.log2() + 127).to(torch.uint8)
        parts = [torch.cat([codes, rope], 1), exponents]
    planes = []
    for part in parts:
        plane = torch.full((slots, part.shape[1]), 0xFF, dtype=torch.uint8)
        plane[used] = part
        planes.append(plane.view(num_pages, -1))
    pages = torch.cat(planes, 1) if len(planes) > 1 else planes[0]
    return strided(pages.view(num_pages, page_size, fmt.record), pad, packed_from=1)


def record_bytes(cache_format: str, d_qk: int) -> int:
    return 2 * d_qk if cache_format == "bf16" else FP8_FORMATS[cache_format].record


def sink(num_heads: int, generator: torch.Generator, kind: str) -> torch.Tensor | None:
    """attn_sink of a kind: none, normal, or inf (both infinities among normal ones)."""
    if kind == "none":
        return None
    x = torch.randn(num_heads, generator=generator)
    return x if kind == "normal" else sprinkle(x, (float("inf"), -float("inf")), generator, 0.3)


def attention_flops(rows: int, num_heads: int, d_qk: int, topk: int) -> int:
    return 2 * rows * num_heads * topk * (d_qk + D_V)
