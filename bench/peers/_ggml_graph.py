"""What of ggml's C interface the peer needs: graphs over tensors whose memory is torch's."""

from __future__ import annotations

import ctypes
import weakref
from ctypes import c_bool, c_float, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import torch

# Of ggml.h. A tensor of an element type that is not here is an error.
TYPES = {torch.float32: 0, torch.float16: 1, torch.int32: 26}
SUCCESS = 0
MAX_TENSORS = 16


class _InitParams(ctypes.Structure):
    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


class _Plan(ctypes.Structure):
    _fields_ = [
        ("work_size", c_size_t),
        ("work_data", c_void_p),
        ("n_threads", c_int),
        ("threadpool", c_void_p),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("use_ref", c_bool),
    ]


_BASE = {  # name -> result, arguments
    "ggml_init": (c_void_p, [_InitParams]),
    "ggml_free": (None, [c_void_p]),
    "ggml_tensor_overhead": (c_size_t, []),
    "ggml_graph_overhead": (c_size_t, []),
    "ggml_new_graph": (c_void_p, [c_void_p]),
    "ggml_build_forward_expand": (None, [c_void_p] * 2),
    "ggml_new_tensor_4d": (c_void_p, [c_void_p, c_int, *[c_int64] * 4]),
    "ggml_view_4d": (c_void_p, [c_void_p] * 2 + [c_int64] * 4 + [c_size_t] * 4),
    "ggml_nbytes": (c_size_t, [c_void_p]),
    "ggml_backend_cpu_buffer_from_ptr": (c_void_p, [c_void_p, c_size_t]),
    "ggml_backend_tensor_alloc": (c_int, [c_void_p] * 3),
    "ggml_backend_buffer_free": (None, [c_void_p]),
    "ggml_lightning_indexer": (c_void_p, [c_void_p] * 5),
    "ggml_top_k": (c_void_p, [c_void_p, c_void_p, c_int]),
    "ggml_flash_attn_ext": (c_void_p, [c_void_p] * 5 + [c_float] * 3),
    "ggml_flash_attn_ext_add_sinks": (None, [c_void_p] * 2),
}
_CPU = {
    "ggml_graph_plan": (_Plan, [c_void_p, c_int, c_void_p]),
    "ggml_graph_compute": (c_int, [c_void_p, ctypes.POINTER(_Plan)]),
}


class Library:
    """Its functions as attributes, without their ggml_ prefix."""

    def __init__(self, directory: Path):
        for library, functions in (("ggml-base", _BASE), ("ggml-cpu", _CPU)):
            # Global, so that the second finds the first.
            loaded = ctypes.CDLL(str(directory / f"lib{library}.so"), mode=ctypes.RTLD_GLOBAL)
            for name, (result, arguments) in functions.items():
                function = getattr(loaded, name)
                function.restype, function.argtypes = result, arguments
                setattr(self, name.removeprefix("ggml_"), function)


class Graph:
    """One graph. A tensor is an address; its sizes are given the ggml way, fastest dim first."""

    def __init__(self, library: Library):
        self.ggml = library
        size = MAX_TENSORS * library.tensor_overhead() + library.graph_overhead()
        self.context = library.init(_InitParams(size, None, True))
        self.graph = library.new_graph(self.context)
        self._buffers: list[int] = []
        self._memory: list[torch.Tensor] = []  # of inputs, results and work
        self._work = torch.empty(0, dtype=torch.uint8)
        weakref.finalize(self, _free, library, self.context, self._buffers)

    def input(self, data: torch.Tensor, *sizes: int) -> int:
        """`data`, which has as many elements as `sizes`, without a copy if it is contiguous."""
        sizes = (*sizes, *[1] * (4 - len(sizes)))
        tensor = self.ggml.new_tensor_4d(self.context, TYPES[data.dtype], *sizes)
        self._place(tensor, data.contiguous())
        return tensor

    def result(self, tensor: int, dtype: torch.dtype, *shape: int) -> torch.Tensor:
        """Memory for what a node computes; adds it to the graph."""
        data = torch.empty(shape, dtype=dtype)
        self._place(tensor, data)
        self.ggml.build_forward_expand(self.graph, tensor)
        return data

    def _place(self, tensor: int, data: torch.Tensor) -> None:
        size = self.ggml.nbytes(tensor)
        if size != data.nbytes:
            raise ValueError(f"ggml's tensor has {size} bytes, torch's {data.nbytes}")
        buffer = self.ggml.backend_cpu_buffer_from_ptr(data.data_ptr(), size)
        self._buffers.append(buffer)
        self._memory.append(data)
        if self.ggml.backend_tensor_alloc(buffer, tensor, data.data_ptr()) != SUCCESS:
            raise RuntimeError("ggml did not take torch's memory")

    def run(self) -> None:
        """Computes all nodes, on torch's number of threads."""
        plan = self.ggml.graph_plan(self.graph, torch.get_num_threads(), None)
        if plan.work_size > self._work.numel():
            self._work = torch.empty(plan.work_size, dtype=torch.uint8)
        plan.work_data = self._work.data_ptr()
        if self.ggml.graph_compute(self.graph, ctypes.byref(plan)) != SUCCESS:
            raise RuntimeError("ggml_graph_compute failed")


def _free(library: Library, context: int, buffers: list[int]) -> None:
    library.free(context)
    for buffer in buffers:
        library.backend_buffer_free(buffer)
