"""Kernel arguments written on the command line."""

import math
import re
from dataclasses import dataclass, field

import numpy as np

from .._memory import Uninitialized
from ..tensor_map import TensorMap
from . import formats
from .errors import UsageError

SYNTAX = f"""\
arguments of the kernel, in order, one --arg each:
  i32:5  f32:-0.5            a number
  f32[64,128]=CONTENTS       an array in device memory; the kernel gets its address
  map:bf16[64,128]=CONTENTS;box=64,32;swizzle=128
                             a tensor map of such an array. box is in the driver's order,
                             innermost first; further keys are element_strides,
                             l2_promotion and fill (zero or nan)
CONTENTS is
  empty                      nothing: to read what no kernel wrote is an error
  zeros, ones, arange, -1    0, 1, 0 1 2 ..., or that number everywhere
  uniform                    [-1, 1), or all values of an integer type
  normal                     mean 0, deviation 1; of floating-point types only
  @file.npy                  a file, of the type itself, or of numbers for bf16 and fp8;
                             f32[]=@file.npy takes the file's shape
types: {" ".join(formats.NAMES)}
"""
_SCALAR = re.compile(r"(?P<type>\w+):(?P<value>.+)")
_ARRAY = re.compile(r"(?P<type>\w+)\[(?P<shape>[\d,]*)\]=(?P<contents>[^;]+)")
_ALIGNMENT = 256  # of what cuMemAlloc gives


@dataclass(frozen=True)
class Scalar:
    bytes: bytes

    def make(self) -> bytes:
        return self.bytes


@dataclass(frozen=True)
class Array:
    """An array, or a tensor map of it if there are arguments for one."""

    type: str
    initial: np.ndarray
    written: bool
    map_arguments: dict = field(default_factory=dict)

    def make(self):
        """The argument for one launch, with an array of its own."""
        array = _aligned_copy(self.initial)
        device = array if self.written else Uninitialized(array)
        if not self.map_arguments:
            return device
        data_type = "bfloat16" if self.type == "bf16" else None
        return TensorMap(device, data_type=data_type, **self.map_arguments)


def array_of(argument) -> np.ndarray:
    """The array of what Array.make() gave."""
    for kind in (TensorMap, Uninitialized):
        if isinstance(argument, kind):
            argument = argument.array
    return argument


def parse(text: str, index: int) -> Scalar | Array:
    try:
        if text.startswith("map:"):
            return _map(text.removeprefix("map:"), index)
        if found := _ARRAY.fullmatch(text):
            return _array(found, index)
        if found := _SCALAR.fullmatch(text):
            return _scalar(found)
    except (ValueError, MemoryError) as error:
        raise UsageError(f"argument {index}, {text}: {error}") from None
    raise UsageError(
        f"argument {index}, {text}: expected a number such as i32:5, an array such as "
        "f32[64,128]=zeros, or a tensor map such as map:f16[64,128]=zeros;box=64,32"
    )


def _scalar(found: re.Match) -> Scalar:
    name = _type(found["type"])
    value = float(found["value"]) if formats.is_float(name) else int(found["value"], 0)
    return Scalar(formats.encode(_filled((), name, value), name).tobytes())


def _array(found: re.Match, index: int) -> Array:
    name, contents = _type(found["type"]), found["contents"]
    if contents.startswith("@"):
        initial = _from_file(contents[1:], name)
        if found["shape"] and initial.shape != _shape(found["shape"]):
            raise ValueError(f"the file's shape is {initial.shape}")
        return Array(name, initial, True)
    shape = _shape(found["shape"])
    if contents == "empty":
        dtype = formats.storage(name)
        ones = np.full(math.prod(shape) * dtype.itemsize, 0xFF, np.uint8)  # NaN, or -1
        return Array(name, ones.view(dtype).reshape(shape), False)
    values = _values(contents, shape, name, np.random.default_rng(index))
    return Array(name, formats.encode(values, name), True)


def _map(text: str, index: int) -> Array:
    array, *options = text.split(";")
    found = _ARRAY.fullmatch(array)
    if not found:
        raise ValueError("a tensor map needs an array, such as map:f16[64,128]=zeros;box=64,32")
    arguments = dict(_map_option(option) for option in options)
    if "box" not in arguments:
        raise ValueError("a tensor map needs a box, such as ;box=64,32")
    made = _array(found, index)
    made = Array(made.type, made.initial, made.written, arguments)
    made.make()  # checks them
    return made


def _map_option(text: str) -> tuple:
    key, _, value = text.partition("=")
    if key in ("box", "element_strides"):
        return key, tuple(int(n) for n in value.split(","))
    if key in ("swizzle", "l2_promotion"):
        return key, int(value)
    if key == "fill":
        return key, value
    raise ValueError(f"{key} is none of box, element_strides, swizzle, l2_promotion, fill")


def _type(name: str) -> str:
    if name not in formats.NAMES:
        raise ValueError(f"{name} is none of the types {', '.join(formats.NAMES)}")
    return name


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",")) if text else ()


def _values(contents: str, shape: tuple, name: str, random: np.random.Generator) -> np.ndarray:
    real = formats.is_float(name)
    if contents == "arange":
        return np.arange(math.prod(shape)).reshape(shape)
    if contents == "normal":
        if not real:
            raise ValueError(f"normal needs a floating-point type; {name} has uniform")
        return random.standard_normal(shape)
    if contents == "uniform":
        if real:
            return random.uniform(-1, 1, shape)
        limits = np.iinfo(formats.storage(name))
        return random.integers(limits.min, limits.max, shape, limits.dtype, endpoint=True)
    numbers = {"zeros": 0, "ones": 1}
    try:
        value = numbers[contents] if contents in numbers else (float if real else int)(contents)
    except ValueError:
        raise ValueError(
            f"{contents} is none of empty, zeros, ones, arange, uniform, normal, @file.npy, "
            "nor a number of the type"
        ) from None
    return _filled(shape, name, value)


def _filled(shape: tuple, name: str, value: float) -> np.ndarray:
    if formats.is_float(name):
        return np.full(shape, value, np.float64)
    limits = np.iinfo(formats.storage(name))
    if not limits.min <= value <= limits.max:
        raise ValueError(f"{name} holds {limits.min} to {limits.max}")
    return np.full(shape, value, limits.dtype)


def _from_file(path: str, name: str) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    if array.dtype == formats.storage(name):
        return array
    if name in ("bf16", "e4m3", "e5m2") and array.dtype.kind == "f":
        return formats.encode(array, name)
    raise ValueError(f"{path} holds {array.dtype}, {name} needs {formats.storage(name)}")


def _aligned_copy(array: np.ndarray) -> np.ndarray:
    raw = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
