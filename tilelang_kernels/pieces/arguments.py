"""Tensors as kernels take them."""

from __future__ import annotations

import torch

ALIGNMENT = 16  # bytes; the widest access


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """Itself, or a copy where it is not contiguous or begins at an odd address."""
    tensor = tensor.contiguous().view(-1).view(tensor.shape)  # strides of sizes of 1, too
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor


def writable(tensor: torch.Tensor) -> torch.Tensor:
    """Itself, or where `aligned` would copy it one that is to be copied to it."""
    if tensor.is_contiguous() and tensor.data_ptr() % ALIGNMENT == 0:
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)


def aligned_pages(cache: torch.Tensor) -> torch.Tensor:
    """Itself, or a copy where pages, [num_pages | page_size, record], begin at odd addresses."""
    num_pages, page_size, record = cache.shape
    unit = ALIGNMENT // cache.element_size()
    if cache.data_ptr() % ALIGNMENT == 0 and (num_pages == 1 or cache.stride(0) % unit == 0):
        return cache
    stride = -(-page_size * record // unit) * unit
    copy = cache.new_empty(num_pages * stride)
    copy = copy.as_strided(cache.shape, (stride, record, 1))
    return copy.copy_(cache)


def chunks(cache: torch.Tensor, dtype: torch.dtype, size: int = ALIGNMENT) -> torch.Tensor:
    """`aligned_pages` as one array of whole chunks of `size` bytes: [num_chunks, size / itemsize].

    Page p begins at chunk p * page_chunks(cache, size). A kernel's access to one chunk is aligned
    whatever the page size and the distance of pages are.
    """
    num_pages, page_size, record = cache.shape
    elements = (num_pages - 1) * cache.stride(0) + page_size * record
    num_chunks = elements * cache.element_size() // size
    flat = cache.as_strided((num_chunks * size // cache.element_size(),), (1,))
    return flat.view(dtype).view(num_chunks, size // dtype.itemsize)


def page_chunks(cache: torch.Tensor, size: int = ALIGNMENT) -> int:
    """How many chunks of `size` bytes lie from one page to the next."""
    return cache.stride(0) * cache.element_size() // size


def copy_back(result: torch.Tensor, written: torch.Tensor) -> None:
    """What a kernel has written, where that is one of the copies above."""
    if written.data_ptr() != result.data_ptr():
        result.copy_(written)


def row_bounds(
    row_start: torch.Tensor | None,
    row_end: torch.Tensor | None,
    num_rows: int,
    seq_len: int,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """int32 [num_rows] each: where there is none, all rows are [0, seq_len)."""
    if row_start is None:
        row_start = torch.zeros(num_rows, dtype=torch.int32, device=device)
    if row_end is None:
        row_end = torch.full((num_rows,), seq_len, dtype=torch.int32, device=device)
    return aligned(row_start), aligned(row_end)


def name_of(dtype: torch.dtype) -> str:
    """TileLang's name of a type is torch's."""
    return str(dtype).removeprefix("torch.")


def optional(tensor: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    """`aligned`, or where there is none something of the shape and type that nobody reads."""
    if tensor is None:
        return torch.empty(like.shape, dtype=like.dtype, device=like.device)
    return aligned(tensor)
