"""Tensor maps, made from the arguments of the driver's cuTensorMapEncodeTiled."""

import ctypes
from collections.abc import Sequence

import numpy as np

from . import _library
from ._memory import Uninitialized, address_of, steps_of

_BYTES = 128
_TYPES = [
    "uint8",
    "uint16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
    "bfloat16",
    "float32_ftz",
    "tfloat32",
    "tfloat32_ftz",
    "16u4_align8b",
    "16u4_align16b",
    "16u6_align16b",
]
_SWIZZLES = [0, 32, 64, 128, "128, atoms of 32", "128, atoms of 32, 8 flipped", "128, atoms of 64"]
_INTERLEAVES = [0, 16, 32]
_PROMOTIONS = [0, 64, 128, 256]
_FILLS = ["zero", "nan"]


class Arguments(ctypes.Structure):
    """TensorMapArguments of csrc/tensor_map.h."""

    _fields_ = (
        ("data_type", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("address", ctypes.c_uint64),
        ("dims", ctypes.c_uint64 * 5),
        ("strides", ctypes.c_uint64 * 4),
        ("box", ctypes.c_uint32 * 5),
        ("element_strides", ctypes.c_uint32 * 5),
        ("interleave", ctypes.c_int32),
        ("swizzle", ctypes.c_int32),
        ("l2_promotion", ctypes.c_int32),
        ("oob_fill", ctypes.c_int32),
    )


class TensorMap:
    """A tensor map of an array (numpy or CPU torch, perhaps Uninitialized), to be passed to a
    kernel as an argument.

    `box` and what else has an entry for each dimension is in the driver's order, innermost first;
    swizzle, interleave and L2 promotion are numbers of bytes. Size and strides (in bytes, without
    the innermost) are the array's own unless they are given.
    Arguments that the driver refuses raise a ValueError that names them.
    """

    def __init__(
        self,
        array,
        box: Sequence[int],
        *,
        dims: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        element_strides: Sequence[int] | None = None,
        data_type: str | None = None,
        swizzle: int | str = 0,
        interleave: int = 0,
        l2_promotion: int = 0,
        fill: str = "zero",
    ):
        self.array = array
        if isinstance(array, Uninitialized):
            array = array.array
        item, steps = steps_of(array)
        if dims is None:
            dims = tuple(array.shape)[::-1]
        if strides is None:
            if steps[-1] != item and array.shape[-1] != 1:
                raise ValueError("the innermost dimension must be contiguous")
            strides = steps[-2::-1]
        a = Arguments()
        a.data_type = _index("data_type", _TYPES, data_type or _data_type(array))
        a.rank = len(dims)
        a.address = address_of(array)
        element_strides = element_strides or [1] * len(dims)
        if not (len(box) == len(element_strides) == len(dims) == len(strides) + 1 <= 5):
            raise ValueError("box and strides must fit the number of dimensions, at most 5")
        for field, values in (
            ("dims", dims),
            ("strides", strides),
            ("box", box),
            ("element_strides", element_strides),
        ):
            getattr(a, field)[: len(values)] = [int(v) for v in values]
        a.swizzle = _index("swizzle", _SWIZZLES, swizzle)
        a.interleave = _index("interleave", _INTERLEAVES, interleave)
        a.l2_promotion = _index("l2_promotion", _PROMOTIONS, l2_promotion)
        a.oob_fill = _index("fill", _FILLS, fill)
        out = ctypes.create_string_buffer(_BYTES)
        wrong = ctypes.create_string_buffer(400)
        if _library.load().ptx_encode_tensor_map(ctypes.byref(a), out, wrong, len(wrong)):
            raise ValueError(wrong.value.decode())
        self._bytes = out.raw

    def __bytes__(self) -> bytes:
        return self._bytes


def _index(name: str, choices: list, value) -> int:
    """The driver's number."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}; got {value}")
    return choices.index(value)


def _data_type(array) -> str:
    name = str(array.dtype).removeprefix("torch.")
    if name.startswith("float8") or name in ("int8", "bool"):
        return "uint8"
    if name == "int16":
        return "uint16"
    if name not in _TYPES or (isinstance(array, np.ndarray) and name == "bfloat16"):
        raise ValueError(f"name the data type of {array.dtype}")
    return name
