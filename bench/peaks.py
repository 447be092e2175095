"""The machine's limits, measured in this process by the loops of csrc/cpu/isa/peaks.h.

Rates are FLOP/s and bytes/s, each the best of several tries: the limit is what the machine can do,
so whatever disturbs a try only ever lowers it.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.timing import once, side_by_side, threads
from dsa_kernels._native import extension_path

MEMORY = ("L2", "L3", "DRAM")  # where an op's data lies, by its size
MiB = 1 << 20


@dataclass(frozen=True)
class Peaks:
    """bf16 is None at ISA levels without bf16 dot products; read and copy are by MEMORY.

    A copy's bytes are those read and those written.
    """

    threads: int
    fp32: float
    bf16: float | None
    read: dict[str, float]
    copy: dict[str, float]

    def as_dict(self) -> dict:
        return asdict(self)


@functools.cache
def _library():
    path = extension_path()
    if path is None:
        raise RuntimeError("benchmarks need the extension: run `make build`")
    function = ctypes.CDLL(path).dsa_cpu_peak
    function.restype = ctypes.c_int64
    function.argtypes = [ctypes.c_char_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64]
    return function


def native_peak(kind: str, n: int, buffer: torch.Tensor | None = None) -> int:
    """FLOPs or bytes done by `n` iterations; 0 if the ISA level has no such instruction."""
    address, size = (None, 0) if buffer is None else (buffer.data_ptr(), buffer.numel())
    return _library()(kind.encode(), n, address, size)


@functools.cache
def cache_bytes(level: int) -> int:
    """Size of a core's cache of `level`; a typical one where the system does not say."""
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            here, kind, size = ((index / n).read_text().strip() for n in ("level", "type", "size"))
        except OSError:
            continue
        if int(here) == level and kind != "Instruction":
            return int(size[:-1]) * {"K": 1 << 10, "M": MiB}[size[-1]]
    return {1: 32 << 10, 2: MiB, 3: 32 * MiB}[level]


def memory_of(nbytes: int, num_threads: int) -> str:
    """Where data of that size lies once it has been used."""
    if nbytes <= cache_bytes(2) * num_threads * 3 // 4:
        return "L2"
    return "L3" if nbytes <= cache_bytes(3) * 3 // 4 else "DRAM"


def flops_rate(kind: str, num_threads: int, seconds: float = 0.02, tries: int = 5) -> float | None:
    """FLOP/s of kind "fma" or "bf16_dot"; None if the ISA level has no such instruction."""
    if native_peak(kind, 1) == 0:
        return None
    trial = 1 << 16
    n = max(trial, int(trial * seconds / once(lambda: native_peak(kind, trial))))
    work = native_peak(kind, 1) * n * num_threads
    calls = [lambda: native_peak(kind, n)] * num_threads
    return max(work / side_by_side(calls) for _ in range(tries))


def read_rate(buffer: torch.Tensor, num_threads: int, tries: int = 5) -> float:
    """Bytes/s of reading `buffer`, uint8, over and over, a part of it in each thread."""
    part = buffer.numel() // num_threads // 512 * 512
    parts = [buffer[i * part : (i + 1) * part] for i in range(num_threads)]
    repeats = max(1, 64 * MiB // part)
    calls = [functools.partial(native_peak, "read", repeats, p) for p in parts]
    side_by_side(calls)
    return max(repeats * part * num_threads / side_by_side(calls) for _ in range(tries))


def copy_rate(source: torch.Tensor, target: torch.Tensor, num_threads: int, tries=5) -> float:
    """Bytes/s, read and written together, of the faster of torch's copy and the C library's."""
    size = source.numel()
    repeats = max(1, 32 * MiB // size)
    part = size // num_threads
    addresses = [
        (target[i * part :].data_ptr(), source[i * part :].data_ptr()) for i in range(num_threads)
    ]

    def by_torch() -> None:
        for _ in range(repeats):
            target.copy_(source)

    def by_libc(to: int, origin: int) -> None:
        for _ in range(repeats):
            ctypes.memmove(to, origin, part)

    calls = [functools.partial(by_libc, *pair) for pair in addresses]
    with threads(num_threads):
        by_torch()
        fastest = min(min(once(by_torch), side_by_side(calls)) for _ in range(tries))
    return 2 * size * repeats / fastest


def footprints(num_threads: int, dram: int) -> dict[str, int]:
    """Bytes of the buffers that stand for each memory, `dram` or more for DRAM.

    One for L3 must not fit the L2 caches together, nor one for DRAM L3.
    """
    l2, l3 = cache_bytes(2) * num_threads, cache_bytes(3)
    return {
        "L2": l2 // 2,
        "L3": max(min(l3 // 4, 32 * MiB), min(l2, l3 // 2)),
        "DRAM": max(dram, 4 * l3),
    }


def measure(num_threads: int, *, quick: bool = False) -> Peaks:
    tries = 2 if quick else 5
    sizes = footprints(num_threads, (256 if quick else 1024) * MiB)
    arena = torch.ones(sizes["DRAM"], dtype=torch.uint8)
    read, copy = {}, {}
    for name, size in sizes.items():
        half = size // 2
        read[name] = read_rate(arena[:size], num_threads, tries)
        copy[name] = copy_rate(arena[:half], arena[half : 2 * half], num_threads, tries)
    return Peaks(
        threads=num_threads,
        fp32=flops_rate("fma", num_threads),
        bf16=flops_rate("bf16_dot", num_threads),
        read=read,
        copy=copy,
    )
