"""Paged latent cache to contiguous dequantised keys: contract of `mla_cache_gather`."""

from __future__ import annotations

import torch

from dsa_kernels._op import Op
from dsa_kernels.formats import CACHE_FORMATS, FP8_FORMATS, check_cache_format
from dsa_kernels.reference.mla_cache_gather import mla_cache_gather as reference


def _check(args: dict, sizes: dict) -> None:
    problem = check_cache_format(args["cache"], args["cache_format"], sizes["d_qk"])
    if problem is not None:
        OP.fail(problem)


OP = Op(
    "mla_cache_gather",
    "(Tensor cache, Tensor block_table, Tensor cu_seq_lens, Tensor? seq_start, str cache_format, "
    "Tensor(a!) out) -> ()",
    tensors={
        "cache": "uint8|bfloat16 [num_pages | page_size, record]",
        "block_table": ("int32 [batch, max_pages]", "Convert with .int()."),
        "cu_seq_lens": ("int32 [batch+1]", "Convert with .int()."),
        "seq_start": "int32 [batch]",
        "out": "bfloat16|float32 [num_tokens, d_qk]",
    },
    reference=reference,
    check=_check,
)


def mla_cache_gather(
    cache: torch.Tensor,
    block_table: torch.Tensor,
    cu_seq_lens: torch.Tensor,
    *,
    cache_format: str,
    num_tokens: int | None = None,
    seq_start: torch.Tensor | None = None,
    out_dtype: torch.dtype = torch.bfloat16,
    out: torch.Tensor | None = None,
    backend: str | None = None,
) -> torch.Tensor:
    """Reads the keys of a batch of requests out of a paged latent cache, dequantised.

        out[cu_seq_lens[b] + i] = key at position seq_start[b] + i of request b

    A value is the bfloat16 nearest to fp32 code x fp32 scale; an fp8 cache's RoPE dims and a "bf16"
    cache are bfloat16 already. Positions whose page is invalid (a table entry outside
    [0, num_pages), or a position outside the table) give zeros. Rows of `out` that belong to no
    request are untouched. Bitwise the same on every backend. The formats are FlashMLA's FP8 sparse
    caches; see dsa_kernels.formats.

    Args:
        cache: uint8 or bfloat16 [num_pages, page_size, record], packed within a page.
        block_table: int32 [batch, max_pages], physical page of each logical page of a request.
        cu_seq_lens: int32 [batch+1], where each request's rows begin, and the end. Values are
            clamped into [0, num_tokens]; a span that is empty or reversed copies nothing, and a row
            in two spans goes to the later request.
        cache_format: "v32", "v4" or "bf16".
        num_tokens: rows of an `out` that is allocated here (zeroed, as some may stay untouched).
        seq_start: int32 [batch], first position of each request to copy; None means 0.
        out_dtype: bfloat16 or float32 (the same values), of an `out` that is allocated here.
        out: [num_tokens, d_qk] to write into; d_qk is 576 for "v32", 512 for "v4".
        backend: exactly this backend, or None for the best available.

    Returns:
        [num_tokens, d_qk] keys.

    Raises:
        TypeError, ValueError: an argument that does not fit the table above, or requires grad.
    """
    if out is None:
        if num_tokens is None:
            OP.fail("num_tokens is needed where out is not given.")
        if cache_format not in CACHE_FORMATS:
            OP.fail(
                f"cache_format must be one of {', '.join(CACHE_FORMATS)}; got {cache_format!r}."
            )
        if isinstance(cache, torch.Tensor) and cache.dim() == 3:
            fmt = FP8_FORMATS.get(cache_format)
            d_qk = cache.shape[2] if fmt is None else fmt.d_qk
            out = cache.new_zeros((num_tokens, d_qk), dtype=out_dtype)
    OP.check_size_of("num_tokens", num_tokens, out, 0)
    OP(cache, block_table, cu_seq_lens, seq_start, cache_format, out, backend=backend)
    return out
