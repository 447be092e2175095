"""What backends take."""

from __future__ import annotations

import torch

from dsa_kernels._op import OPS
from dsa_kernels.testing.differential import named


def widest(backend: str) -> torch.dtype:
    """The widest float type: CUDA kernels refuse float32 operands of tensor cores."""
    return torch.bfloat16 if backend == "emulated" else torch.float32


def refuses(backend: str, dtype: torch.dtype) -> bool:
    return dtype == torch.float32 and widest(backend) != torch.float32


def taken_by_cuda(op: str, arguments: list) -> bool:
    """CUDA and TileLang kernels refuse the same types."""
    values = named(OPS[op], arguments)
    return all(
        values[spec.name] is None or not spec.dtypes or values[spec.name].dtype in spec.cuda_dtypes
        for spec in OPS[op].tensors
    )
