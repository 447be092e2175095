"""Other kernels in the place of a backend's, for a while."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

import torch

from dsa_kernels import _op


@contextlib.contextmanager
def replaced_on_cpu(backend: str, kernels: dict[str, Callable]) -> Iterator[None]:
    """Inside, `backend` runs `kernels`, by op, on CPU tensors."""
    library = torch.library.Library(_op.NAMESPACE, "IMPL")
    for op, kernel in kernels.items():
        with warnings.catch_warnings():  # of what is the purpose: there is another kernel
            warnings.simplefilter("ignore")
            library.impl(f"{op}.{backend}", kernel, "CPU", allow_override=True)
    _op.refresh()
    try:
        yield
    finally:
        library._destroy()
        _op.refresh()
