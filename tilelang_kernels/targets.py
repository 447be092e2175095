"""What kernels are lowered for: what each target has, and the tiles that suit it."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024


class Refused(ValueError):
    """A kernel that a target cannot run, or would run wrongly."""


@dataclass(frozen=True)
class Tile:
    """Of a product: rows and columns of a block, and its threads."""

    rows: int
    columns: int
    threads: int


@dataclass(frozen=True)
class Target:
    """wave: threads that run in step. fp8: the type of fp8 products, or None where there are none:
    then operands become bfloat16, which is exact. tiles: by op."""

    name: str
    kind: str
    shared_bytes: int  # that a block may have
    wave: int
    fp8: str | None
    tiles: dict[str, Tile]

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
    "mqa_logits": Tile(rows=64, columns=128, threads=128),
    "indexer_k_cache_gather": Tile(rows=32, columns=8, threads=128),
    "mla_cache_gather": Tile(rows=8, columns=8, threads=128),
    "mla_cache_store": Tile(rows=8, columns=8, threads=128),
    "indexer_q_rope_quant": Tile(rows=8, columns=8, threads=128),
    "indexer_k_cache_store": Tile(rows=8, columns=8, threads=128),
}
AMD = {
    "mqa_logits": Tile(rows=64, columns=128, threads=256),
    "indexer_k_cache_gather": Tile(rows=64, columns=8, threads=256),
    "mla_cache_gather": Tile(rows=8, columns=8, threads=256),
    "mla_cache_store": Tile(rows=8, columns=8, threads=256),
    "indexer_q_rope_quant": Tile(rows=8, columns=8, threads=256),
    "indexer_k_cache_store": Tile(rows=8, columns=8, threads=256),
}

_ALL = (
    Target("sm_80", "cuda", 163 * KIB, 32, None, NVIDIA),
    Target("sm_89", "cuda", 99 * KIB, 32, "float8_e4m3fn", NVIDIA),
    Target("sm_90a", "cuda", 227 * KIB, 32, "float8_e4m3fn", NVIDIA),
    Target("sm_100a", "cuda", 227 * KIB, 32, "float8_e4m3fn", NVIDIA),
    Target("sm_120", "cuda", 99 * KIB, 32, "float8_e4m3fn", NVIDIA),
    Target("gfx942", "hip", 64 * KIB, 64, "float8_e4m3fnuz", AMD),
    Target("gfx950", "hip", 160 * KIB, 64, "float8_e4m3fn", AMD),
)
TARGETS = {target.name: target for target in _ALL}


def product_type(target: Target, dtype: str) -> str:
    """Of products of operands of `dtype`, a type's name in TileLang. Raises Refused."""
    if dtype != "float8_e4m3fn" or target.fp8 == dtype:
        return dtype
    if target.fp8 is None:
        return "bfloat16"
    raise Refused(f"{dtype} on {target.name}, which multiplies {target.fp8}, is not supported yet")
