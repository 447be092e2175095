"""What kernels are lowered for, and what each target has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """`wave`: threads that run in step. `fp8`: the type of fp8 products; None: there are none, and
    operands become bfloat16."""

    name: str
    kind: str
    shared_bytes: int  # that a block may have
    wave: int
    fp8: str | None

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


KIB = 1024
_ALL = (
    Target("sm_80", "cuda", 163 * KIB, 32, None),
    Target("sm_89", "cuda", 99 * KIB, 32, "float8_e4m3fn"),
    Target("sm_90a", "cuda", 227 * KIB, 32, "float8_e4m3fn"),
    Target("sm_100a", "cuda", 227 * KIB, 32, "float8_e4m3fn"),
    Target("sm_120", "cuda", 99 * KIB, 32, "float8_e4m3fn"),
    Target("gfx942", "hip", 64 * KIB, 64, "float8_e4m3fnuz"),
    Target("gfx950", "hip", 160 * KIB, 64, "float8_e4m3fn"),
)
TARGETS = {target.name: target for target in _ALL}
