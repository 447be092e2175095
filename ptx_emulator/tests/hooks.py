"""The parts of the emulator that need no machine, for unit tests."""

import ctypes
import functools
import hashlib
import pathlib
import subprocess

import numpy as np
import torch

LANES = 32
SOURCES = [
    "tensor_map",
    "matrix_math",
    "wgmma_layout",
    "matrix_moves",
    "types",
    "formats",
    "test_hooks",
]


@functools.cache
def library() -> ctypes.CDLL:
    csrc = pathlib.Path(__file__).parents[1] / "csrc"
    text = b"".join(p.read_bytes() for p in sorted(csrc.glob("*.[ch]*")))
    out = (
        csrc.parents[1] / "build/ptx_emulator" / f"hooks_{hashlib.sha256(text).hexdigest()[:16]}.so"
    )
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        flags = ["-std=c++20", "-O3", "-march=native", "-ffp-contract=off", "-fPIC", "-shared"]
        files = [str(csrc / f"{s}.cpp") for s in SOURCES]
        subprocess.run(["g++", *flags, *files, "-o", str(out)], check=True)
    lib = ctypes.CDLL(str(out))
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
