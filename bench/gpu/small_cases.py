"""One small case of every op that has a CUDA kernel, on the GPU, against the reference.

compute-sanitizer --tool memcheck python -m bench.gpu.small_cases
"""

from __future__ import annotations

import sys

import torch

from dsa_kernels._op import OPS
from dsa_kernels.testing import on_gpu, poisoned_memory
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import watched_run


def run(op: str) -> None:
    """Raises where the GPU's result is not that of the contract."""
    arguments = case(op).make(torch.Generator().manual_seed(0), **case(op).SMALL[0])
    expected = watched_run(OPS[op], arguments, "reference")
    case(op).compare(expected, watched_run(OPS[op], arguments, "emulated"))


def main(device: str = "cuda") -> int:
    failed = False
    with poisoned_memory(), on_gpu.instead_of_the_emulator(device):
        for op in sorted(OPS):
            if (problem := on_gpu.problem(OPS[op], device)) is not None:
                print(f"{op}: not run, {problem}")
                continue
            try:
                run(op)
                print(f"{op}: ok", flush=True)
            except Exception as error:  # the other ops are worth as much
                failed = True
                print(f"{op}: FAILED, {type(error).__name__}: {error}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
