"""What `sparse_mla_prefill` and `sparse_mla_decode` share: selections, and the keys they select."""

from __future__ import annotations

import torch

from dsa_kernels.formats import FP8_FORMATS, ROPE_DIM, V4_SCALE_BYTES
from dsa_kernels.testing.cases._common import HOSTILE_INDICES, INT_MAX, integers, sprinkle

SELECTIONS = ["random", "random", "hostile", "duplicates", "first_invalid", "none_valid"]
SM_SCALE = 192**-0.5


def select(rows: tuple, topk: int, capacity: int, selection: str, generator) -> torch.Tensor:
    """int32 [*rows, topk] of valid indices, some of them made invalid as `selection` says."""
    shape = (*rows, topk)
    # A pool, so that some slots are selected by no query and can hold NaN.
    pool = torch.randperm(capacity, generator=generator)[: max(1, capacity * 3 // 4)]
    indices = pool[torch.randint(0, pool.numel(), shape, generator=generator)].int()
    if selection == "duplicates":
        indices = indices[..., :1].expand(shape).contiguous()
    elif selection == "hostile":
        indices = sprinkle(indices, (*HOSTILE_INDICES, capacity), generator, 0.3)
    elif selection == "first_invalid":
        indices[..., :64] = -1
    elif selection == "none_valid":
        indices = sprinkle(torch.full_like(indices, -1), HOSTILE_INDICES, generator, 0.5)
    return indices


def lengths(rows: tuple, topk: int, generator) -> torch.Tensor:
    """int32 [*rows] of numbers of entries to read, edges included."""
    return sprinkle(
        integers(0, topk, rows, generator), (0, -2, 1, topk, topk + 5, INT_MAX), generator, 0.4
    )


def read(indices, topk_length, capacity: int, start=None) -> torch.Tensor:
    """bool [capacity]: the keys that some query reads."""
    index = indices.long()
    valid = index >= 0
    if start is not None:
        index = index + start[:, None]
    valid &= (index >= 0) & (index < capacity)
    if topk_length is not None:
        valid &= torch.arange(indices.shape[-1]) < topk_length[..., None]
    used = torch.zeros(capacity, dtype=torch.bool)
    used[index[valid]] = True
    return used


def latent_keys(cache: torch.Tensor, cache_format: str, used: torch.Tensor) -> torch.Tensor:
    """float32 [n, d_qk]: dequantised keys of the slots that are `used`."""
    num_pages, page_size, record = cache.shape
    if cache_format == "bf16":
        return cache.reshape(-1, record)[used].float()
    fmt = FP8_FORMATS[cache_format]
    pages = cache.reshape(num_pages, -1)
    data = pages[:, : page_size * fmt.data_bytes].reshape(-1, fmt.data_bytes)[used]
    if cache_format == "v4":
        scales = pages[:, page_size * fmt.data_bytes :].reshape(-1, V4_SCALE_BYTES)[used]
        scales = torch.exp2(scales[:, : fmt.num_groups].float() - 127)
    else:
        end = fmt.scale_offset + 4 * fmt.num_groups
        scales = data[:, fmt.scale_offset : end].contiguous().view(torch.float32)
    codes = data[:, : fmt.nope_dim].contiguous().view(torch.float8_e4m3fn).float()
    rope = data[:, fmt.rope_offset : fmt.rope_offset + 2 * ROPE_DIM].contiguous()
    return torch.cat(
        [codes * scales.repeat_interleave(fmt.group_dim, 1), rope.view(torch.bfloat16).float()], 1
    )


def random_queries(rng) -> dict:
    return dict(
        num_heads=rng.choice([1, 2, 7, 16, 64, 128]),
        topk=rng.choice([1, 64, 2048 if rng.random() < 0.3 else 128, rng.randint(1, 200)]),
        dtype=rng.choice(["bfloat16", "float32"]),
        selection=rng.choice(SELECTIONS),
        topk_length=rng.random() < 0.5,
        attn_sink=rng.choice(["none", "normal", "inf"]),
        data=rng.choice(["normal", "normal", "zeros", "ties", "huge"]),
        sm_scale=rng.choice([SM_SCALE, 0.1352, 1.0]),
        pad=rng.choice([0, 0, 8]),
    )
