"""What a module says of its kernels."""

import ctypes
import dataclasses

from . import _library


@dataclasses.dataclass(frozen=True)
class Parameter:
    name: str
    offset: int  # in the block of parameters
    bytes: int


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel and the launch bounds that it declares; None where it declares none."""

    name: str
    index: int  # in the module
    line: int
    parameters: tuple[Parameter, ...]
    static_shared: int  # bytes of a CTA
    local_bytes: int  # of a thread
    required_block: tuple[int, int, int] | None  # .reqntid
    max_threads: int | None  # .maxntid
    required_cluster: tuple[int, int, int] | None  # .reqnctapercluster
    max_registers: int | None  # of a thread, .maxnreg
    min_ctas: int  # of an SM, .minnctapersm

    @property
    def signature(self) -> str:
        parameters = ", ".join(f"{p.name} ({p.bytes} bytes)" for p in self.parameters)
        return f"{self.name}({parameters})"


def read_kernels(library: ctypes.CDLL, module: int) -> dict[str, Kernel]:
    count = library.ptx_kernel_count(module)
    kernels = (_read_kernel(library, module, index) for index in range(count))
    return {kernel.name: kernel for kernel in kernels}


def _read_kernel(library: ctypes.CDLL, module: int, index: int) -> Kernel:
    k = _library.KernelStruct()
    library.ptx_kernel(module, index, ctypes.byref(k))
    return Kernel(
        k.name.decode(),
        index,
        k.line,
        tuple(_read_parameter(library, module, index, i) for i in range(k.param_count)),
        k.static_shared,
        k.local_bytes,
        tuple(k.required_block) if k.required_block[0] else None,
        k.max_threads or None,
        tuple(k.required_cluster) if k.required_cluster[0] else None,
        k.max_registers or None,
        k.min_ctas,
    )


def _read_parameter(library: ctypes.CDLL, module: int, kernel: int, i: int) -> Parameter:
    name, offset, size = ctypes.c_char_p(), ctypes.c_uint64(), ctypes.c_uint64()
    library.ptx_param(
        module, kernel, i, ctypes.byref(name), ctypes.byref(offset), ctypes.byref(size)
    )
    return Parameter(name.value.decode(), offset.value, size.value)
