"""Latents and RoPE keys into the paged latent cache: contract of `mla_cache_store`."""

from __future__ import annotations

import torch

from dsa_kernels._op import Op
from dsa_kernels.formats import ROPE_DIM, SCALE_FORMATS, check_cache_format
from dsa_kernels.reference.mla_cache_store import mla_cache_store as reference


def _check(args: dict, sizes: dict) -> None:
    problem = check_cache_format(args["cache"], args["cache_format"], sizes["nope_dim"] + ROPE_DIM)
    if problem is not None:
        OP.fail(f"{problem} (d_qk is kv_c's {sizes['nope_dim']} dims and k_pe's {ROPE_DIM}.)")
    scale_format, cache_format = args["scale_format"], args["cache_format"]
    if scale_format not in SCALE_FORMATS:
        OP.fail(f"scale_format must be one of {', '.join(SCALE_FORMATS)}; got {scale_format!r}.")
    if scale_format == "float32" and cache_format != "v32":
        OP.fail(
            f"scale_format 'float32' needs a 'v32' cache; a {cache_format!r} cache has no float32 "
            "scales. Leave it at 'ue8m0'."
        )


OP = Op(
    "mla_cache_store",
    "(Tensor kv_c, Tensor k_pe, Tensor slots, str cache_format, str scale_format, "
    "Tensor(a!) cache) -> ()",
    tensors={
        "kv_c": "bfloat16|float32 [num_tokens, nope_dim]",
        "k_pe": f"=kv_c [num_tokens, {ROPE_DIM}]",
        "slots": "int32|int64 [num_tokens]",
        "cache": "uint8|bfloat16 [num_pages | page_size, record]",
    },
    reference=reference,
    check=_check,
)


def mla_cache_store(
    kv_c: torch.Tensor,
    k_pe: torch.Tensor,
    cache: torch.Tensor,
    slots: torch.Tensor,
    *,
    cache_format: str,
    scale_format: str = "ue8m0",
    backend: str | None = None,
) -> None:
    """Quantises latents and writes them, with their RoPE dims, into a paged latent cache.

    Per group of 128 dims ("v32") or 64 ("v4"), in fp32:

        scale = max(amax, 1e-4) / 448;  "ue8m0" rounds it up to a power of two
        code  = float8_e4m3fn nearest to x / scale, ties to even, saturating

    amax ignores NaN, whose code is NaN. An infinite value makes its group's scale infinite ("v4":
    NaN), so the whole group reads back as NaN. RoPE dims, and all dims of a "bf16" cache, are
    rounded to the nearest bfloat16, NaN to 0x7fc0. Bitwise the same on every backend. Source:
    DeepSeek-V3.2's act_quant and FlashMLA's FP8 sparse caches; see dsa_kernels.formats.

    Args:
        kv_c: bfloat16 or float32 [num_tokens, nope_dim], the normed latent; nope_dim is 512 for
            "v32", 448 for "v4", either for "bf16".
        k_pe: kv_c's dtype [num_tokens, 64], already rotated.
        cache: written in place: "v32" uint8 [num_pages, page_size, 656], "v4" uint8
            [num_pages, page_size, 584], "bf16" bfloat16 [num_pages, page_size, nope_dim + 64].
            Packed within a page; nothing outside the addressed records is touched.
        slots: int32 or int64 [num_tokens], page * page_size + offset. A token whose slot is outside
            [0, num_pages * page_size) is skipped. Valid slots must be distinct.
        cache_format: "v32", "v4" or "bf16".
        scale_format: "ue8m0", or "float32" for a "v32" cache whose readers take any scale.
        backend: exactly this backend, or None for the best available.

    Raises:
        TypeError, ValueError: an argument that does not fit the table above, or requires grad.
    """
    OP(kv_c, k_pe, slots, cache_format, scale_format, cache, backend=backend)
