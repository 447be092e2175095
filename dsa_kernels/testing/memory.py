"""Poisoned uninitialised memory, and tensors between guard bands."""

from __future__ import annotations

import contextlib

import torch


@contextlib.contextmanager
def poisoned_memory():
    """Uninitialised torch tensors made inside, Python or C++, hold NaN or their dtype's maximum."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


class Guarded:
    """A tensor inside an arena of known bytes; `check()` raises if anything outside it was written.

    strides, in elements, may leave holes between rows: those are guarded too. shift moves the
    base by that many elements, to misalign it.
    """

    PAD = 512
    BYTE = 0xA5

    def __init__(self, shape, dtype, *, strides=None, shift: int = 0, device="cpu"):
        item = torch.empty((), dtype=dtype).element_size()
        if strides is None:
            strides = torch.empty(shape, device="meta").stride()
        span = 0
        if 0 not in shape:
            span = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        self.begin = self.PAD + shift * item
        self.end = self.begin + span * item
        size = self.end + self.PAD + (-self.end) % 16
        self.arena = torch.full((size,), self.BYTE, dtype=torch.uint8, device=device)
        self.ours = torch.zeros_like(self.arena, dtype=torch.bool)
        if span == 0:
            self.tensor = torch.empty(shape, dtype=dtype, device=device)
            return
        usable = size // item * item
        typed = self.arena[:usable].view(dtype)
        self.tensor = typed.as_strided(shape, strides, self.begin // item)
        elements = torch.arange(span, device=device).as_strided(shape, strides).reshape(-1)
        for byte in range(item):
            self.ours[self.begin + elements * item + byte] = True

    def fill(self, value) -> Guarded:
        self.tensor.copy_(torch.as_tensor(value).to(self.tensor.dtype).expand(self.tensor.shape))
        return self

    def check(self) -> None:
        bad = (self.arena != self.BYTE) & ~self.ours
        if bad.any():
            offset = int(bad.nonzero()[0]) - self.begin
            raise AssertionError(
                f"out-of-bounds write: {int(bad.sum())} byte(s), first at payload byte "
                f"{offset:+d} (the payload is [0, {self.end - self.begin}))"
            )
