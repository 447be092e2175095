"""The mutator over the library's kernels: nothing survives but what docs/cuda_mutations.md explains.

python -m pytest -m slow -s tests/test_cuda_mutations.py -k topk    prints reports, and rows for it
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from kernel_mutations import CASES, place, ptx_of, run_of

from ptx_emulator._catalogue import CATALOGUE
from ptx_emulator.mutate import mutate

# Not of synchronisation, and hundreds in a kernel.
OF_VALUES = {
    "other wgmma scale",
    "other wgmma major",
    "other descriptor swizzle",
    "other descriptor stride",
    "other descriptor leading",
    "drop store",
    "drop atomic",
    "drop address xor",
    "other address mask",
    "other address shift",
}
KINDS = [kind for kind in CATALOGUE if kind not in OF_VALUES]


@pytest.mark.slow
@pytest.mark.parametrize("kernel", CASES)
def test_survivors_are_those_explained(kernel):
    report = mutate(ptx_of(kernel), run_of(CASES[kernel](kernel)), kinds=KINDS, jobs=os.cpu_count())
    print(report.text())
    found = Counter((place(v.mutation.source), v.mutation.kind) for v in report.survivors)
    for (line, kind), n in found.items():
        print(f"| `{line}` | {kind} | {n} |")
    assert not report.broken and not report.not_loadable
