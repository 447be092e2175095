"""The C interface of csrc/c_api.cpp."""

import ctypes
from ctypes import POINTER, Structure, c_bool, c_char_p, c_int32, c_uint32, c_uint64, c_void_p
from functools import cache

from ._build import library as built_library


class Region(Structure):
    _fields_ = (
        ("begin", c_uint64),
        ("bytes", c_uint64),
        ("name", c_char_p),
        ("read_only", c_int32),
        ("written", c_int32),
        ("written_bits", c_void_p),
    )


class DriverLaunchStruct(Structure):
    """PtxDriverLaunch of csrc/driver.h."""

    _fields_ = (
        ("ptx", c_char_p),
        ("kernel", c_char_p),
        ("grid", c_uint32 * 3),
        ("block", c_uint32 * 3),
        ("cluster", c_uint32 * 3),
        ("dynamic_shared", c_uint64),
        ("params", c_void_p),
        ("param_bytes", c_uint64),
        ("regions", POINTER(Region)),
        ("region_count", c_uint64),
    )


Instead = ctypes.CFUNCTYPE(c_int32, POINTER(DriverLaunchStruct))


class LaunchStruct(Structure):
    _fields_ = (
        ("grid", c_uint32 * 3),
        ("block", c_uint32 * 3),
        ("cluster", c_uint32 * 3),
        ("dynamic_shared", c_uint64),
        ("seed", c_uint64),
        ("max_instructions", c_uint64),
        ("mode", c_int32),
        ("races", c_int32),
        ("params", c_char_p),
        ("regions", POINTER(Region)),
        ("region_count", c_uint64),
        ("coarse_fp8", c_int32),
        ("profile", c_int32),
        ("stop", POINTER(c_bool)),
    )


class InstructionStruct(Structure):
    _fields_ = (
        ("opcode", c_char_p),
        ("space", c_char_p),
        ("file", c_char_p),
        ("line", c_int32),
        ("source_line", c_int32),
        ("function", c_int32),
        ("is_guarded", c_int32),
        ("target", c_uint32),
    )


class KernelStruct(Structure):
    _fields_ = (
        ("name", c_char_p),
        ("line", c_int32),
        ("required_block", c_uint32 * 3),
        ("required_cluster", c_uint32 * 3),
        ("max_threads", c_uint32),
        ("max_registers", c_uint32),
        ("min_ctas", c_uint32),
        ("static_shared", c_uint64),
        ("local_bytes", c_uint64),
        ("param_count", c_uint64),
    )


_SIGNATURES = {
    "ptx_module_load": (c_void_p, [c_char_p, c_uint64, c_char_p, c_uint64]),
    "ptx_module_free": (None, [c_void_p]),
    "ptx_unsupported_count": (c_uint64, [c_void_p]),
    "ptx_unsupported": (
        c_int32,
        [c_void_p, c_uint64, POINTER(c_char_p), POINTER(c_char_p)],
    ),
    "ptx_kernel_count": (c_uint64, [c_void_p]),
    "ptx_target": (c_char_p, [c_void_p]),
    "ptx_kernel": (None, [c_void_p, c_uint64, POINTER(KernelStruct)]),
    "ptx_param": (
        None,
        [c_void_p, c_uint64, c_uint64, POINTER(c_char_p), POINTER(c_uint64), POINTER(c_uint64)],
    ),
    "ptx_variable": (c_uint64, [c_void_p, c_char_p, POINTER(c_uint64)]),
    "ptx_encode_tensor_map": (c_int32, [c_void_p, c_char_p, c_char_p, c_uint64]),
    "ptx_launch": (c_void_p, [c_void_p, c_uint64, POINTER(LaunchStruct)]),
    "ptx_outcome_free": (None, [c_void_p]),
    "ptx_outcome_kind": (c_int32, [c_void_p]),
    "ptx_outcome_error": (c_char_p, [c_void_p]),
    "ptx_outcome_stat": (c_uint64, [c_void_p, c_int32]),
    "ptx_outcome_counts": (None, [c_void_p, c_int32, c_void_p]),
    "ptx_outcome_accesses": (c_uint64, [c_void_p, c_uint64, POINTER(POINTER(c_uint64))]),
    "ptx_outcome_unique_sectors": (c_uint64, [c_void_p, c_int32, c_int32, c_int32]),
    "ptx_instruction_count": (c_uint64, [c_void_p]),
    "ptx_instruction": (None, [c_void_p, c_uint64, POINTER(InstructionStruct)]),
    "ptx_driver_function": (c_void_p, [c_char_p]),
    "ptx_driver_get_options": (None, [c_void_p]),
    "ptx_driver_set_options": (None, [c_void_p]),
    "ptx_driver_intercept": (None, [Instead]),
    "ptx_branch_table": (c_uint64, [c_void_p, c_uint64, POINTER(POINTER(c_uint32))]),
}


@cache
def load() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(built_library()))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    return lib
