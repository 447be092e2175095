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
    stages: int = 1


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
    "mqa_logits": Tile(rows=64, columns=128, threads=128, steps=16, stages=2),
    "paged_mqa_logits": Tile(rows=64, columns=64, threads=128, steps=8, stages=2),
}
SM90 = NVIDIA | {
    "mqa_logits": Tile(rows=64, columns=128, threads=128, steps=16, stages=0),
    "paged_mqa_logits": Tile(rows=64, columns=64, threads=128, steps=8, stages=0),
}
AMD = {
    "mqa_logits": Tile(rows=64, columns=128, threads=256, steps=16, stages=1),
    "paged_mqa_logits": Tile(rows=64, columns=64, threads=256, steps=8, stages=1),
}

_ALL = (
    Target("sm_80", "cuda", 163 * KIB, 32, None, NVIDIA),
    Target("sm_89", "cuda", 99 * KIB, 32, "float8_e4m3fn", NVIDIA),
    Target("sm_90a", "cuda", 227 * KIB, 32, "float8_e4m3fn", SM90),
    Target("sm_100a", "cuda", 227 * KIB, 32, "float8_e4m3fn", NVIDIA),
    Target("sm_120", "cuda", 99 * KIB, 32, "float8_e4m3fn", NVIDIA),
    Target("gfx942", "hip", 64 * KIB, 64, "float8_e4m3fnuz", AMD),
    Target("gfx950", "hip", 160 * KIB, 64, "float8_e4m3fn", AMD),
)
TARGETS = {target.name: target for target in _ALL}
