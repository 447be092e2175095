"""Paged caches made by hand for tests: offsets are written out here, not taken from the package."""

from __future__ import annotations

import torch

FP8 = torch.float8_e4m3fn
RECORD = {"v32": 656, "v4": 584}


def padded_pages(num_pages, page_size, record, dtype=torch.uint8, gap=0, fill=0xFF):
    """[num_pages, page_size, record] whose pages lie `gap` elements apart; returns (cache, arena).

    0xFF bytes are NaN in fp8, bfloat16 and float32 alike.
    """
    stride = page_size * record + gap
    arena = torch.full((max(num_pages, 1) * stride,), 0, dtype=dtype)
    arena.view(torch.uint8).fill_(fill)
    return arena.as_strided((num_pages, page_size, record), (stride, record, 1)), arena


def write_index_key(cache, slot, codes, scale):
    """codes: float8 [head_dim]; scale: float. Page: all codes, then all float32 scales."""
    page, token = divmod(slot, cache.shape[1])
    dim = cache.shape[2] - 4
    flat = cache[page].view(-1)
    flat[token * dim : (token + 1) * dim] = codes.view(torch.uint8)
    at = cache.shape[1] * dim + token * 4
    flat[at : at + 4] = torch.tensor([scale], dtype=torch.float32).view(torch.uint8)


def write_latent(cache, slot, cache_format, key, exponents=None, scales=None):
    """Writes `key`, float [d_qk], and returns what a reader must see, float32 [d_qk].

    fp8 formats divide each group by its scale: 2^exponents[g], or any positive scales[g].
    """
    page, token = divmod(slot, cache.shape[1])
    if cache_format == "bf16":
        cache[page, token] = key.bfloat16()
        return key.bfloat16().float()
    nope, group = (512, 128) if cache_format == "v32" else (448, 64)
    if scales is None:
        scales = torch.exp2(exponents.float())
    codes = (key[:nope].view(-1, group) / scales[:, None]).clamp(-448, 448).to(FP8)
    rope = key[nope:].bfloat16()
    flat = cache[page].view(-1)
    if cache_format == "v32":
        at = token * 656
        flat[at : at + 512] = codes.view(torch.uint8).reshape(-1)
        flat[at + 512 : at + 528] = scales.float().view(torch.uint8)
        flat[at + 528 : at + 656] = rope.view(torch.uint8)
    else:
        at = token * 576
        flat[at : at + 448] = codes.view(torch.uint8).reshape(-1)
        flat[at + 448 : at + 576] = rope.view(torch.uint8)
        at = cache.shape[1] * 576 + token * 8
        flat[at : at + 7] = (exponents + 127).to(torch.uint8)
    nope_seen = (codes.float() * scales[:, None]).bfloat16().float().reshape(-1)
    return torch.cat([nope_seen, rope.float()])


def latent_cache(cache_format, num_pages, page_size, slots, generator, d_qk=576, gap=0, odd=False):
    """A cache with random keys in `slots` and NaN bytes everywhere else.

    odd: v32 scales that are no powers of two. Returns (cache, {slot: float32 [d_qk] as read}).
    """
    dtype = torch.bfloat16 if cache_format == "bf16" else torch.uint8
    record = d_qk if cache_format == "bf16" else RECORD[cache_format]
    cache, _ = padded_pages(num_pages, page_size, record, dtype, gap)
    seen = {}
    groups = {"v32": 4, "v4": 7, "bf16": 1}[cache_format]
    for slot in slots:
        key = torch.randn(d_qk, generator=generator)
        exponents = torch.randint(-9, -5, (groups,), generator=generator)
        scales = torch.rand(groups, generator=generator) * 0.01 + 0.003 if odd else None
        seen[slot] = write_latent(cache, slot, cache_format, key, exponents, scales)
    return cache, seen
