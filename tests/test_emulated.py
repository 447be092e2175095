"""CUDA kernels in the emulator: right, free of races and the same bytes in every schedule.

That they meet their contracts, each op's own tests say: they run with this backend as with any.
"""

from __future__ import annotations

import time

import pytest
import torch
from dtypes import taken_by_cuda

from dsa_kernels._op import OPS
from dsa_kernels.testing import assert_bitwise_equal
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import copy_written, named, random_case, watched_run
from dsa_kernels.testing.emulation import SCHEDULES, emulation

EMULATED = [op for op in sorted(OPS) if "emulated" in OPS[op].backends("cpu")]
each_op = pytest.mark.parametrize("op", EMULATED)
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s[0]}-{s[1]}")

# DeepSeek-V3.2's widths, few rows.
WIDE = {
    "indexer_topk": dict(num_rows=5, seq_len=2300, num_heads=64, topk=2048, bounds="causal"),
    "paged_indexer_topk": dict(seq_lens=[2200], next_n=2, num_heads=64, topk=2048),
    "topk_indices": dict(num_rows=3, seq_len=20000, topk=2048),
    "mqa_logits": dict(num_rows=6, seq_len=400, num_heads=64, bounds="causal"),
    "sparse_mla_decode": dict(
        batch=1, num_kv=4096, num_heads=128, topk=2048, cache_format="v32", attn_sink="normal"
    ),
    "sparse_mla_prefill": dict(num_queries=1, num_kv=4096, num_heads=128, topk=2048),
    "paged_mqa_logits": dict(seq_lens=[300, 70], next_n=2, num_heads=64),
    "indexer_q_rope_quant": dict(num_tokens=5, num_heads=64, rope_layout="neox"),
    "indexer_k_cache_store": dict(num_tokens=70, num_pages=3, page_size=64),
    "indexer_k_cache_gather": dict(lengths=[150, 3, 70]),
    "indices_to_slots": dict(batch=2, rows_per_request=3, topk=2048, seq_len=5000),
    "mla_cache_store": dict(num_tokens=70, num_pages=3, page_size=64, cache_format="v32"),
    "mla_cache_gather": dict(lengths=[150, 3, 70], cache_format="v32"),
    "merge_attention_states": dict(num_parts=5, num_rows=3, num_heads=128, empty=0.2),
}


def small(op: str, which: int) -> list:
    return case(op).make(torch.Generator().manual_seed(which), **case(op).SMALL[which])


def wide(op: str) -> list:
    return case(op).make(torch.Generator().manual_seed(0), **WIDE[op])


def outputs(op: str, arguments: list) -> dict:
    """What the op writes, by name, of a run on copies."""
    copied = copy_written(OPS[op], arguments)
    OPS[op](*copied, backend="emulated")
    written = {s.name for s in OPS[op].tensors if s.written and s.name != "workspace"}
    return {n: v for n, v in named(OPS[op], copied).items() if n in written}


@each_op
@each_schedule
def test_small_cases_in_every_schedule(op, schedule):
    for which in (0, 1):
        arguments = small(op, which)
        expected = watched_run(OPS[op], arguments, "reference")
        eager = outputs(op, arguments)
        with emulation(*schedule):
            case(op).compare(expected, watched_run(OPS[op], arguments, "emulated"))
            for name, value in outputs(op, arguments).items():
                assert_bitwise_equal(value, eager[name], name)


@each_op
@pytest.mark.parametrize("seed", range(12))
def test_random_cases(op, seed):
    """`python -m dsa_kernels fuzz` draws the same cases."""
    shape, arguments = random_case(op, seed)
    if not taken_by_cuda(op, arguments):
        pytest.skip(f"CUDA refuses {shape}")
    expected = watched_run(OPS[op], arguments, "reference")
    with emulation("late" if seed % 2 else "random", seed):
        try:
            case(op).compare(expected, watched_run(OPS[op], arguments, "emulated"))
        except (AssertionError, RuntimeError) as error:
            raise AssertionError(f"{op} of seed {seed}, {shape}: {error}") from None


@each_op
def test_twenty_seeds_give_the_same_bytes(op):
    arguments = small(op, 1)
    first = outputs(op, arguments)
    for seed in range(20):
        with emulation("random", seed):
            for name, value in outputs(op, arguments).items():
                assert_bitwise_equal(value, first[name], f"{name} with seed {seed}")


@pytest.mark.parametrize("op", sorted(set(WIDE) & set(EMULATED)))
@pytest.mark.parametrize("coarse_fp8", [False, True])
def test_true_widths(op, coarse_fp8):
    arguments = wide(op)
    expected = watched_run(OPS[op], arguments, "reference")
    with emulation("late", coarse_fp8=coarse_fp8):
        actual = watched_run(OPS[op], arguments, "emulated")
    if not coarse_fp8:
        case(op).compare(expected, actual)
        return
    # Products summed with 13 bits below the largest: errors grow, and stay small beside the result,
    # which may be rounded to bfloat16.
    for spec in OPS[op].tensors:
        if spec.written and expected[spec.name].is_floating_point():
            e, a = expected[spec.name].double(), actual[spec.name].double()
            assert torch.equal(e.isfinite(), a.isfinite())
            e, a = e[e.isfinite()], a[a.isfinite()]
            rounding = 2**-7 if expected[spec.name].dtype == torch.bfloat16 else 0
            assert float((e - a).abs().max()) <= (1e-3 + rounding) * float(e.abs().max())


@pytest.mark.slow  # a busy machine fails it
@pytest.mark.parametrize("mode", ["eager", "late", "random"])
def test_speed_of_a_query_token(mode):
    """128 heads x 2048 keys x 576 dims on one core, looking for races: at most 0.15 s."""
    op = "sparse_mla_prefill"
    arguments = wide(op)
    seconds = []
    with emulation(mode, 1):
        for _ in range(8):
            copied = copy_written(OPS[op], arguments)
            begin = time.thread_time()
            OPS[op](*copied, backend="emulated")
            seconds.append(time.thread_time() - begin)
    print(f"{sorted(seconds)[4]:.3f} s, at best {min(seconds):.3f}")
    assert min(seconds) <= 0.15
