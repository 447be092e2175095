"""Runs PTX on a CPU and reports its races; see docs/design.md."""

from ._errors import BuildError, Deadlock, EmulatorError, LimitError, MemoryFault, Race, Unsupported
from ._kernels import Kernel, Parameter
from ._memory import Uninitialized
from .module import Launch, Module
from .tensor_map import TensorMap

__all__ = [
    "BuildError",
    "Deadlock",
    "EmulatorError",
    "Kernel",
    "Launch",
    "LimitError",
    "MemoryFault",
    "Module",
    "Parameter",
    "Race",
    "TensorMap",
    "Uninitialized",
    "Unsupported",
]
