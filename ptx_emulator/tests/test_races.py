"""Races between threads, in global and in shared memory: correct kernels raise nothing, and each
mistake is reported whatever the schedule."""

import functools
import re

import numpy as np
import pytest

from ptx_emulator import Module, Race

from .compile import KERNELS, kernel_ptx

SOURCE = KERNELS / "races.cu"
MODES = ("eager", "random", "late")


@functools.cache
def module(*macros):
    return Module(kernel_ptx("races", macros))


def last_block(m, **options):
    blocks, threads = 5, 64
    x = np.arange(blocks * threads * 2 + 7, dtype=np.float32)
    partial = np.zeros(blocks * threads, np.float32)
    counter, out = np.zeros(1, np.uint32), np.zeros(threads, np.float32)
    m.launch("last_block", blocks, threads, [x, partial, counter, out, x.size], **options)
    assert out.sum() == x.sum()


def one_fence(m, **options):
    blocks, threads = 6, 96
    partial, counter = np.zeros(blocks * threads, np.float32), np.zeros(1, np.uint32)
    out = np.zeros(threads, np.float32)
    m.launch("one_fence", blocks, threads, [partial, counter, out], **options)
    assert (out == blocks * (blocks + 1) / 2).all()


def chain(m, **options):
    blocks = 6
    data, flags = np.zeros(blocks * 64, np.float32), np.zeros(blocks, np.uint32)
    m.launch("chain", blocks, 64, [data, flags], **options)
    assert (data[:64] == blocks).all()


def grid_rounds(m, **options):
    a, b = np.arange(4 * 64, dtype=np.float32), np.zeros(4 * 64, np.float32)
    expected = a.copy()
    for _ in range(2):
        expected = np.roll(np.roll(expected, -64) + 1, -64)
    m.launch("grid_rounds", 4, 64, [a, b, np.zeros(1, np.uint32), 2], **options)
    assert (a == expected).all()


def reverse_shared(m, **options):
    x, y = np.arange(256, dtype=np.float32), np.zeros(256, np.float32)
    m.launch("reverse_shared", 1, 256, [x, y, 3], **options)
    assert (y == x[::-1] + 2).all()


def swap(kernel, dtype, width=1):
    def run(m, **options):
        x = np.arange(96 * width).astype(dtype)
        y = np.zeros_like(x)
        m.launch(kernel, 1, 96, [x, y], **options)
        assert (y.reshape(48, 2, width) == x.reshape(48, 2, width)[:, ::-1]).all()

    return run


def leader(m, **options):
    x, y = np.arange(4, dtype=np.uint32), np.zeros(128, np.uint32)
    m.launch("leader", 1, 128, [x, y], **options)
    assert (y.reshape(4, 32) == x[:, None]).all()


def histogram(m, **options):
    x = np.random.default_rng(0).integers(0, 256, 500).astype(np.uint8)
    y = np.zeros(64, np.uint32)
    m.launch("histogram", 2, 128, [x, y, x.size], **options)
    assert (y == 2 * np.bincount(x % 64, minlength=64)).all()


def hand_over(m, **options):
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    m.launch("hand_over", 1, 128, [x, y], **options)
    assert (y.reshape(2, 32) == x.reshape(2, 32)[:, ::-1]).all()


def cluster_swap(m, **options):
    x, y = np.arange(512, dtype=np.float32), np.zeros(512, np.float32)
    m.launch("cluster_swap", 4, 128, [x, y], **options)
    assert (y.reshape(2, 2, 128) == x.reshape(2, 2, 128)[:, ::-1]).all()


SWAPS = {
    "swap_words": swap("swap_words", np.uint32),
    "swap_halves": swap("swap_halves", np.uint16),
    "swap_bytes": swap("swap_bytes", np.uint8),
    "swap_vectors": swap("swap_vectors", np.uint32, 4),
}
# Kernel, macros of the correct versions, and of the mistakes.
CASES = [
    (
        last_block,
        [(), ("BY_ORDER",)],
        [
            ("NO_FENCE",),
            ("BLOCK_FENCE",),
            ("NO_SYNC",),
            ("NO_SECOND_SYNC",),
            ("PLAIN",),
            ("BY_ORDER", "RELAXED"),
            ("BY_ORDER", "CTA_SCOPE"),
            ("BY_ORDER", "NO_SYNC"),
        ],
    ),
    (
        one_fence,
        [()],
        [("NO_FENCE",), ("BLOCK_FENCE",), ("NO_SYNC",), ("NO_SECOND_SYNC",), ("PLAIN",)],
    ),
    (
        chain,
        [(), ("VOLATILE",)],
        [
            ("PLAIN",),
            ("RELAXED",),
            ("RELAXED_READ",),
            ("CTA_SCOPE",),
            ("NO_SYNC",),
            ("NO_SECOND_SYNC",),
            ("VOLATILE", "NO_FENCE"),
            ("VOLATILE", "BLOCK_FENCE"),
            ("VOLATILE", "NO_SYNC"),
            ("VOLATILE", "NO_SECOND_SYNC"),
        ],
    ),
    (grid_rounds, [()], [("NO_FENCE",), ("BLOCK_FENCE",), ("NO_SYNC",), ("NO_SECOND_SYNC",)]),
    (reverse_shared, [()], [("NO_SYNC",), ("NO_SECOND_SYNC",)]),
    *((run, [()], [("NO_SYNCWARP",)]) for run in SWAPS.values()),
    (leader, [()], [("NO_SYNCWARP",), ("NO_SECOND_SYNC",)]),
    (histogram, [()], [("NO_SYNC",), ("NO_SECOND_SYNC",), ("PLAIN",)]),
    (hand_over, [()], [("NO_SYNC",), ("WRONG_BARRIER",)]),
    (cluster_swap, [()], [("NO_SYNC",), ("RELAXED",), ("NO_SECOND_SYNC",)]),
]


def name(run, macros):
    kernel = run.__name__ if run.__name__ != "run" else "swap"
    return "-".join((kernel, *macros))


CORRECT = [pytest.param(r, m, id=name(r, m)) for r, good, _ in CASES for m in good]
MISTAKES = [pytest.param(r, m, id=name(r, m)) for r, _, bad in CASES for m in bad]


@pytest.mark.parametrize("run, macros", CORRECT)
def test_correct_kernels_raise_nothing_over_100_seeds(run, macros):
    for seed in range(100):
        run(module(*macros), seed=seed, mode=MODES[seed % 3])


@pytest.mark.parametrize("run, macros", MISTAKES)
def test_each_mistake_is_reported_in_every_run(run, macros):
    for seed in range(6):
        with pytest.raises(Race):
            run(module(*macros), seed=seed)


ACCESS = (
    r"(read|write) by thread \(\d+,0,0\) of CTA \(\d+,0,0\)\n"
    r"    at races\.cu:{line} \(PTX line \d+: {opcode}\S*\)"
)


def line_of(text):
    return 1 + SOURCE.read_text().splitlines().index(text)


def test_the_report_names_both_accesses():
    with pytest.raises(Race) as raised:
        reverse_shared(module("NO_SYNC"))
    text = str(raised.value)
    write = line_of("    s[threadIdx.x] = x[threadIdx.x] + r;")
    read = line_of("    y[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];")
    assert text.startswith("reverse_shared:")
    assert re.search(ACCESS.format(line=write, opcode="st.shared.f32"), text), text
    assert re.search(ACCESS.format(line=read, opcode="ld.shared.f32"), text), text
    assert re.search(r"0x[0-9a-f]+ in shared memory:", text), text


def test_the_report_names_the_array_and_the_ctas():
    with pytest.raises(Race) as raised:
        last_block(module("NO_FENCE"))
    text = str(raised.value)
    write, read = line_of("  partial[thread] = sum;"), "partial[b * blockDim.x + i]"
    reads = [i for i, s in enumerate(SOURCE.read_text().splitlines(), 1) if read in s]
    assert re.search(ACCESS.format(line=write, opcode="st.global.f32"), text), text
    assert any(re.search(ACCESS.format(line=n, opcode="ld.global.f32"), text) for n in reads), text
    assert re.search(r"\n  argument 1 \+ \d+:\n", text), text


def test_the_same_seed_gives_the_same_report():
    texts = set()
    for _ in range(3):
        with pytest.raises(Race) as raised:
            reverse_shared(module("NO_SECOND_SYNC"), seed=3)
        texts.add(str(raised.value))
    assert len(texts) == 1


def test_without_race_mode_nothing_is_reported():
    reverse_shared(module(), races=False)
    x, y = np.arange(64, dtype=np.uint32), np.zeros(64, np.uint32)
    module("NO_SYNCWARP").launch("swap_words", 1, 64, [x, y], races=False)


UNROLLED = """.version 8.6
.target sm_90a
.address_size 64
.file 1 "unrolled.cu"
.visible .entry k(.param .u64 out)
{
.reg .b32 %r<9>;
.reg .b64 %rd<9>;
.reg .pred %p<3>;
.shared .align 128 .b8 shared[1024];
ld.param.u64 %rd1, [out];
mov.u32 %r1, %tid.x;
"""


def said_of(body: str, block: int) -> str:
    with pytest.raises(Race) as caught:
        Module(UNROLLED + body + "\n}\n").launch("k", 1, block, [np.zeros(128, np.uint32)])
    return str(caught.value)


def by_both_warps(first: list[str], second: list[str]) -> str:
    lines = ["setp.ge.u32 %p1, %r1, 32;", "@%p1 bra OTHER;", *first, "ret;", "OTHER:", *second]
    return "\n".join([*lines, "ret;"])


def test_unrolled_code_is_reported_once():
    """Forty pairs of instructions at one pair of source lines leave room for another race."""
    stores = [f"st.global.u32 [%rd1+{4 * i}], %r1;" for i in range(40)]
    another = [".loc 1 8 1", "st.global.u32 [%rd1+400], %r1;"]
    body = by_both_warps([".loc 1 7 1", *stores, *another], [".loc 1 9 1", *stores, *another])
    said = said_of(body, 64)
    assert said.startswith("k: 2 races\n")
    assert "39 more pairs of PTX lines" in said
    assert all(f"unrolled.cu:{line} " in said for line in (7, 8, 9))


def test_races_that_are_not_listed_are_counted():
    stores = [f".loc 1 {i + 1} 1\nst.global.u32 [%rd1+{4 * i}], %r1;" for i in range(20)]
    said = said_of(by_both_warps(stores, stores), 64)
    assert said.startswith("k: 20 races\n")
    assert said.count("are not ordered") == 8
    assert said.endswith("\n  and 12 more, which are not listed")


def test_unrolled_stores_that_are_not_waited_for_are_reported_once():
    """Twenty of one source line leave room for that of another line."""
    store = "cp.async.bulk.global.shared::cta.bulk_group [%rd1], [%r2], 16;"
    body = ["mov.u32 %r2, shared;", "st.shared.v4.u32 [%r2], {%r1, %r1, %r1, %r1};"]
    body += ["fence.proxy.async;", ".loc 1 7 1", *[store] * 20, ".loc 1 8 1", store]
    said = said_of("\n".join([*body, "cp.async.bulk.commit_group;", "ret;"]), 1)
    assert said.startswith("k: 2 races\n")
    assert said.count("exits before") == 2
    assert "so at 19 more PTX lines" in said
    assert all(f"unrolled.cu:{line} " in said for line in (7, 8))
