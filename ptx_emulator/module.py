"""Modules of PTX and launches of their kernels."""

import ctypes
import dataclasses
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import _library
from ._errors import BY_KIND, EmulatorError, Unsupported
from .tensor_map import TensorMap

_MODES = {"eager": 0, "random": 1, "late": 2}


@dataclasses.dataclass(frozen=True)
class Uninitialized:
    """An argument whose array holds nothing yet: what no kernel wrote must not be read."""

    array: object


@dataclasses.dataclass
class Launch:
    """What a launch that went well counted."""

    stats: dict
    profile: dict


class Module:
    """A module of PTX, from its text or from a file."""

    def __init__(self, ptx: str | os.PathLike):
        text = str(ptx)
        if isinstance(ptx, os.PathLike) or "\n" not in text:
            text = Path(ptx).read_text()
        self._lib = _library.load()
        data = text.encode()
        error = ctypes.create_string_buffer(4096)
        self._handle = self._lib.ptx_module_load(data, len(data), error, len(error))
        if not self._handle:
            raise EmulatorError(f"this is no PTX: {error.value.decode()}")
        self.kernels = {
            self._lib.ptx_kernel_name(self._handle, i).decode(): i
            for i in range(self._lib.ptx_kernel_count(self._handle))
        }
        self.unsupported = self._read_unsupported()

    def __del__(self):
        if getattr(self, "_handle", None):
            self._lib.ptx_module_free(self._handle)

    def launch(
        self,
        kernel: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        args: Sequence,
        *,
        cluster: int | Sequence[int] | None = None,
        shared: int = 0,
        memory: Sequence = (),
        seed: int = 0,
        max_instructions: int | None = None,
        mode: str = "eager",
        races: bool = True,
        coarse_fp8: bool = False,
    ) -> Launch:
        """Runs a kernel to its end. `memory` names further arrays that it reaches through pointers
        in structs; `shared` is the dynamic shared memory in bytes; `coarse_fp8` makes wgmma sum fp8
        as coarsely as Hopper does. More than `max_instructions` of warps are a LimitError."""
        if self.unsupported:
            lines = [f"  line {n}: {text}: {why}" for n, text, why in self.unsupported]
            raise Unsupported("the module uses what is not modelled:\n" + "\n".join(lines))
        index = self._kernel(kernel)
        regions: list[_library.Region] = []
        params = self._parameters(index, kernel, args, regions)
        for i, array in enumerate(memory):
            regions.append(_region(array, f"memory[{i}]"))
        if cluster is None:
            required = (ctypes.c_uint32 * 3)()
            self._lib.ptx_kernel_cluster(self._handle, index, required)
            cluster = tuple(required) if required[0] else 1
        options = _library.LaunchStruct(
            _triple(grid),
            _triple(block),
            _triple(cluster),
            shared,
            seed,
            2**64 - 1 if max_instructions is None else max_instructions,
            _MODES[mode],
            races,
            bytes(params),
            len(params),
            (_library.Region * len(regions))(*regions),
            len(regions),
            coarse_fp8,
        )
        outcome = self._lib.ptx_launch(self._handle, index, ctypes.byref(options))
        try:
            kind = self._lib.ptx_outcome_kind(outcome)
            if kind >= 0:
                text = self._lib.ptx_outcome_error(outcome).decode(errors="replace")
                raise BY_KIND.get(kind, RuntimeError)(text)  # else the emulator itself is at fault
            return self._result(outcome)
        finally:
            self._lib.ptx_outcome_free(outcome)

    def variable(self, name: str) -> np.ndarray:
        """The bytes of a variable of the module in global or constant memory."""
        size = ctypes.c_uint64()
        address = self._lib.ptx_variable(self._handle, name.encode(), ctypes.byref(size))
        if not address:
            raise KeyError(name)
        raw = (ctypes.c_uint8 * size.value).from_address(address)
        raw.module = self
        return np.frombuffer(raw, np.uint8)

    def _kernel(self, name: str) -> int:
        if name in self.kernels:
            return self.kernels[name]
        # A kernel of C++ may be named without its mangling.
        found = [k for k in self.kernels if f"{len(name)}{name}" in k]
        if len(found) != 1:
            raise KeyError(f"no kernel {name}; there are {', '.join(self.kernels)}")
        return self.kernels[found[0]]

    def _parameters(self, index: int, kernel: str, args: Sequence, regions: list) -> bytearray:
        count = self._lib.ptx_param_count(self._handle, index)
        if len(args) != count:
            raise TypeError(f"{kernel} takes {count} arguments, got {len(args)}")
        params = bytearray()
        for i, arg in enumerate(args):
            offset, size = ctypes.c_uint64(), ctypes.c_uint64()
            self._lib.ptx_param(self._handle, index, i, ctypes.byref(offset), ctypes.byref(size))
            params.extend(bytes(offset.value - len(params)))
            params.extend(_encode(arg, size.value, f"argument {i}", regions))
        return params

    def _read_unsupported(self) -> list[tuple[int, str, str]]:
        found = []
        text, reason = ctypes.c_char_p(), ctypes.c_char_p()
        for i in range(self._lib.ptx_unsupported_count(self._handle)):
            line = self._lib.ptx_unsupported(
                self._handle, i, ctypes.byref(text), ctypes.byref(reason)
            )
            found.append((line, text.value.decode(), reason.value.decode()))
        return found

    def _result(self, outcome: int) -> Launch:
        stats = {
            name: self._lib.ptx_outcome_stat(outcome, i)
            for i, name in enumerate(("warp_instructions", "max_resident"))
        }
        counts = ctypes.POINTER(ctypes.c_uint64)()
        per_warp = []
        while n := self._lib.ptx_outcome_counts(outcome, len(per_warp), ctypes.byref(counts)):
            per_warp.append(np.ctypeslib.as_array(counts, (n,)).copy())
        return Launch(stats, {"counts": per_warp})


def _triple(value: int | Sequence[int]):
    values = [value] if isinstance(value, int) else list(value)
    return (ctypes.c_uint32 * 3)(*values, *[1] * (3 - len(values)))


def _region(array, name: str) -> _library.Region:
    written = not isinstance(array, Uninitialized)
    if not written:
        array = array.array
    if hasattr(array, "data_ptr"):  # a torch tensor
        if array.device.type != "cpu":
            raise TypeError(f"{name}: a CPU tensor is expected")
        item = array.element_size()
        strides = [s * item for s in array.stride()]
        begin, shape = array.data_ptr(), tuple(array.shape)
    else:
        item, strides, shape = array.itemsize, array.strides, array.shape
        begin = array.ctypes.data
    if 0 in shape:
        return _library.Region(begin, 0, name.encode(), 0, written)
    low = sum(min(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True))
    high = sum(max(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True)) + item
    read_only = isinstance(array, np.ndarray) and not array.flags.writeable
    return _library.Region(begin + low, high - low, name.encode(), read_only, written)


def _encode(arg, size: int, name: str, regions: list) -> bytes:
    """The bytes of a kernel's parameter; arrays become regions of device memory."""
    if isinstance(arg, TensorMap):
        regions.append(_region(arg.array, name))
    source = arg.array if isinstance(arg, Uninitialized) else arg
    if hasattr(source, "data_ptr") or isinstance(source, np.ndarray):
        if size != 8:
            raise TypeError(f"{name}: an array for a parameter of {size} bytes")
        regions.append(_region(arg, name))
        pointer = source.data_ptr() if hasattr(source, "data_ptr") else source.ctypes.data
        return struct.pack("<Q", pointer)
    if isinstance(arg, (int, np.integer)):
        value = int(arg)
        if not -(1 << (8 * size - 1)) <= value < 1 << (8 * size):
            raise OverflowError(f"{name}: {value} does not fit in {size} bytes")
        return (value & ((1 << (8 * size)) - 1)).to_bytes(size, "little")
    if isinstance(arg, (float, np.floating)):
        formats = {2: "<e", 4: "<f", 8: "<d"}
        if size not in formats:
            raise TypeError(f"{name}: a float for a parameter of {size} bytes")
        return struct.pack(formats[size], arg)
    if arg is None and size == 8:
        return bytes(8)
    data = bytes(arg)  # a ctypes value, or anything else with bytes
    if len(data) != size:
        raise TypeError(f"{name} has {len(data)} bytes, the parameter has {size}")
    return data
