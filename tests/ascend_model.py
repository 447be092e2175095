"""Runs AscendC sources on CPU tensors, by tests/ascend/model.h."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import tilelang
import torch

from tilelang_kernels.ascend.lowering import STUB
from tilelang_kernels.compilers import find_clang

MODEL = Path(__file__).parent / "ascend"
SCALARS = {"int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64, "float": ctypes.c_float}


class Model:
    """A source's kernel."""

    def __init__(self, source: str, blocks: int, folder: Path) -> None:
        self.signature = re.search(r"__global__ __mix__\(1, 2\) void (\w+)\((.*)\) \{", source)
        names = [each.split()[-1] for each in self.signature[2].split(", ")]
        source = re.sub(r"\((__ubuf__ \w+ \*)\)0;", r"(\1)asc_ub();", source)
        file, library = folder / "kernel.cpp", folder / "kernel.so"
        file.write_text(
            f'#include "model.h"\n{source}\n'
            f'extern "C" const char* run({self.signature[2]}) {{\n'
            "  static std::string failure;\n"
            f"  failure = model::launch({blocks}, [=] {{ {self.signature[1]}({', '.join(names)}); }});\n"
            "  return failure.c_str();\n}\n"
        )
        flags = ["-std=c++20", "-O2", "-shared", "-fPIC", "-Wno-everything", "-D__NPU_ARCH__=3510"]
        includes = [STUB, MODEL, tilelang.env.TILELANG_TEMPLATE_PATH]
        command = [find_clang(), *flags, *(f"-I{each}" for each in includes), str(file)]
        done = subprocess.run([*command, "-o", str(library)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        self.run = ctypes.CDLL(str(library)).run
        self.run.restype = ctypes.c_char_p

    def __call__(self, **arguments: torch.Tensor | int | float) -> None:
        """Arguments by name: contiguous tensors, sizes and strides."""
        values = []
        for parameter in self.signature[2].split(", "):
            kind, name = parameter.rsplit(" ", 1)
            value = arguments[name]
            if "*" in kind:
                values.append(ctypes.c_void_p(value.data_ptr()))
            else:
                values.append(SCALARS[kind](value))
        if failure := self.run(*values):
            raise RuntimeError(failure.decode())
