"""What Hopper GPUs can do at most, by their data sheets, and the floors of ops on them."""

from __future__ import annotations

from dataclasses import dataclass

from bench.floors import DOT_OPS, Floor
from dsa_kernels.testing.cases import Work


@dataclass(frozen=True)
class Peaks:
    """Dense FLOP/s by type of the operands, and bytes/s of the GPU's memory."""

    name: str
    source: str
    flops: dict[str, float]
    memory: float

    def __str__(self) -> str:
        rates = ", ".join(f"{kind} {rate / 1e12:.0f}" for kind, rate in self.flops.items())
        return f"{self.name}: {rates} TFLOPS dense, memory {self.memory / 1e12:.2f} TB/s"


_SXM = {"e4m3": 1978.9e12, "bf16": 989.4e12, "fp32": 66.9e12}
H100 = Peaks("H100 SXM", "NVIDIA H100 white paper and data sheet", _SXM, 3.35e12)
H200 = Peaks("H200 SXM", "NVIDIA H200 data sheet", _SXM, 4.8e12)


_OF = {"NVIDIA H100 80GB HBM3": H100, "NVIDIA H200": H200}  # by torch's name of the GPU


def peaks_of(gpu: str) -> tuple[Peaks, bool]:
    """The peaks for torch's name of a GPU, and whether they are those of this very product."""
    return _OF.get(gpu, H100), gpu in _OF


def floor(op: str, shape: dict, work: Work, peaks: Peaks) -> Floor:
    """The larger of work / peak and bytes / bandwidth, all bytes in the GPU's memory."""
    arithmetic = "fp32"
    if op in DOT_OPS:
        fp8 = "mqa" in op or "indexer" in op
        arithmetic = "bf16" if not fp8 or shape.get("dtype") == "bfloat16" else "e4m3"
    computing, moving = work.flops / peaks.flops[arithmetic], work.bytes / peaks.memory
    return Floor(computing, arithmetic) if computing >= moving else Floor(moving, "memory")
