"""Runs AscendC sources on CPU tensors, by tests/ascend/model.h."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import tilelang
import torch

from tilelang_kernels.ascend.lowering import STUB
from tilelang_kernels.toolchain.compilers import find_clang

MODEL = Path(__file__).parent / "ascend"
SCALARS = {"int32_t": ctypes.c_int32, "int64_t": ctypes.c_int64, "float": ctypes.c_float}


class Model:
    """A source's kernel."""

    def __init__(self, source: str, blocks: int, folder: Path) -> None:
        name, parameters = re.search(r"__mix__\(1, 2\) void (\w+)\((.*)\) \{", source).groups()
        self.parameters = [each.rsplit(" ", 1) for each in parameters.split(", ")]
        call = f"{name}({', '.join(each for _, each in self.parameters)})"
        source = re.sub(r"\((__ubuf__ \w+ \*)\)0;", r"(\1)asc_ub();", source)
        file, library = folder / "kernel.cpp", folder / "kernel.so"
        file.write_text(
            f'#include "model.h"\n{source}\nextern "C" const char* run({parameters}) {{\n'
            f"  model::launch({blocks}, [=] {{ {call}; }});\n  return model::failure.c_str();\n}}\n"
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
        for kind, name in self.parameters:
            value = arguments[name]
            if "*" in kind:
                values.append(ctypes.c_void_p(value.data_ptr()))
            else:
                values.append(SCALARS[kind](value))
        if failure := self.run(*values):
            raise RuntimeError(failure.decode())


def mqa_logits(model: Model, q, k, weights, k_scale, row_start, row_end, layout, fill, out):
    num_rows, seq_len = q.shape[0], k.shape[0]
    if fill and layout == "compressed":
        out.fill_(-torch.inf)
    model(
        q=q.contiguous(),
        k=k.contiguous(),
        weights=weights.contiguous(),
        k_scale=torch.ones(seq_len) if k_scale is None else k_scale.contiguous(),
        row_start=torch.zeros(num_rows, dtype=torch.int32) if row_start is None else row_start,
        row_end=torch.full((num_rows,), seq_len, dtype=torch.int32) if row_end is None else row_end,
        compressed=layout == "compressed",
        fill=fill and layout != "compressed",
        out=out,
        rows=num_rows,
        seq_len=seq_len,
        width=out.shape[1],
        out_row=out.stride(0),
    )


def sparse_mla_decode(
    model: Model, q, cache, indices, topk_length, attn_sink, _, __, ___, sm_scale, *rest
):
    (num_pages, page_size, _), topk, (out, lse) = cache.shape, indices.shape[-1], rest[-2:]
    rows, heads = q.shape[0] * q.shape[1], q.shape[2]
    if topk_length is None:
        topk_length = torch.full((rows,), topk, dtype=torch.int32)
    if attn_sink is None:
        attn_sink = torch.full((heads,), -torch.inf)
    model(
        q=q.contiguous(),
        cache=cache,
        indices=indices.contiguous(),
        topk_length=topk_length.contiguous(),
        attn_sink=attn_sink,
        sm_scale=sm_scale,
        last_slot=num_pages * page_size - 1,
        out=out,
        lse=lse,
        rows=rows,
        topk=topk,
        num_pages=num_pages,
        page_size=page_size,
        page_stride=cache.stride(0),
    )
