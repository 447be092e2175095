"""FlashMLA and DeepGEMM beside our ops, where they are installed; the interface of bench.peers.

Their Python interfaces as of FlashMLA 9241ae3 and DeepGEMM 2.6.1. Where they take fewer shapes than
we do, call() gives None.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch

from bench.peers import Peer
from dsa_kernels._op import OPS
from dsa_kernels.testing.differential import named

D_V = 512


class FlashMla:
    def __init__(self, library):
        self._library = library

    def call(self, op: str, shape: dict, arguments: list) -> Callable[[], object] | None:
        a = named(OPS[op], arguments)
        if op == "sparse_mla_prefill":
            return self._prefill(a)
        return self._decode(a) if op == "sparse_mla_decode" else None

    def _prefill(self, a: dict) -> Callable[[], object] | None:
        if a["kv"] is None or a["kv_start"] is not None or a["q"].shape[1] not in (64, 128):
            return None
        if a["indices"].shape[1] % 128:
            return None
        q, kv, indices = a["q"], a["kv"][:, None], a["indices"][:, None]
        more = {"attn_sink": a["attn_sink"], "topk_length": a["topk_length"]}
        return lambda: self._library.flash_mla_sparse_fwd(
            q, kv, indices, a["sm_scale"], d_v=D_V, **more
        )

    def _decode(self, a: dict) -> Callable[[], object] | None:
        formats = {"v32": 656, "v4": 584}
        heads, topk = a["q"].shape[2], a["indices"].shape[2]
        if a["cache_format"] not in formats or heads not in (64, 128) or topk % 64:
            return None
        lengths = [a["topk_length"], a["extra_topk_length"]]
        if a["q"].shape[1] > 1 and any(x is not None for x in lengths):
            return None  # theirs are of requests, ours of query tokens
        if a["cache_format"] == "v32" and (lengths[0] is not None or a["extra_cache"] is not None):
            return None
        metadata, _ = self._library.get_mla_metadata()
        more = {"attn_sink": a["attn_sink"]}
        if a["extra_cache"] is not None:
            more["extra_k_cache"] = a["extra_cache"][:, :, None]
            more["extra_indices_in_kvcache"] = a["extra_indices"]
        for name, value in zip(("topk_length", "extra_topk_length"), lengths, strict=True):
            if value is not None:
                more[name] = value[:, 0].contiguous()
        q, cache, indices = a["q"], a["cache"][:, :, None], a["indices"]
        return lambda: self._library.flash_mla_with_kvcache(
            q,
            cache,
            None,
            None,
            D_V,
            metadata,
            softmax_scale=a["sm_scale"],
            is_fp8_kvcache=True,
            indices=indices,
            **more,
        )


class DeepGemm:
    """Scores in fp32; columns that no key belongs to are not filled by its paged kernel."""

    def __init__(self, library):
        self._library = library

    def call(self, op: str, shape: dict, arguments: list) -> Callable[[], object] | None:
        if op not in ("mqa_logits", "paged_mqa_logits"):
            return None
        a = named(OPS[op], arguments)
        q = a["q"]
        if q.dtype != torch.float8_e4m3fn or q.shape[-2] not in (32, 64):
            return None
        return self._logits(a) if op == "mqa_logits" else self._paged(a)

    def _logits(self, a: dict) -> Callable[[], object] | None:
        if a["k_scale"] is None or a["layout"] != "full":
            return None
        rows, keys = a["q"].shape[0], a["k"].shape[0]
        start, end = a["row_start"], a["row_end"]
        device = a["q"].device
        start = torch.zeros(rows, dtype=torch.int32, device=device) if start is None else start
        end = torch.full((rows,), keys, dtype=torch.int32, device=device) if end is None else end
        return lambda: self._library.fp8_mqa_logits(
            a["q"], (a["k"], a["k_scale"]), a["weights"], start, end, clean_logits=a["fill"]
        )

    def _paged(self, a: dict) -> Callable[[], object] | None:
        page_size, next_n = a["cache"].shape[1], a["q"].shape[1]
        if page_size != 64 or next_n > 2:
            return None
        sms = self._library.get_num_sms()
        lens = a["seq_lens"].contiguous()
        metadata = self._library.get_paged_mqa_logits_metadata(lens, page_size, sms)
        q, cache, longest = a["q"], a["cache"][:, :, None], a["out"].shape[1]
        return lambda: self._library.fp8_paged_mqa_logits(
            q, cache, a["weights"], lens, a["block_table"], metadata, longest, clean_logits=False
        )


PEERS = {"FlashMLA": ("flash_mla", FlashMla), "DeepGEMM": ("deep_gemm", DeepGemm)}


def load() -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that are here by name, and why the others are not."""
    present, absent = {}, {}
    for name, (module, adapter) in PEERS.items():
        try:
            present[name] = adapter(importlib.import_module(module))
        except Exception as error:  # an import of theirs may fail in any way
            absent[name] = f"{type(error).__name__}: {error}".partition("\n")[0]
    return present, absent
