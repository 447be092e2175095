"""The CUDA kernel of topk_indices by itself: every way through it, by a CTA and by clusters.

The op's tests run it as its launcher would. Here the cluster size is given, and the room for
candidates, so that short rows take the ways that otherwise only long ones do; and the profile says
how often a row was read, so that each test knows which way it took.
"""

from __future__ import annotations

import ctypes
import functools

import pytest
import torch

from dsa_kernels import _cuda, topk_indices
from dsa_kernels.testing import assert_bitwise_equal, hostile_rows
from dsa_kernels.testing.emulation import SCHEDULES

pytestmark = pytest.mark.skipif(
    _cuda.emulation_problem("topk_indices") is not None,
    reason=str(_cuda.emulation_problem("topk_indices")),
)

CLUSTERS = (1, 2, 4, 8)
THREADS = 512


class Arguments(ctypes.Structure):
    """TopkIndicesArgs of csrc/cuda/topk_indices/kernel.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("scores", "row_start", "row_end", "out")),
        *((name, ctypes.c_int64) for name in ("scores_stride", "out_stride")),
        *((name, ctypes.c_int32) for name in ("num_rows", "seq_len", "topk", "capacity")),
    )


@functools.cache
def module():
    from ptx_emulator import Module  # imported where it is needed: it builds itself

    return Module(str(_cuda.code_directory() / "topk_indices.sm90.ptx"))


def launch(
    scores,
    topk,
    cluster,
    *,
    capacity=4096,
    row_start=None,
    row_end=None,
    code=None,  # a module; the library's
    **options,
):
    """The selected indices, and what the emulator says of the launch."""
    num_rows, seq_len = scores.shape
    out = torch.full((num_rows, topk), -7, dtype=torch.int32)
    tensors = (scores, row_start, row_end, out)
    launched = (code or module()).launch(
        "topk_indices_cluster" if cluster > 1 else "topk_indices_cta",
        num_rows * cluster,
        THREADS,
        [
            Arguments(
                *(None if t is None else t.data_ptr() for t in tensors),
                scores.stride(0),
                out.stride(0),
                num_rows,
                seq_len,
                topk,
                capacity,
            )
        ],
        cluster=cluster,
        shared=227 * 1024,
        memory=[t for t in tensors if t is not None],
        **options,
    )
    return out, launched


def times_read(launched, scores) -> float:
    """Bytes that were read of a row, by its bytes."""
    read = launched.profile.as_dict()["memory"]["global"]["all"]["read_bytes"]
    return read / (scores.numel() * scores.element_size())


def rows(n: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    normal, index = torch.randn(n, generator=generator), torch.arange(n)
    return dict(
        hostile_rows(n, generator),
        ascending_levels=(index // (n // 3 + 1)).float(),
        sparse_ties=torch.where(index % 997 == 0, 1.0, -normal.abs()),
        high_plateau=torch.where(normal > 2.9, normal, 0.0),
        late_ties=torch.where(index > n - 700, 1.0, -normal.abs()),
        best_last=torch.where(index > n - 700, normal.abs() + 1, -normal.abs()),
    )


def not_sampled(n: int, topk: int) -> torch.Tensor:
    """Where guess_threshold of csrc/cuda/topk_indices/select_row.cuh does not look."""
    stride = max(64, topk // 16, -(-n // 8192))
    i = torch.arange(n // stride)
    places = i * stride + ((((i * 0x9E3779B1) & 0xFFFFFFFF) * stride) >> 32)
    return torch.ones(n, dtype=torch.bool).index_fill(0, places, False)


def misleading(n: int, topk: int) -> dict[str, torch.Tensor]:
    """Rows whose sample says too much, or too little."""
    normal = torch.randn(n, generator=torch.Generator().manual_seed(topk))
    hidden = not_sampled(n, topk)
    return {
        "sample_is_best": torch.where(hidden, normal, normal + 20),
        "sample_is_worst": torch.where(hidden, normal, normal - 20),
        "sample_is_equal": torch.where(hidden, normal, torch.tensor(3.0)),
        "sample_is_nan": torch.where(hidden, normal, torch.tensor(float("nan"))),
        "rest_is_nan": torch.where(hidden, torch.tensor(float("nan")), normal),
        "rest_is_one_bin": torch.where(
            hidden, 1.0 + torch.arange(n).remainder(8192) * 2.0**-23, -normal.abs()
        ),
    }


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("capacity", [256, 4096])
@pytest.mark.parametrize(("n", "topk"), [(3000, 100), (9001, 700)])
def test_every_row_by_every_cluster(cluster, capacity, n, topk):
    for name, row in {**rows(n), **misleading(n, topk)}.items():
        got, _ = launch(row[None], topk, cluster, capacity=capacity)
        assert_bitwise_equal(got, topk_indices(row[None], topk, backend="native"), name)


@pytest.mark.parametrize("cluster", [1, 8])
@pytest.mark.parametrize("topk", [2048, 4096])
def test_a_million_scores(cluster, topk):
    n = 1_000_000
    capacity = 8192 if topk == 2048 else 15360
    for name, row in {**rows(n), **misleading(n, topk)}.items():
        if name in (
            *("random", "few_levels", "ascending", "sparse_ties", "high_plateau"),
            *("sample_is_best", "rest_is_one_bin"),
        ):
            got, _ = launch(row[None], topk, cluster, capacity=capacity)
            assert_bitwise_equal(got, topk_indices(row[None], topk, backend="native"), name)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_how_often_a_row_is_read(cluster):
    """Once; of a plateau at the k-th place, again as far as its ties are needed; where the sample
    was wrong, once for each digit of the threshold and once or twice to emit."""
    n, topk = 65_536, 1024
    normal = torch.randn(n, generator=torch.Generator().manual_seed(0))
    wrong = misleading(n, topk)
    for name, row, least, most in (
        ("random", normal, 1, 1.02),
        ("all equal", torch.ones(n), 1, 1.2),
        ("plateau", normal.clamp(min=2.5), 1, 1.2),
        ("sample is best", wrong["sample_is_best"], 3, 6.1),
        ("ties over all the row", wrong["sample_is_equal"], 1.9, 2.1),
        ("rest is one bin", wrong["rest_is_one_bin"], 3, 6.1),
    ):
        got, launched = launch(row[None], topk, cluster, profile=True)
        assert_bitwise_equal(got, topk_indices(row[None], topk, backend="native"), name)
        assert least <= times_read(launched, row) <= most, (name, times_read(launched, row))


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s[0]}-{s[1]}")
def test_schedules(cluster, schedule):
    mode, seed = schedule
    n, topk = 9001, 500
    chosen = {**rows(n), **misleading(n, topk)}
    names = ("random", "few_levels", "nan_mix", "zero_plateau", "late_ties", "sample_is_best")
    scores = torch.stack([chosen[name] for name in names])
    got, _ = launch(scores, topk, cluster, mode=mode, seed=seed)
    assert_bitwise_equal(got, topk_indices(scores, topk, backend="native"))


@pytest.mark.parametrize("cluster", [1, 4])
def test_twenty_seeds_give_the_same_bytes(cluster):
    scores = torch.stack([rows(6000)[name] for name in ("random", "few_levels", "zero_plateau")])
    first, _ = launch(scores, 300, cluster, capacity=1024)
    for seed in range(20):
        got, _ = launch(scores, 300, cluster, capacity=1024, mode="random", seed=seed)
        assert_bitwise_equal(got, first, f"seed {seed}")


@pytest.mark.parametrize("cluster", [1, 2, 8])
@pytest.mark.parametrize("stride", [5000, 5001, 5003, 4999])
def test_alignments_and_bounds(cluster, stride):
    """Rows begin at every place of a 16-byte vector; what is outside of a range is not read."""
    starts = [0, 1, 2, 3, 5, -9, 4000, 4999, 6000, 2**31 - 1, -(2**31), 17]
    ends = [5000, 4997, 4998, 2**31 - 1, 3001, 4000, 4001, 5000, 100, 2**31 - 1, -1, 4242]
    generator = torch.Generator().manual_seed(stride)
    whole = torch.randn(len(starts) * stride + 1, generator=generator).round(decimals=1)
    scores = whole.as_strided((len(starts), min(stride, 5000)), (stride, 1), 1)
    start = torch.tensor(starts, dtype=torch.int32)
    end = torch.tensor(ends, dtype=torch.int32)
    for capacity in (256, 4096):
        got, _ = launch(scores, 300, cluster, capacity=capacity, row_start=start, row_end=end)
        expected = topk_indices(scores, 300, row_start=start, row_end=end, backend="native")
        assert_bitwise_equal(got, expected)
