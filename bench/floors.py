"""The least time that a call can take on this machine, and which of its limits says so."""

from __future__ import annotations

from dataclasses import dataclass

from bench.peaks import Peaks, memory_of
from dsa_kernels.testing.cases import Work

# Matrix products, which bf16 dot products can form where the level has them.
DOT_OPS = {
    "indexer_topk",
    "mqa_logits",
    "paged_indexer_topk",
    "paged_mqa_logits",
    "sparse_mla_decode",
    "sparse_mla_prefill",
}
# Ops that write about as much as they read.
COPYING_OPS = {
    "indexer_k_cache_gather",
    "indexer_k_cache_store",
    "indexer_q_rope_quant",
    "indices_to_slots",
    "merge_attention_states",
    "mla_cache_gather",
    "mla_cache_store",
}


@dataclass(frozen=True)
class Floor:
    """bound: bf16 or fp32 where arithmetic binds, else L2, L3 or DRAM."""

    seconds: float
    bound: str

    @property
    def computes(self) -> bool:
        return self.bound in ("bf16", "fp32")


def floor(op: str, shape: dict, work: Work, peaks: Peaks) -> Floor:
    """The larger of work / peak and bytes / bandwidth.

    The peak is that of the faster arithmetic: some cores have half the rate in bf16, not twice.
    Bytes move at the rate of the memory that holds them all, which is where repeated calls find
    them; ops that write as much as they read are held to the rate of a copy.
    """
    arithmetic, peak = "fp32", peaks.fp32
    if op in DOT_OPS and shape.get("dtype") != "float32" and (peaks.bf16 or 0.0) > peak:
        arithmetic, peak = "bf16", peaks.bf16
    computing = work.flops / peak
    memory = memory_of(work.bytes, peaks.threads)
    rates = peaks.copy if op in COPYING_OPS else peaks.read
    moving = work.bytes / rates[memory]
    return Floor(computing, arithmetic) if computing >= moving else Floor(moving, memory)
