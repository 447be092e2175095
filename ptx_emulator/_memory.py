"""Arrays of numpy and CPU tensors of torch as device memory."""

import dataclasses

import numpy as np

from . import _library


@dataclasses.dataclass(frozen=True)
class Uninitialized:
    """An argument whose array holds nothing yet: what no kernel wrote must not be read."""

    array: object


def is_tensor(array) -> bool:
    return hasattr(array, "data_ptr")


def is_array(array) -> bool:
    return is_tensor(array) or isinstance(array, np.ndarray)


def check(array, name: str) -> None:
    """A TypeError unless the array's bytes are what its elements are made of, in this memory."""
    if not is_array(array):
        raise TypeError(f"{name}: an array or a CPU tensor is expected, not {array!r}")
    if not is_tensor(array):
        if array.dtype.hasobject:
            raise TypeError(f"{name}: an array of Python objects")
    elif array.device.type != "cpu":
        raise TypeError(f"{name}: a CPU tensor is expected")
    elif array.is_conj() or array.is_neg():
        raise TypeError(f"{name}: a lazy conjugate or negation; resolve_conj() or resolve_neg()")


def address_of(array) -> int:
    return array.data_ptr() if is_tensor(array) else array.ctypes.data


def steps_of(array) -> tuple[int, list[int]]:
    """The size of an element and the strides, in bytes."""
    if is_tensor(array):
        return array.element_size(), [s * array.element_size() for s in array.stride()]
    return array.itemsize, list(array.strides)


def region_of(array, name: str) -> _library.Region:
    """The bytes from the first element to the last."""
    written = not isinstance(array, Uninitialized)
    if not written:
        array = array.array
    check(array, name)
    begin, shape, item, strides = address_of(array), tuple(array.shape), *steps_of(array)
    if 0 in shape:
        return _library.Region(begin, 0, name.encode(), 0, written)
    low = sum(min(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True))
    high = sum(max(0, (n - 1) * s) for n, s in zip(shape, strides, strict=True)) + item
    read_only = isinstance(array, np.ndarray) and not array.flags.writeable
    return _library.Region(begin + low, high - low, name.encode(), read_only, written)
