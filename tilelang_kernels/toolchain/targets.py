"""What kernels are lowered for: what each target has, and the tiles that suit it."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024


class Refused(ValueError):
    """A kernel that a target cannot run, or would run wrongly."""


@dataclass(frozen=True)
class Tile:
    """Of a block: its threads, rows and columns of what it works on at a time (1 where the kernel
    has them from its threads), and how many tiles of rows it goes through."""

    threads: int
    rows: int = 1
    columns: int = 1
    steps: int = 1


@dataclass(frozen=True)
class Target:
    """wave: threads that run in step. fp8: the type of fp8 products, or None where there are none:
    then operands become bfloat16, which is exact. tiles: by op. k_pack: of bfloat16 products, as
    T.gemm takes it on AMD, 2 where an instruction has twice the depth."""

    name: str
    kind: str
    shared_bytes: int  # that a block may have
    wave: int
    fp8: str | None
    tiles: dict[str, Tile]
    k_pack: int = 1

    def __hash__(self):
        return hash(self.name)

    def packing(self, dtype: str) -> dict:
        """Options of T.gemm for operands of `dtype`."""
        return {"annotations": {"k_pack": self.k_pack if dtype == "bfloat16" else 1}}

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


def _without_products(wave: int) -> dict[str, Tile]:
    """Selection, and ops that move bytes: four waves a block."""
    four = 4 * wave
    return {
        "topk_indices": Tile(threads=512, columns=32 * 512),
        "indices_to_slots": Tile(threads=256, columns=1024),
        "merge_attention_states": Tile(threads=64, columns=512),
        "indexer_k_cache_gather": Tile(threads=four, rows=wave),
        "mla_cache_gather": Tile(threads=four, rows=8),
        "mla_cache_store": Tile(threads=four, rows=8),
        "indexer_q_rope_quant": Tile(threads=four),
        "indexer_k_cache_store": Tile(threads=four),
    }


NVIDIA = _without_products(32) | {
    "mqa_logits": Tile(threads=128, rows=64, columns=128, steps=16),
    "paged_mqa_logits": Tile(threads=128, rows=64, columns=64, steps=8),
    "sparse_mla": Tile(threads=256, rows=64, columns=32),
    "sparse_mla_narrow": Tile(threads=256, rows=16, columns=64),
}
# mma.sync of fp8 is one of float16 there, and converting the operands takes registers.
SM100 = NVIDIA | {"mqa_logits": Tile(threads=256, rows=64, columns=128, steps=16)}
NVIDIA_99K = NVIDIA | {"sparse_mla": Tile(threads=256, rows=32, columns=32)}
AMD = _without_products(64) | {
    "mqa_logits": Tile(threads=256, rows=64, columns=128, steps=16),
    "paged_mqa_logits": Tile(threads=256, rows=64, columns=64, steps=8),
    "sparse_mla": Tile(threads=256, rows=64, columns=32),
    "sparse_mla_narrow": Tile(threads=128, rows=16, columns=32),
}

_ALL = (
    Target("sm_80", "cuda", 163 * KIB, 32, None, NVIDIA),
    Target("sm_89", "cuda", 99 * KIB, 32, "float8_e4m3fn", NVIDIA_99K),
    Target("sm_90a", "cuda", 227 * KIB, 32, "float8_e4m3fn", NVIDIA),
    Target("sm_100a", "cuda", 227 * KIB, 32, "float8_e4m3fn", SM100),
    Target("sm_120", "cuda", 99 * KIB, 32, "float8_e4m3fn", NVIDIA_99K),
    Target("gfx942", "hip", 64 * KIB, 64, "float8_e4m3fnuz", AMD),
    Target("gfx950", "hip", 160 * KIB, 64, "float8_e4m3fn", AMD, k_pack=2),
)
TARGETS = {target.name: target for target in _ALL}


def target_for(gpu: str) -> Target:
    """The target for a GPU's architecture: "sm_90" is sm_90a, too. Raises Refused."""
    for name in (gpu, f"{gpu}a"):
        if name in TARGETS:
            return TARGETS[name]
    raise Refused(f"no TileLang target is for {gpu}; there are {', '.join(TARGETS)}")
