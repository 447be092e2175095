"""Kernels and launches for the mutator (test_cuda_mutations.py): every ring goes round several
times, every way through the kernel is taken, and clusters have several CTAs."""

from __future__ import annotations

import ctypes
import functools
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from test_topk_indices_cuda import launch as launch_topk, misleading, rows

from dsa_kernels import _cuda, topk_indices
from dsa_kernels._op import OPS
from dsa_kernels.testing import assert_bitwise_equal
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import copy_written, named, watched_run

# What a case computes, with the kernel of a module or (None) its own, and the emulator's options.
Case = Callable[..., dict[str, torch.Tensor]]


def op_of(kernel: str) -> str:
    return next(op for op in sorted(OPS, key=len, reverse=True) if kernel.startswith(op))


def ptx_of(kernel: str) -> str:
    """The kernel's module without the module's other kernels, as nvcc writes it."""
    (path,) = _cuda.code_directory().glob(f"{op_of(kernel)}.*.ptx")
    head, *kernels = re.split(r"^(?=\.visible \.entry )", path.read_text(), flags=re.MULTILINE)
    # Names of files and of inlined functions follow the last one.
    kernels[-1], files = re.split(r"^(?=\s*\.file\b)", kernels[-1], maxsplit=1, flags=re.MULTILINE)
    (one,) = (text for text in kernels if text.startswith(f".visible .entry {kernel}("))
    return head + one + files


def shifted(x: torch.Tensor) -> torch.Tensor:
    """The same values, one element further on in memory: not aligned."""
    return torch.cat([x.new_zeros(1).view(-1), x.reshape(-1)])[1:].view(x.shape)


def of_op(
    kernel: str,
    shape: dict,
    *,
    given: dict[str, torch.Tensor] | None = None,
    unaligned: Iterable[str] = (),
    grid: int = 0,
) -> Case:
    """The op on inputs of this shape, or `given`; `grid`: so many CTAs of a persistent kernel,
    whose rings would not come round if there was one for each SM."""
    from ptx_emulator.driver import intercepted

    name = op_of(kernel)
    op = OPS[name]
    made = named(op, case(name).make(torch.Generator().manual_seed(0), **shape)) | (given or {})
    arguments = list((made | {n: shifted(made[n]) for n in unaligned}).values())
    expected = watched_run(op, arguments, "reference")
    case(name).compare(expected, watched_run(op, arguments, "emulated"))
    written = [s.name for s in op.tensors if s.written]

    def run(module, **options):
        ran = []

        def instead(launch):
            if launch.kernel != kernel:
                return launch.run(**options)
            ran.append(kernel)
            if grid:
                launch.grid = (ctypes.c_uint32 * 3)(grid, 1, 1)
            return launch.run(module, **options)

        copied = copy_written(op, arguments)
        with intercepted(instead):
            op(*copied, backend="emulated")
        if not ran:
            raise RuntimeError(f"{name} does not launch {kernel} for {shape}")
        return {n: named(op, copied)[n] for n in written}

    return run


def of_topk(scores: torch.Tensor, topk: int, cluster: int, **arguments) -> Case:
    """The kernel by itself, with a size of cluster and a capacity that make short rows long."""

    def run(module, **options):
        return {"out": launch_topk(scores, topk, cluster, code=module, **arguments, **options)[0]}

    bounds = {n: a for n, a in arguments.items() if n.startswith("row")}
    assert_bitwise_equal(run(None)["out"], topk_indices(scores, topk, backend="native", **bounds))
    return run


def run_of(cases: list[Case]) -> Callable:
    """The mutator's `run`: each case gives the bytes that it gives with the original."""
    expected = [run(None) for run in cases]

    def run(module, **options):
        for computed, wanted in zip(cases, expected, strict=True):
            for name, value in computed(module, **options).items():
                assert_bitwise_equal(value, wanted[name], name)

    return run


def mqa_logits(kernel: str, **shape) -> list[Case]:
    run = functools.partial(of_op, kernel, grid=2)
    block = 256 // shape["num_heads"]
    shape = dict(num_rows=10 * block, seq_len=330, bounds="causal", **shape)
    return [
        run(shape),
        run({**shape, "num_rows": 37 * block, "seq_len": 100, "bounds": "full"}),
        run(shape, unaligned=["q"]),
        run(shape, unaligned=["k"]),
        run(shape, unaligned=["k_scale"]),
    ]


def paged_mqa_logits(kernel: str, next_n: int, **shape) -> list[Case]:
    run = functools.partial(of_op, kernel, grid=2)
    lengths = [300, 17, 64, 129, 500, 3, 65, 130, 200, 150] * (2 if next_n <= 4 else 1)
    shape = dict(seq_lens=lengths, next_n=next_n, **shape)
    return [
        run(shape),
        run({**shape, "seq_lens": [70] * 41, "next_n": min(next_n, 4)}),
        run({**shape, "page_size": 32}),
        run({**shape, "page_size": 32, "broken": 0.3}),
        run({**shape, "page_size": 128, "broken": 0.3}),
        run({**shape, "page_size": 7}),
        run(shape, unaligned=["q"]),
        run(shape, unaligned=["cache"]),
    ]


def topk(kernel: str) -> list[Case]:
    cluster = 2 if kernel.endswith("cluster") else 1
    n, k = 9001, 500
    some = {**rows(n), **misleading(n, k)}
    names = ("random", "few_levels", "nan_mix", "zero_plateau", "late_ties", "sample_is_best")
    scores = torch.stack([some[name] for name in (*names, "sample_is_worst", "rest_is_one_bin")])
    ends = torch.tensor([n, 400, 501, n, 4000, 3, n, 5000], dtype=torch.int32)
    # More entries than are marked at a time.
    n, k_of_long = 132_000 * cluster, 3000
    some = {**rows(n), **misleading(n, k_of_long)}
    long = torch.stack([some[name] for name in ("random", "high_plateau", "sample_is_best")])
    return [
        of_topk(misleading(n, 1000)["sample_is_equal"][None], 1000, cluster),
        of_topk(scores[:4], k, cluster, capacity=256),
        of_topk(scores, k, cluster),
        of_topk(scores, k, cluster, row_end=ends),
        of_topk(scores[:1], k, cluster**3),
        of_topk(scores[:2], k, cluster**3, capacity=256),
        of_topk(long, k_of_long, cluster, capacity=12000),
    ]


def sparse_mla_prefill(kernel: str, **shape) -> list[Case]:
    run = functools.partial(of_op, kernel)
    shape = dict(num_queries=1, num_kv=700, num_heads=64, selection="hostile", **shape)
    keys = "cache" if shape.get("cache_format") else "kv"
    cases = [
        run({**shape, "topk": 64}),
        # What has been summed up shrinks where a later block has the first keys.
        run({**shape, "topk": 128, "selection": "first_invalid"}),
        run({**shape, "topk": 192, "selection": "first_invalid"}),
        run({**shape, "topk": 200}, unaligned=["q"]),
        run({**shape, "topk": 130, "pad": 1}),
        run({**shape, "topk": 200, "num_queries": 3, "topk_length": True, "num_heads": 8}),
        run({**shape, "topk": 70, "num_heads": 70, "attn_sink": "normal"}),
        run({**shape, "topk": 448}, unaligned=[keys]),
        run({**shape, "topk": 640}),
        run({**shape, "topk": 704}),
    ]
    if keys == "kv":
        paged = {**shape, "cache_format": "bf16"}
        return [
            *cases,
            run({**paged, "topk": 448}),
            run({**paged, "topk": 448}, unaligned=["cache"]),
        ]
    return [*cases, run({**shape, "topk": 320, "scale_format": "float32"})]


def sparse_mla_decode(kernel: str, **shape) -> list[Case]:
    heads = int(re.search(r"_h(\d+)", kernel)[1])
    unaligned = ["cache"] if kernel.endswith("unaligned") else []
    run = functools.partial(of_op, kernel, unaligned=unaligned)
    shape = dict(batch=1, num_kv=1300, num_heads=heads, selection="hostile", **shape)
    fixed = {**shape, "batch_invariant": True}
    cases = [
        run({**shape, "topk": 200}, unaligned=[*unaligned, "q"]),
        run({**shape, "topk": 128, "selection": "first_invalid"}),
        run({**fixed, "topk": 192, "selection": "first_invalid"}),
        run({**fixed, "topk": 511, "attn_sink": "normal"}),
        run({**shape, "topk": 200, "batch": 2, "topk_length": True}),
        run({**fixed, "topk": 800}),
    ]
    # 20 blocks for one CTA of 8.
    lengths = torch.tensor([[64 * 20]], dtype=torch.int32)
    return [*cases, run({**fixed, "topk": 64 * 160}, given={"topk_length": lengths})]


def sparse_mla_decode_pair(kernel: str, **shape) -> list[Case]:
    """Of 1, 2 and 4 splits: clusters of 2, 4 and 8."""
    run = functools.partial(of_op, kernel)
    shape = dict(batch=1, num_kv=2500, num_heads=128, selection="hostile", **shape)
    fixed = {**shape, "batch_invariant": True}
    # 40 blocks for one pair; the other tokens, which make it one split, have a key each.
    lengths = torch.ones(66, 1, dtype=torch.int32)
    lengths[5] = 64 * 40
    return [
        run({**fixed, "topk": 192, "selection": "first_invalid"}, unaligned=["q"]),
        run({**fixed, "topk": 511, "attn_sink": "normal"}),
        run({**fixed, "topk": 800, "num_heads": 70}),
        run({**fixed, "topk": 330, "scale_format": "float32"}),
        run({**fixed, "topk": 2048}),
        run({**shape, "batch": 66, "topk": 64 * 40}, given={"topk_length": lengths}),
    ]


def small(kernel: str, *shapes: dict, grid: int = 0) -> list[Case]:
    return [of_op(kernel, shape, grid=grid) for shape in shapes]


CASES: dict[str, Callable[[str], list[Case]]] = {
    "mqa_logits_fp8_h64_d128": lambda k: mqa_logits(k, num_heads=64),
    "mqa_logits_fp8_h8_d64": lambda k: mqa_logits(k, num_heads=8, head_dim=64),
    "mqa_logits_bf16_h64_d128": lambda k: mqa_logits(k, num_heads=64, dtype="bfloat16"),
    "mqa_logits_bf16_h32_d64": lambda k: mqa_logits(k, num_heads=32, head_dim=64, dtype="bfloat16"),
    "paged_mqa_logits_h64_d128_q1": lambda k: paged_mqa_logits(k, 1, num_heads=64),
    "paged_mqa_logits_h64_d128_q2": lambda k: paged_mqa_logits(k, 2, num_heads=64),
    "paged_mqa_logits_h64_d128_q4": lambda k: paged_mqa_logits(k, 5, num_heads=64),
    "paged_mqa_logits_h8_d64_q4": lambda k: paged_mqa_logits(k, 3, num_heads=8, head_dim=64),
    "indices_to_slots": lambda k: small(
        k,
        dict(batch=2, rows_per_request=4, topk=800, seq_len=5000),
        dict(batch=2, rows_per_request=4, topk=1100, seq_len=5000),
        grid=2,
    ),
    "indexer_k_cache_store_bf16_128": lambda k: small(
        k,
        dict(num_tokens=70, num_pages=3, page_size=64, skipped=0.3),
        dict(num_tokens=70, num_pages=3, page_size=64, rope_dim=32),
        dict(num_tokens=70, num_pages=3, page_size=64, rope_dim=32, rope_layout="interleaved"),
    ),
    "indexer_k_cache_gather_128": lambda k: small(k, dict(lengths=[150, 3, 70], broken=0.3)),
    "indexer_q_rope_quant_bf16_128": lambda k: small(
        k,
        dict(num_tokens=5, num_heads=64, rope_layout="neox"),
        dict(num_tokens=5, num_heads=64, rope_layout="neox", rope_dim=32),
        dict(num_tokens=5, num_heads=64, rope_layout="interleaved", rope_dim=32),
    ),
    "mla_cache_store_v32_bf16": lambda k: small(
        k, dict(num_tokens=70, num_pages=3, page_size=64, cache_format="v32")
    ),
    "mla_cache_gather_v32_bf16": lambda k: small(
        k, dict(lengths=[150, 3, 70], cache_format="v32", broken=0.3)
    ),
    "merge_attention_states_bf16_bf16": lambda k: small(
        k, dict(num_parts=5, num_rows=3, num_heads=16, empty=0.2)
    ),
    "topk_indices_cta": topk,
    "topk_indices_cluster": topk,
    "sparse_mla_prefill_bf16_576": lambda k: sparse_mla_prefill(k),
    "sparse_mla_prefill_v32": lambda k: sparse_mla_prefill(k, d_qk=576, cache_format="v32"),
    "sparse_mla_prefill_v4": lambda k: sparse_mla_prefill(k, d_qk=512, cache_format="v4"),
    "sparse_mla_decode_v32_h64": lambda k: sparse_mla_decode(k, d_qk=576, cache_format="v32"),
    "sparse_mla_decode_v32_h16": lambda k: sparse_mla_decode(k, d_qk=576, cache_format="v32"),
    "sparse_mla_decode_v4_h32_unaligned": lambda k: sparse_mla_decode(
        k, d_qk=512, cache_format="v4"
    ),
    "sparse_mla_decode_bf16_576_h64": lambda k: sparse_mla_decode(k, d_qk=576, cache_format="bf16"),
    "sparse_mla_decode_bf16_512_h16": lambda k: sparse_mla_decode(k, d_qk=512, cache_format="bf16"),
    "sparse_mla_decode_bf16_576_h32_unaligned": lambda k: sparse_mla_decode(
        k, d_qk=576, cache_format="bf16"
    ),
    "sparse_mla_decode_v32_h128": lambda k: sparse_mla_decode_pair(k, d_qk=576, cache_format="v32"),
}

# Where a wrapper of an instruction is called is what tells one use from another.
_WRAPPERS = re.compile(
    r"device/(common|mbarrier|tma|cp_async|cluster|wgmma|matrix_store)\.cuh|topk_indices/group\.cuh"
)


@functools.cache
def _lines(path: str) -> list[str]:
    """Of a file of this repository, wherever it was when it was compiled."""
    here = Path(__file__).parents[1] / path[path.rindex("csrc/cuda/") :]
    return [line.strip() for line in here.read_text().splitlines()]


def place(source: tuple[tuple[str, int], ...]) -> str:
    """The line of the kernel's source that a mutation is about; if there are more like it in the
    file, with the next, or the one before."""
    frames = [(os.path.normpath(file), line) for file, line in source]
    frames = [frame for frame in frames if "/csrc/cuda/" in frame[0]]
    uses = [frame for frame in frames if not _WRAPPERS.search(frame[0])]
    file, number = (uses or frames[-1:])[0]
    lines = _lines(file)
    before, line, after = lines[number - 2 : number + 1]
    if lines.count(line) > 1:
        line = f"{before} {line}" if after[:1] in ("", "}", "#") else f"{line} {after}"
    return f"{os.path.basename(file)}: {line}"
