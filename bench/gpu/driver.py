"""Launches of the primitives on a GPU, through the driver API by ctypes.

The emulator has the same functions, so a test runs all of this without a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from bench.gpu.primitives import Map, Out, Primitive

CLUSTER_DIMENSION = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
UINT8 = 0  # CU_TENSOR_MAP_DATA_TYPE_UINT8
SWIZZLES = {0: 0, 32: 1, 64: 2, 128: 3}  # CUtensorMapSwizzle
POISON = 0xFF


class LaunchAttribute(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("cluster", ctypes.c_uint32 * 3),
        ("rest", ctypes.c_uint8 * 52),
    )


class LaunchConfig(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared_bytes", ctypes.c_uint32),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(LaunchAttribute)),
        ("attribute_count", ctypes.c_uint32),
    )


def launch_config(grid: int, block: int, cluster: int) -> LaunchConfig:
    config = LaunchConfig((grid, 1, 1), (block, 1, 1), 0, None, None, 0)
    if cluster > 1:
        attribute = LaunchAttribute(CLUSTER_DIMENSION, 0, (cluster, 1, 1))
        config.attributes, config.attribute_count = ctypes.pointer(attribute), 1
    return config


def libcuda() -> Callable[[str], Callable]:
    """The driver's functions by name. Raises SystemExit where there is no driver."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise SystemExit(f"there is no CUDA driver: {error}") from None
    return lambda name: getattr(library, name)


class Gpu:
    """The kernels of a module (fatbin or PTX), on the first GPU of `functions`."""

    def __init__(self, image: bytes, functions: Callable[[str], Callable]):
        self._functions = functions
        self._image = ctypes.create_string_buffer(image)  # PTX has to end in a zero
        device, context = ctypes.c_int32(), ctypes.c_void_p()
        self._module = ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)
        self._call("cuModuleLoadData", ctypes.byref(self._module), self._image)

    def _call(self, name: str, *arguments) -> None:
        if error := self._functions(name)(*arguments):
            text = ctypes.c_char_p()
            self._functions("cuGetErrorName")(error, ctypes.byref(text))
            raise RuntimeError(f"{name}: {(text.value or b'?').decode()} ({error})")

    def run(self, case: Primitive) -> list[np.ndarray]:
        """The outputs of a launch; bytes that it does not write are 0xff."""
        memory: list[ctypes.c_uint64] = []
        try:
            return self._run(case, memory)
        finally:
            for address in memory:
                self._call("cuMemFree_v2", address)

    def _run(self, case: Primitive, memory: list[ctypes.c_uint64]) -> list[np.ndarray]:
        values, outputs = [], []
        for a in case.arguments:
            if isinstance(a, int):
                values.append(ctypes.c_int32(a))
                continue
            array = a.array if isinstance(a, Map) else a
            if isinstance(a, Out):
                array = np.frombuffer(bytes([POISON]) * a.bytes(), a.dtype).reshape(a.shape).copy()
            address = self._on_gpu(array)
            memory.append(address)
            if isinstance(a, Out):
                outputs.append((array, address))
            values.append(self._tensor_map(a, address) if isinstance(a, Map) else address)
        self._launch(case, values)
        for array, address in outputs:
            size = ctypes.c_size_t(array.nbytes)
            self._call("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), address, size)
        return [array for array, _ in outputs]

    def _on_gpu(self, array: np.ndarray) -> ctypes.c_uint64:
        array = np.ascontiguousarray(array)
        address, size = ctypes.c_uint64(), ctypes.c_size_t(array.nbytes)
        self._call("cuMemAlloc_v2", ctypes.byref(address), size)
        self._call("cuMemcpyHtoD_v2", address, ctypes.c_void_p(array.ctypes.data), size)
        return address

    def _launch(self, case: Primitive, values: list) -> None:
        kernel = ctypes.c_void_p()
        name = case.kernel.encode()
        self._call("cuModuleGetFunction", ctypes.byref(kernel), self._module, name)
        parameters = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
        config = launch_config(case.grid, case.block, case.cluster)
        self._call("cuLaunchKernelEx", ctypes.byref(config), kernel, parameters, None)
        self._call("cuCtxSynchronize")

    def _tensor_map(self, a: Map, address: ctypes.c_uint64) -> ctypes.Array:
        rank = len(a.dims)
        encoded = _aligned_bytes(128, 128)
        self._call(
            "cuTensorMapEncodeTiled",
            encoded,
            UINT8,
            ctypes.c_uint32(rank),
            ctypes.c_void_p(address.value),
            (ctypes.c_uint64 * rank)(*a.dims),
            (ctypes.c_uint64 * (rank - 1))(*a.strides),
            (ctypes.c_uint32 * rank)(*a.box),
            (ctypes.c_uint32 * rank)(*[1] * rank),
            0,  # not interleaved
            SWIZZLES[a.swizzle],
            0,  # no promotion in L2
            0,  # zeros out of bounds
        )
        return encoded


def _aligned_bytes(size: int, alignment: int) -> ctypes.Array:
    memory = (ctypes.c_uint8 * (size + alignment))()
    begin = -ctypes.addressof(memory) % alignment
    return (ctypes.c_uint8 * size).from_buffer(memory, begin)
