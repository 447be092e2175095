"""The mutator over the library's kernels: what survives is what docs/cuda_mutations.md explains.

python -m pytest -m slow -s tests/test_cuda_mutations.py -k topk    prints reports, and rows for it
"""

from __future__ import annotations

import os
import re
from collections import Counter

import pytest
from kernel_mutations import CASES, place, ptx_of, run_of
from test_cuda_build import ROOT

from dsa_kernels import _cuda
from dsa_kernels.testing import on_gpu
from ptx_emulator._catalogue import CATALOGUE
from ptx_emulator.mutate import mutate

PROBLEM = _cuda.emulation_problem("mqa_logits") or (on_gpu.wanted() and "a GPU is the backend")
pytestmark = pytest.mark.skipif(bool(PROBLEM), reason=str(PROBLEM))

DOCS = ROOT / "docs" / "cuda_mutations.md"

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
SYNCHRONISATION = [kind for kind in CATALOGUE if kind not in OF_VALUES]
# Kernels of little more than loads and stores have few mutations: all are made.
SMALL = re.compile("indices_to_slots|indexer_k_cache|indexer_q|mla_cache|merge")


def kinds_of(kernel: str) -> list[str]:
    return list(CATALOGUE) if SMALL.match(kernel) else SYNCHRONISATION


def documented_survivors(kernel: str) -> Counter:
    """How many mutations of a kind survive where. A row is of the kernels whose names begin so."""
    rows = re.findall(
        r"^\| `([\w`, ]+)` \| `(.+?)` \| ([\w .,_]+) \| (\d+) \| .+ \|$",
        DOCS.read_text(),
        re.MULTILINE,
    )
    return Counter(
        {
            (line, kind): int(n)
            for names, line, kind, n in rows
            if kernel.startswith(tuple(names.split("`, `")))
        }
    )


def documented_figures(kernel: str) -> list[int]:
    """Mutations, and how many are caught."""
    row = re.search(rf"^\| `{kernel}` \| (\d+) \| (\d+) \|", DOCS.read_text(), re.MULTILINE)
    return [int(n) for n in row.groups()]


def test_the_docs_name_no_other_kernel():
    table = re.findall(r"^\| `(\w+)` \| \d+ \| \d+ \|", DOCS.read_text(), re.MULTILINE)
    assert table == list(CASES)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", CASES)
def test_survivors_are_those_explained(kernel):
    run = run_of(CASES[kernel](kernel))
    report = mutate(ptx_of(kernel), run, kinds=kinds_of(kernel), jobs=os.cpu_count())
    found = Counter((place(v.mutation.source), v.mutation.kind) for v in report.survivors)
    rows = [f"| `{kernel}` | `{line}` | {kind} | {n} |" for (line, kind), n in found.items()]
    caught = sum(row["caught"] for row in report.counts().values())
    print(report.text(), *rows, f"| `{kernel}` | {len(report.verdicts)} | {caught} |", sep="\n")
    assert not report.broken and not report.not_loadable
    assert found == documented_survivors(kernel)
    assert [len(report.verdicts), caught] == documented_figures(kernel)
