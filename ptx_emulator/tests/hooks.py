"""The parts of the emulator that need no machine, for unit tests."""

import ctypes
import functools

import numpy as np
import torch

from ptx_emulator import _build

LANES = 32


@functools.cache
def library() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(_build.library()))
    lib.ptx_test_wgmma_rate.restype = ctypes.c_double
    return lib


def pointer(a: np.ndarray | None):
    return None if a is None else ctypes.c_void_p(a.ctypes.data)


def message_of(function, *args) -> str:
    """What a check says; empty if it passes."""
    message = ctypes.create_string_buffer(300)
    function(*args, message, len(message))
    return message.value.decode()


ELEMENT_BYTES = dict(bf16=2, f16=2, tf32=4, e4m3=1, e5m2=1, s8=1, u8=1)
TORCH_TYPES = dict(
    bf16=torch.bfloat16,
    f16=torch.float16,
    tf32=torch.float32,
    f32=torch.float32,
    e4m3=torch.float8_e4m3fn,
    e5m2=torch.float8_e5m2,
    s8=torch.int8,
    u8=torch.uint8,
    s32=torch.int32,
)


def encode(values: np.ndarray, kind: str) -> np.ndarray:
    """The bytes of the elements: a last axis of the element's size is added."""
    t = torch.from_numpy(np.ascontiguousarray(values)).to(TORCH_TYPES[kind])
    return t.contiguous().view(torch.uint8).numpy().reshape(*values.shape, -1)


def op_fields(d, a, b, n, k, negate=(0, 0), saturate=0, accumulate=1, coarse=0) -> np.ndarray:
    lib = library()
    kinds = [lib.ptx_test_type(name.encode()) for name in (d, a, b)]
    assert all(kinds)
    return np.array([*kinds, n, k, *negate, saturate, accumulate, coarse], np.int32)
