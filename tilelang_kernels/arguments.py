"""Tensors as kernels take them."""

import torch

ALIGNMENT = 16  # bytes; the widest access


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """Itself, or a copy where it is not contiguous or begins at an odd address."""
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor


def name_of(dtype: torch.dtype) -> str:
    """TileLang's name of a type is torch's."""
    return str(dtype).removeprefix("torch.")
