"""What the benchmarks share: their rows are the published shapes of dsa_kernels.testing.cases.

`python -m dsa_kernels bench` prints the same rows with rates and errors; these files are for
pytest-benchmark's comparisons: --benchmark-save, --benchmark-compare, -k v32-decode.
"""

from __future__ import annotations

import pytest

import dsa_kernels
from dsa_kernels._op import OPS
from dsa_kernels.cli.bench import REFERENCE_FLOPS, make_arguments
from dsa_kernels.testing.cases import case


def each_row(op: str):
    """Parametrises a benchmark over shape x backend, less what the reference takes too long for."""
    rows = [
        pytest.param(name, backend, id=f"{name}-{backend}")
        for name, shape in case(op).BENCH.items()
        for backend in dsa_kernels.backends(op)
        if backend != "reference" or case(op).work(**shape).flops <= REFERENCE_FLOPS
    ]

    def decorate(function):
        function = pytest.mark.parametrize(("shape", "backend"), rows)(function)
        return pytest.mark.benchmark(group=op, min_rounds=3, max_time=1.0)(function)

    return decorate


def run(benchmark, op: str, shape: str, backend: str) -> None:
    parameters = case(op).BENCH[shape]
    arguments = make_arguments(op, parameters)
    work = case(op).work(**parameters)
    benchmark.extra_info.update(parameters, flops=work.flops, bytes=work.bytes)
    benchmark(lambda: OPS[op](*arguments, backend=backend))
