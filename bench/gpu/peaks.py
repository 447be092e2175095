"""What the GPUs of a machine could do at most, by their makers' data sheets, and floors of ops."""

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


def peaks_of(gpu: str) -> tuple[Peaks, bool]:
    """The peaks for torch's name of a GPU, and whether they are those of this very product."""
    if "H200" in gpu and "NVL" not in gpu:
        return H200, True
    return H100, "H100" in gpu and "HBM3" in gpu


def floor(op: str, shape: dict, work: Work, peaks: Peaks) -> Floor:
    """The larger of work / peak and bytes / bandwidth, all bytes in the GPU's memory."""
    arithmetic = "fp32"
    if op in DOT_OPS:
        fp8 = "mqa" in op or "indexer" in op
        arithmetic = "bf16" if not fp8 or shape.get("dtype") == "bfloat16" else "e4m3"
    computing, moving = work.flops / peaks.flops[arithmetic], work.bytes / peaks.memory
    return Floor(computing, arithmetic) if computing >= moving else Floor(moving, "memory")
