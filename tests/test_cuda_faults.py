"""Deliberate faults in the CUDA kernels (`-DDSA_FAULT=n`): each turns a test of its op red."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from test_cuda_build import ROOT, build, needs_nvcc

from dsa_kernels import _cuda

# Fault -> the op whose tests see it. What each is stands where it is compiled in.
FAULTS = {
    101: "mqa_logits",
    102: "mqa_logits",
    103: "mqa_logits",
    151: "paged_mqa_logits",
    152: "paged_mqa_logits",
    201: "topk_indices",
    202: "topk_indices",
    203: "topk_indices",
    204: "topk_indices",
    301: "sparse_mla_prefill",
    302: "sparse_mla_prefill",
    303: "sparse_mla_prefill",
    304: "sparse_mla_prefill",
    305: "sparse_mla_prefill",
    401: "sparse_mla_decode",
    402: "sparse_mla_decode",
    403: "sparse_mla_decode",
    404: "sparse_mla_decode",
    405: "sparse_mla_decode",
    406: "sparse_mla_decode",
    501: "indices_to_slots",
    502: "indices_to_slots",
    503: "merge_attention_states",
    504: "merge_attention_states",
    505: "mla_cache_gather",
    506: "mla_cache_gather",
    507: "indexer_k_cache_gather",
    508: "mla_cache_gather",
    509: "mla_cache_store",
    510: "mla_cache_store",
    511: "indexer_k_cache_store",
    512: "indexer_k_cache_store",
    513: "indexer_q_rope_quant",
    514: "indexer_q_rope_quant",
    515: "indexer_q_rope_quant",
    516: "indexer_k_cache_store",
}


def test_every_fault_has_an_op():
    found = set()
    for path in (ROOT / "csrc" / "cuda").rglob("*.cu*"):
        found |= {int(n) for n in re.findall(r"DSA_FAULT [!=]= (\d+)", path.read_text())}
    assert found == set(FAULTS)
    assert len(found) >= 10


@pytest.mark.slow
@needs_nvcc
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_turns_a_test_red(fault, tmp_path):
    op = FAULTS[fault]
    for ptx in _cuda.code_directory().glob("*.ptx"):
        shutil.copy(ptx, tmp_path)
    build.main(["--ptx-only", "--fault", str(fault), "--op", op, "--out", str(tmp_path)])
    # An op's kernel may have tests of its own beside the op's.
    tests = [f"tests/test_{op}.py", "tests/test_emulated.py"]
    tests += [str(p) for p in (ROOT / "tests").glob(f"test_{op}_cuda.py")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-k", f"(emulated or {op}_cuda) and ({op} or test_{op})", *tests]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "DSA_CUDA_CODE": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, f"no test saw fault {fault} of {op}:\n{done.stdout[-2000:]}"
