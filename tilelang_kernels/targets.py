"""What kernels are lowered for: what each target has, and the tiles that suit it."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024


class Refused(ValueError):
    """A kernel that a target cannot run, or would run wrongly."""


@dataclass(frozen=True)
class Tile:
    """Of a block: rows and columns of its product, its threads, how many tiles of rows it goes
    through, and how many of them it holds to load ahead: 0 where wgmma reads them, since TileLang
    loads ahead by cp.async, and has no fence for that."""

    rows: int
    columns: int
    threads: int
    steps: int = 1
    stages: int = 0


@dataclass(frozen=True)
class Target:
    """wave: threads that run in step. fp8: the type of fp8 products, or None where there are none:
    then operands become bfloat16, which is exact. tiles: by op. k_pack: of bfloat16 products, as
    T.gemm takes it on AMD: 2 where an instruction has twice the depth."""

    name: str
    kind: str
    shared_bytes: int  # that a block may have
    wave: int
    fp8: str | None
    tiles: dict[str, Tile]
    k_pack: int = 1

    def __hash__(self):
        return hash(self.name)

    @property
    def specification(self) -> dict:
        """As tilelang.backend.target.determine_target takes it."""
        if self.kind == "cuda":
            return {"kind": "cuda", "arch": self.name}
        return {
            "kind": "hip",
            "mcpu": self.name,
            "mtriple": "amdgcn-amd-amdhsa-hcc",
            "thread_warp_size": self.wave,
        }


NVIDIA = {
    "mqa_logits": Tile(rows=64, columns=128, threads=128, steps=16, stages=2),
    "paged_mqa_logits": Tile(rows=64, columns=64, threads=128, steps=8, stages=2),
    "sparse_mla": Tile(rows=64, columns=32, threads=256),
    "sparse_mla_narrow": Tile(rows=16, columns=64, threads=256),
    "topk_indices": Tile(rows=1, columns=32 * 512, threads=512),
    "indices_to_slots": Tile(rows=1, columns=1024, threads=256),
    "merge_attention_states": Tile(rows=1, columns=512, threads=64),
    "indexer_k_cache_gather": Tile(rows=32, columns=8, threads=128),
    "mla_cache_gather": Tile(rows=8, columns=8, threads=128),
    "mla_cache_store": Tile(rows=8, columns=8, threads=128),
    "indexer_q_rope_quant": Tile(rows=8, columns=8, threads=128),
    "indexer_k_cache_store": Tile(rows=8, columns=8, threads=128),
}
SM90 = NVIDIA | {
    "mqa_logits": Tile(rows=64, columns=128, threads=128, steps=16),
    "paged_mqa_logits": Tile(rows=64, columns=64, threads=128, steps=8),
}
NVIDIA_99K = NVIDIA | {"sparse_mla": Tile(rows=32, columns=32, threads=256)}
AMD = {
    "mqa_logits": Tile(rows=64, columns=128, threads=256, steps=16),
    "paged_mqa_logits": Tile(rows=64, columns=64, threads=256, steps=8),
    "sparse_mla": Tile(rows=64, columns=32, threads=256),
    "sparse_mla_narrow": Tile(rows=16, columns=32, threads=128),
    "topk_indices": Tile(rows=1, columns=32 * 512, threads=512),
    "indices_to_slots": Tile(rows=1, columns=1024, threads=256),
    "merge_attention_states": Tile(rows=1, columns=512, threads=64),
    "indexer_k_cache_gather": Tile(rows=64, columns=8, threads=256),
    "mla_cache_gather": Tile(rows=8, columns=8, threads=256),
    "mla_cache_store": Tile(rows=8, columns=8, threads=256),
    "indexer_q_rope_quant": Tile(rows=8, columns=8, threads=256),
    "indexer_k_cache_store": Tile(rows=8, columns=8, threads=256),
}

_ALL = (
    Target("sm_80", "cuda", 163 * KIB, 32, None, NVIDIA),
    Target("sm_89", "cuda", 99 * KIB, 32, "float8_e4m3fn", NVIDIA_99K),
    Target("sm_90a", "cuda", 227 * KIB, 32, "float8_e4m3fn", SM90),
    Target("sm_100a", "cuda", 227 * KIB, 32, "float8_e4m3fn", NVIDIA),
    Target("sm_120", "cuda", 99 * KIB, 32, "float8_e4m3fn", NVIDIA_99K),
    Target("gfx942", "hip", 64 * KIB, 64, "float8_e4m3fnuz", AMD),
    Target("gfx950", "hip", 160 * KIB, 64, "float8_e4m3fn", AMD, k_pack=2),
)
TARGETS = {target.name: target for target in _ALL}
