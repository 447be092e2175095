"""Prints the ISA level and a digest of what each bitwise op writes for hostile data, as JSON."""

from __future__ import annotations

import hashlib
import json

import torch

from dsa_kernels._native import cpu_isa
from dsa_kernels._op import OPS
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import named

DATA = ("normal", "zeros", "ties", "tiny", "huge", "nan", "inf")
ROWS = ("random", "all_zero", "nan_mix", "signed_zeros", "denormals", "zero_plateau", "both_inf")
STORE = dict(num_tokens=70, num_pages=3, page_size=32)
SHAPES = {
    "topk_indices": [dict(num_rows=2, seq_len=20_000, topk=300)],
    "indexer_q_rope_quant": [
        dict(num_tokens=5, num_heads=8, rope_layout=layout, dtype=dtype)
        for layout in ("neox", "interleaved")
        for dtype in ("bfloat16", "float32")
    ],
    "indexer_k_cache_store": [
        STORE,
        dict(STORE, dtype="float32"),
        dict(STORE, rope_layout="interleaved", scale_format="float32"),
        dict(STORE, rope_layout="none", hadamard=False, norm=None),
    ],
    "mla_cache_store": [
        dict(STORE, cache_format="v32"),
        dict(STORE, cache_format="v32", scale_format="float32"),
        dict(STORE, cache_format="v4"),
        dict(STORE, cache_format="bf16"),
    ],
    "mla_cache_gather": [
        dict(lengths=[40, 7], cache_format=cache_format, d_qk=d_qk, out_dtype=dtype)
        for cache_format, d_qk in (("v32", 576), ("v4", 512), ("bf16", 576))
        for dtype in ("bfloat16", "float32")
    ],
}


def digest(op: str, shape: dict, seed: int) -> str:
    arguments = case(op).make(torch.Generator().manual_seed(seed), **shape)
    OPS[op](*arguments, backend="native")
    by_name = named(OPS[op], arguments)
    result = hashlib.sha256()
    for spec in OPS[op].tensors:
        if spec.written:
            written = by_name[spec.name].contiguous().view(torch.uint8)
            result.update(written.numpy().tobytes())
    return result.hexdigest()


if __name__ == "__main__":
    digests = {}
    for op, shapes in SHAPES.items():
        kinds = {"kind": ROWS} if op == "topk_indices" else {"data": DATA}
        for name, values in kinds.items():
            for shape in shapes:
                for seed, value in enumerate(values):
                    full = {**shape, name: value}
                    digests[f"{op} {full}"] = digest(op, full, seed)
    print(json.dumps({"isa": cpu_isa(), "digests": digests}))
