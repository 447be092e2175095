"""Modules of PTX and launches of their kernels."""

import ctypes
import dataclasses
import math
import operator
import os
import struct
import threading
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from . import _library
from ._counts import Counts, read_counts, read_unique
from ._errors import BY_KIND, EmulatorError
from ._instructions import Instruction, read_instructions
from ._kernels import Kernel, read_kernels
from ._loops import Loop, find_loops
from ._memory import Uninitialized, address_of, is_array, region_of
from .profile import Profile
from .tensor_map import TensorMap

_MODES = {"eager": 0, "random": 1, "late": 2}


@dataclasses.dataclass
class Launch:
    """What a launch that went well counted."""

    stats: dict
    profile: Profile


class Module:
    """A module of PTX, from its text or from a file."""

    def __init__(self, ptx: str | os.PathLike):
        text = str(ptx)
        if isinstance(ptx, os.PathLike) or "\n" not in text:
            text = Path(ptx).read_text(encoding="utf-8")
        self._lib = _library.load()
        data = text.removeprefix("\ufeff").encode()  # some editors begin a file with that
        error = ctypes.create_string_buffer(4096)
        self._handle = self._lib.ptx_module_load(data, len(data), error, len(error))
        if not self._handle:
            raise EmulatorError(f"this is no PTX: {error.value.decode(errors='replace')}")
        self.target = self._lib.ptx_target(self._handle).decode()
        self.kernels = read_kernels(self._lib, self._handle)
        self.unsupported = self._read_unsupported()
        self._instructions = self._lib.ptx_instruction_count(self._handle)

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
        profile: bool = False,
    ) -> Launch:
        """Runs a kernel to its end. `memory` names further arrays that it reaches through pointers
        in structs; `shared` is the dynamic shared memory in bytes; `coarse_fp8` makes wgmma sum fp8
        as coarsely as Hopper does; `profile` counts what is done to memory, too. More than
        `max_instructions` of warps are a LimitError."""
        found = self.kernel(kernel)
        regions: list[_library.Region] = []
        params = _parameters(found, args, regions)
        for i, array in enumerate(memory):
            regions.append(region_of(array, f"memory[{i}]"))
        if cluster is None:
            cluster = found.required_cluster or 1
        return self.launch_block(
            found,
            _dimensions(grid, "grid"),
            _dimensions(block, "block"),
            _dimensions(cluster, "cluster"),
            _integer(shared, "shared"),
            params,
            regions,
            seed=seed,
            max_instructions=max_instructions,
            mode=mode,
            races=races,
            coarse_fp8=coarse_fp8,
            profile=profile,
        )

    def launch_block(
        self,
        kernel: Kernel,
        grid: ctypes.Array,
        block: ctypes.Array,
        cluster: ctypes.Array,
        shared: int,
        params: bytes,
        regions: Sequence[_library.Region],
        *,
        seed: int = 0,
        max_instructions: int | None = None,
        mode: str = "eager",
        races: bool = True,
        coarse_fp8: bool = False,
        profile: bool = False,
    ) -> Launch:
        """As `launch`, from the block of parameters and regions of memory."""
        if mode not in _MODES:
            raise ValueError(f"mode must be one of {', '.join(_MODES)}; got {mode!r}")
        most = 2**64 - 1 if max_instructions is None else max_instructions
        options = _library.LaunchStruct(
            grid,
            block,
            cluster,
            shared,
            _integer(seed, "seed", low=-(2**63)),
            _integer(most, "max_instructions"),
            _MODES[mode],
            races,
            params,
            (_library.Region * len(regions))(*regions),
            len(regions),
            coarse_fp8,
            profile,
        )
        outcome = self._run(kernel, options)
        try:
            kind = self._lib.ptx_outcome_kind(outcome)
            if kind >= 0:
                text = self._lib.ptx_outcome_error(outcome).decode(errors="replace")
                raise BY_KIND.get(kind, RuntimeError)(text)  # else the emulator itself is at fault
            shape = {
                "kernel": kernel.name,
                "target": self.target,
                "grid": list(options.grid),
                "block": list(options.block),
                "cluster": list(options.cluster),
                "mode": mode,
                "seed": int(seed),
            }
            return self._result(outcome, shape, profile)
        finally:
            self._lib.ptx_outcome_free(outcome)

    def _run(self, kernel: Kernel, options: _library.LaunchStruct) -> int:
        """The outcome. Python handles Ctrl-C in its main thread, and only between its own
        instructions: so that one waits while another runs the launch."""
        stop = ctypes.c_bool(False)
        options.stop = ctypes.pointer(stop)
        outcome = []

        def run():
            outcome.append(self._lib.ptx_launch(self._handle, kernel.index, ctypes.byref(options)))

        if threading.current_thread() is not threading.main_thread():
            run()
            return outcome[0]
        thread = threading.Thread(target=run)
        try:
            thread.start()
            thread.join()
        except BaseException:
            stop.value = True
            if thread.is_alive():
                thread.join()
            for freed in outcome:
                self._lib.ptx_outcome_free(freed)
            raise
        return outcome[0]

    def variable(self, name: str) -> np.ndarray:
        """The bytes of a variable of the module in global or constant memory."""
        size = ctypes.c_uint64()
        address = self._lib.ptx_variable(self._handle, name.encode(), ctypes.byref(size))
        if not address:
            raise KeyError(name)
        raw = (ctypes.c_uint8 * size.value).from_address(address)
        raw.module = self
        return np.frombuffer(raw, np.uint8)

    def kernel(self, name: str) -> Kernel:
        """The kernel of that name; one of C++ may be named without its mangling."""
        if name in self.kernels:
            return self.kernels[name]
        found = [k for k in self.kernels if f"{len(name)}{name}" in k]
        if len(found) != 1:
            raise KeyError(f"no kernel {name}; there are {', '.join(self.kernels)}")
        return self.kernels[found[0]]

    def _read_unsupported(self) -> list[tuple[int, str, str]]:
        found = []
        text, reason = ctypes.c_char_p(), ctypes.c_char_p()
        for i in range(self._lib.ptx_unsupported_count(self._handle)):
            line = self._lib.ptx_unsupported(
                self._handle, i, ctypes.byref(text), ctypes.byref(reason)
            )
            found.append((line, text.value.decode(), reason.value.decode()))
        return found

    @cached_property
    def _code(self) -> tuple[list[Instruction], list[Loop]]:
        code = read_instructions(self._lib, self._handle)
        return code, find_loops(code)

    def _result(self, outcome: int, shape: dict, profiled: bool) -> Launch:
        stats = {
            name: self._lib.ptx_outcome_stat(outcome, i)
            for i, name in enumerate(("warp_instructions", "max_resident"))
        }
        warps = -(-math.prod(shape["block"]) // 32)
        read = read_counts(self._lib, outcome, warps, self._instructions, profiled)
        unique = read_unique(self._lib, outcome) if profiled else None
        return Launch(stats, Profile(shape, lambda: Counts(*self._code, *read), unique))


def _dimensions(value: int | Sequence[int], name: str):
    if isinstance(value, (str, bytes)) or not isinstance(value, (Iterable, SupportsIndex)):
        raise TypeError(f"{name}: expected a number, or up to three; got {value!r}")
    values = list(value) if isinstance(value, Iterable) else [value]
    if not 1 <= len(values) <= 3:
        raise ValueError(f"{name}: expected a number, or up to three; got {value!r}")
    numbers = [_integer(v, name, high=2**32) for v in values]
    return (ctypes.c_uint32 * 3)(*numbers, *[1] * (3 - len(numbers)))


def _integer(value: int, name: str, low: int = 0, high: int = 2**64) -> int:
    """The number; ctypes would cut off what does not fit."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: an integer is expected, not {value!r}") from None
    if not low <= number < high:
        raise ValueError(f"{name}: {number} is out of range")
    return number


def _parameters(kernel: Kernel, args: Sequence, regions: list) -> bytes:
    if len(args) != len(kernel.parameters):
        raise TypeError(
            f"{kernel.signature} takes {len(kernel.parameters)} arguments, got {len(args)}"
        )
    block = bytearray()
    for i, (parameter, arg) in enumerate(zip(kernel.parameters, args, strict=True)):
        block.extend(bytes(parameter.offset - len(block)))
        block.extend(_encode(arg, parameter.bytes, f"argument {i}", regions))
    return bytes(block)


def _encode(arg, size: int, name: str, regions: list) -> bytes:
    """The bytes of a kernel's parameter; arrays become regions of device memory."""
    if isinstance(arg, TensorMap):
        regions.append(region_of(arg.array, name))
    source = arg.array if isinstance(arg, Uninitialized) else arg
    if is_array(source) or isinstance(arg, Uninitialized):
        if size != 8:
            raise TypeError(f"{name}: an array for a parameter of {size} bytes")
        regions.append(region_of(arg, name))  # checks it
        return struct.pack("<Q", address_of(source))
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
    try:
        data = bytes(arg)  # a ctypes value, or anything else with bytes
    except (TypeError, ValueError):
        raise TypeError(f"{name}: {arg!r} for a parameter of {size} bytes") from None
    if len(data) != size:
        raise TypeError(f"{name} has {len(data)} bytes, the parameter has {size}")
    return data
