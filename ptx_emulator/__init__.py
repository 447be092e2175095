"""Runs PTX on a CPU and reports its races; see docs/design.md."""

from ._errors import Deadlock, EmulatorError, LimitError, MemoryFault, Race, Unsupported
from .module import Launch, Module, Uninitialized
from .tensor_map import TensorMap

__all__ = [
    "Deadlock",
    "EmulatorError",
    "Launch",
    "LimitError",
    "MemoryFault",
    "Module",
    "Race",
    "TensorMap",
    "Uninitialized",
    "Unsupported",
]
