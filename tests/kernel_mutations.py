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
from test_topk_indices_cuda import launch as launch_topk
from test_topk_indices_cuda import misleading, rows

from dsa_kernels import _cuda, topk_indices
from dsa_kernels._op import OPS
from dsa_kernels.testing import assert_bitwise_equal
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import copy_written, named, watched_run

# What a case computes, with the kernel of a module or (None) its own, and the emulator's options.
Case = Callable[..., dict[str, torch.Tensor]]


def ptx_of(kernel: str) -> str:
    """The kernel's module without the module's other kernels, as nvcc writes it."""
    code = re.match("|".join(sorted(OPS, key=len, reverse=True)), kernel)[0]
    (path,) = _cuda.code_directory().glob(f"{code}.*.ptx")
    head, *rest = re.split(r"^(?=\.visible \.entry )", path.read_text(), flags=re.MULTILINE)
    bodies = [re.match(r".*?^}$", part, re.DOTALL | re.MULTILINE)[0] for part in rest]
    (body,) = (b for b in bodies if b.startswith(f".visible .entry {kernel}("))
    return head + body + rest[-1][len(bodies[-1]) :]


def shifted(x: torch.Tensor) -> torch.Tensor:
    """The same values, one element further on in memory: not aligned."""
    return torch.cat([x.new_zeros(1).view(-1), x.reshape(-1)])[1:].view(x.shape)


def of_op(kernel: str, shape: dict, *, unaligned: Iterable[str] = (), grid: int = 0) -> Case:
    """The op on inputs of this shape; `grid`: so many CTAs of a persistent kernel, whose rings
    would not come round if there was one for each SM."""
    from ptx_emulator.driver import intercepted

    name = re.match("|".join(sorted(OPS, key=len, reverse=True)), kernel)[0]
    op = OPS[name]
    arguments = case(name).make(torch.Generator().manual_seed(0), **shape)
    moved = {n: shifted(named(op, arguments)[n]) for n in unaligned}
    arguments = list({**named(op, arguments), **moved}.values())
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
    case = functools.partial(of_op, kernel, grid=2)
    shape = dict(num_rows=40, seq_len=330, bounds="causal", **shape)
    return [
        case(shape),
        case({**shape, "num_rows": 600 // shape["num_heads"] * 16, "seq_len": 100}),
        case(shape, unaligned=["q"]),
        case(shape, unaligned=["k"]),
        case(shape, unaligned=["k_scale"]),
    ]


def paged_mqa_logits(kernel: str, next_n: int, **shape) -> list[Case]:
    case = functools.partial(of_op, kernel, grid=2)
    lengths = [300, 17, 64, 129, 500, 3, 65, 130, 200, 90] * (2 if next_n <= 4 else 1)
    shape = dict(seq_lens=lengths, next_n=next_n, **shape)
    return [
        case(shape),
        case({**shape, "seq_lens": [70] * 40}),
        case({**shape, "page_size": 32}),
        case({**shape, "page_size": 32, "broken": 0.3}),
        case({**shape, "page_size": 128, "broken": 0.3}),
        case({**shape, "page_size": 7}),
        case(shape, unaligned=["q"]),
        case(shape, unaligned=["cache"]),
    ]


def topk(kernel: str) -> list[Case]:
    cluster = 2 if kernel.endswith("cluster") else 1
    n, k = 9001, 500
    some = {**rows(n), **misleading(n, k)}
    names = ("random", "few_levels", "nan_mix", "zero_plateau", "late_ties", "sample_is_best")
    scores = torch.stack([some[name] for name in (*names, "sample_is_worst", "rest_is_one_bin")])
    ends = torch.tensor([n, 400, 501, n, 4000, 3, n, 5000], dtype=torch.int32)
    # More entries than are marked at a time.
    n = 132_000 * cluster
    long = torch.stack([rows(n)[name] for name in ("random", "few_levels", "sparse_ties")])
    return [
        of_topk(scores, k, cluster),
        of_topk(scores, k, cluster, capacity=256),
        of_topk(scores, k, cluster, row_end=ends),
        of_topk(scores[:3], k, 4 * cluster if cluster > 1 else 1),
        of_topk(long, 3000, cluster, capacity=12000),
    ]


def sparse_mla_prefill(kernel: str, **shape) -> list[Case]:
    case = functools.partial(of_op, kernel)
    shape = dict(num_queries=1, num_kv=700, num_heads=64, selection="hostile", **shape)
    keys = "cache" if shape.get("cache_format") else "kv"
    cases = [
        case({**shape, "topk": 640, "num_heads": 70, "attn_sink": "normal"}),
        case({**shape, "topk": 704}),
        case({**shape, "topk": 704}, unaligned=[keys]),
        case({**shape, "topk": 64}),
        case({**shape, "topk": 200, "num_queries": 5, "topk_length": True, "num_heads": 8}),
        case({**shape, "topk": 200}, unaligned=["q"]),
        case({**shape, "topk": 200, "pad": 1}),
    ]
    if keys == "kv":
        paged = {**shape, "cache_format": "bf16"}
        return [
            *cases,
            case({**paged, "topk": 704}),
            case({**paged, "topk": 704}, unaligned=["cache"]),
        ]
    return [*cases, case({**shape, "topk": 320, "scale_format": "float32"})]


def sparse_mla_decode(kernel: str, **shape) -> list[Case]:
    heads = int(re.search(r"_h(\d+)", kernel)[1])
    unaligned = ["cache"] if kernel.endswith("unaligned") else []
    shape = dict(batch=1, num_kv=1300, num_heads=heads, selection="hostile", **shape)
    case = functools.partial(of_op, kernel)
    many = {**shape, "topk": 1200, "batch_invariant": True}
    return [
        case(many, unaligned=unaligned),
        case({**many, "topk": 511, "attn_sink": "normal"}, unaligned=unaligned),
        case({**shape, "topk": 600}, unaligned=unaligned),
        case({**shape, "topk": 200, "batch": 4, "topk_length": True}, unaligned=unaligned),
        case({**shape, "topk": 200}, unaligned=[*unaligned, "q"]),
    ]


def _fp8(d_qk: int, cache_format: str) -> dict:
    return dict(d_qk=d_qk, cache_format=cache_format)


CASES: dict[str, Callable[[str], list[Case]]] = {
    "mqa_logits_fp8_h64_d128": lambda k: mqa_logits(k, num_heads=64),
    "mqa_logits_fp8_h8_d64": lambda k: mqa_logits(k, num_heads=8, head_dim=64),
    "mqa_logits_bf16_h64_d128": lambda k: mqa_logits(k, num_heads=64, dtype="bfloat16"),
    "mqa_logits_bf16_h32_d64": lambda k: mqa_logits(
        k, num_heads=32, head_dim=64, dtype="bfloat16"
    ),
    "paged_mqa_logits_h64_d128_q1": lambda k: paged_mqa_logits(k, 1, num_heads=64),
    "paged_mqa_logits_h64_d128_q2": lambda k: paged_mqa_logits(k, 2, num_heads=64),
    "paged_mqa_logits_h64_d128_q4": lambda k: paged_mqa_logits(k, 5, num_heads=64),
    "paged_mqa_logits_h8_d64_q4": lambda k: paged_mqa_logits(k, 3, num_heads=8, head_dim=64),
    "topk_indices_cta": topk,
    "topk_indices_cluster": topk,
    "sparse_mla_prefill_bf16_576": lambda k: sparse_mla_prefill(k),
    "sparse_mla_prefill_bf16_512": lambda k: sparse_mla_prefill(k, d_qk=512),
    "sparse_mla_prefill_v32": lambda k: sparse_mla_prefill(k, **_fp8(576, "v32")),
    "sparse_mla_prefill_v4": lambda k: sparse_mla_prefill(k, **_fp8(512, "v4")),
    **{
        f"sparse_mla_decode_{name}{heads}{unaligned}": functools.partial(
            sparse_mla_decode, **_fp8(*format)
        )
        for name, format in {
            "v32": (576, "v32"),
            "v4": (512, "v4"),
            "bf16_576": (576, "bf16"),
            "bf16_512": (512, "bf16"),
        }.items()
        for heads in ("_h64", "_h32", "_h16")
        for unaligned in ("", "_unaligned")
    },
}

# Where a wrapper of an instruction is called is what tells one use from another.
_WRAPPERS = re.compile(
    r"device/(common|mbarrier|tma|cp_async|cluster|wgmma|matrix_store)\.cuh|topk_indices/group\.cuh"
)


@functools.cache
def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def place(source: tuple[tuple[str, int], ...]) -> str:
    """The line of the kernel's source that a mutation is about."""
    frames = [(os.path.normpath(file), line) for file, line in source]
    frames = [frame for frame in frames if "/csrc/cuda/" in frame[0]]
    uses = [frame for frame in frames if not _WRAPPERS.search(frame[0])]
    file, line = (uses or frames)[0]
    return _lines(file)[line - 1].strip()
