"""What backends take."""

from __future__ import annotations

import torch


def widest(backend: str) -> torch.dtype:
    """The widest float type: CUDA kernels refuse float32 operands of tensor cores."""
    return torch.bfloat16 if backend == "emulated" else torch.float32


def refuses(backend: str, dtype: torch.dtype) -> bool:
    return dtype == torch.float32 and widest(backend) != torch.float32
