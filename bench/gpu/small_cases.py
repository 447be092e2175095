"""One small case of every op that has a CUDA kernel, on the GPU, between guard bands.

compute-sanitizer --tool memcheck python -m bench.gpu.small_cases
"""

from __future__ import annotations

import sys

import torch

from dsa_kernels._op import OPS
from dsa_kernels.testing import on_gpu, poisoned_memory
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import watched_run


def small_shapes(op: str) -> list[dict]:
    """With bf16, and with fp8 where the op multiplies that as well: they are other kernels."""
    shape = case(op).SMALL[0]
    takes_fp8 = any(torch.float8_e4m3fn in spec.cuda_dtypes for spec in OPS[op].tensors)
    return (
        [shape, {**shape, "dtype": "float8_e4m3fn"}] if takes_fp8 and "dtype" in shape else [shape]
    )


def run(op: str, shape: dict) -> None:
    """Raises where the kernel fails or writes beside its outputs; values are for the tests."""
    arguments = case(op).make(torch.Generator().manual_seed(0), **shape)
    watched_run(OPS[op], arguments, "emulated")


def main(device: str = "cuda") -> int:
    failed = False
    with poisoned_memory(), on_gpu.instead_of_the_emulator(device):
        for op in sorted(OPS):
            if (problem := on_gpu.problem(OPS[op], device)) is not None:
                print(f"{op}: not run, {problem}")
                continue
            for shape in small_shapes(op):
                try:
                    run(op, shape)
                    print(f"{op} {shape}: ok", flush=True)
                except Exception as error:  # the other ops are worth as much
                    failed = True
                    print(f"{op} {shape}: FAILED, {type(error).__name__}: {error}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
