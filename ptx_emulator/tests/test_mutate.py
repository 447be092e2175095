"""The mutator: what it makes of mutants, and that none of the six kernels' goes unnoticed."""

import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ptx_emulator import Module
from ptx_emulator._catalogue import CATALOGUE
from ptx_emulator.mutate import mutate

from . import (
    test_attention,
    test_cluster,
    test_gemm_cp_async,
    test_gemm_ring,
    test_split_k,
    test_topk,
)
from .ptx_kernel import kernel
from .small_kernels import ROUNDS

DOCS = Path(__file__).parent.parent / "docs" / "mutations.md"

# Lanes reverse themselves within their CTA; the last barrier orders nothing.
REVERSE = kernel(
    """
    .shared .align 4 .b8 s[256];
    ld.param.u64 %rd0, [out];
    mov.u32 %r0, %tid.x; mov.u32 %r9, s; shl.b32 %r1, %r0, 2;
    add.u32 %r2, %r9, %r1;
    st.shared.u32 [%r2], %r0;
    bar.sync 0;
    mov.u32 %r3, 63; sub.u32 %r3, %r3, %r0; mad.lo.u32 %r4, %r3, 4, %r9;
    ld.shared.u32 %r5, [%r4];
    mul.wide.u32 %rd1, %r0, 4; add.u64 %rd1, %rd0, %rd1;
    st.global.u32 [%rd1], %r5;
    bar.sync 0;
    ret;
    """,
    ".param .u64 out",
)


def reverse(module, **options):
    out = np.zeros(64, np.uint32)
    module.launch("k", 1, 64, [out], **options)
    assert (out == np.arange(64)[::-1]).all()


def outcomes(report):
    return [(v.mutation.kind, v.outcome) for v in report.verdicts]


def test_tells_what_is_noticed_from_what_is_not():
    report = mutate(REVERSE, reverse)
    assert outcomes(report) == [
        ("other address shift", "fault"),
        ("drop store", "fault"),
        ("drop bar.sync", "race"),
        ("arrive, no wait", "race"),
        ("drop store", "wrong value"),
        ("drop bar.sync", "survived"),
        ("arrive, no wait", "survived"),
    ]
    last = [v.mutation.line for v in report.survivors]
    assert last == [REVERSE.splitlines().index("bar.sync 0;", 15) + 1] * 2


def test_reports():
    report = mutate(REVERSE, reverse)
    counts = report.counts()
    assert counts["drop store"]["n"] == counts["drop store"]["caught"] == 2
    assert counts["drop bar.sync"] == {
        **dict.fromkeys(("deadlock", "fault", "limit", "wrong value"), 0),
        **{"n": 2, "caught": 1, "race": 1},
    }
    text = report.text()
    assert re.search(r"^total +7 +5 +2 +0 +2 +0 +1$", text, re.MULTILINE)
    assert text.count("- bar.sync 0;") == 2 and "drop bar.sync at PTX line" in text
    told = report.as_dict()
    assert told["counts"] == counts
    assert [s["kind"] for s in told["survivors"]] == ["drop bar.sync", "arrive, no wait"]
    assert told["survivors"][0]["before"] == "bar.sync 0;" and not told["broken"]


def test_every_run_counts_what_each_schedule_finds():
    report = mutate(REVERSE, reverse, every_run=True)
    assert {v.runs for v in report.verdicts} == {6}
    counts = report.counts()
    assert counts["drop store"]["every run"] == 2 and counts["drop bar.sync"]["every run"] == 1
    few = mutate(REVERSE, reverse, kinds=["drop store"], schedules=[{"mode": "eager"}])
    assert outcomes(few) == [("drop store", "fault"), ("drop store", "wrong value")]


def test_jobs_do_not_change_the_report():
    # Texts name addresses of the host.
    one, three = (
        [
            (v.mutation, v.outcome, v.caught, v.runs)
            for v in mutate(REVERSE, reverse, jobs=n).verdicts
        ]
        for n in (1, 3)
    )
    assert one == three


def test_a_run_that_the_original_fails_is_refused():
    def wrong(module, **options):
        reverse(module, **options)
        raise AssertionError("never content")

    with pytest.raises(ValueError, match="never content"):
        mutate(REVERSE, wrong)


def test_a_crash_is_told_and_the_others_are_judged():
    def crash(module, **options):
        try:
            reverse(module, **options)
        except AssertionError:
            os.kill(os.getpid(), signal.SIGKILL)

    report = mutate(REVERSE, crash, jobs=2)
    assert [o for _, o in outcomes(report)].count("broken") == 1
    (broken,) = report.broken
    assert broken.mutation.kind == "drop store" and "-9" in broken.text
    assert len(report.survivors) == 2 and "broken:" in report.text()


def test_an_error_of_the_run_itself_is_no_catch():
    def broken(module, **options):
        try:
            reverse(module, **options)
        except AssertionError as error:
            raise KeyError("of the test") from error

    (found,) = mutate(REVERSE, broken).broken
    assert "of the test" in found.text


def test_a_run_that_does_not_end_is_given_up():
    def sleep(module, **options):
        try:
            reverse(module, **options)
        except AssertionError:
            time.sleep(1000)

    begin = time.monotonic()
    report = mutate(REVERSE, sleep, timeout=2)
    assert [v.text for v in report.broken] == ["it did not end in time"]
    assert len(report.survivors) == 2 and time.monotonic() - begin < 100


def test_a_mutant_that_runs_away_is_given_up():
    # What counts the rounds is lost; what the loop computes changes for ever.
    report = mutate(ROUNDS, lambda module, **o: module.launch("k", 1, 1, [], **o))
    assert ("drop atomic", "limit") in outcomes(report)


def test_what_cannot_be_loaded_is_no_catch(monkeypatch):
    def nonsense(ptx):
        yield {ptx.statements[0]: "frobnicate.u32 %r1;"}
        yield {ptx.statements[0]: "ld.param.u64 %nowhere, [out];"}

    monkeypatch.setitem(CATALOGUE, "nonsense", nonsense)
    report = mutate(REVERSE, reverse, kinds=["nonsense"])
    assert len(report.not_loadable) == 2 and not report.counts()


# -- The six kernels, with sizes that use each stage of their pipelines several times: some bugs
# take a while to build up.

CASES = {
    "gemm_ring": lambda: test_gemm_ring.case(136, 72, 24 * 64),
    "attention": lambda: test_attention.case(1, 1400, queries=64),
    "cluster": lambda: test_cluster.case(136, 72, 21 * 64),
    "split_k": lambda: test_split_k.case(40, 40, 424, 3),
    "gemm_cp_async": lambda: test_gemm_cp_async.case(70, 72, 328),
    "topk": lambda: test_topk.case(8, 1000, 300),
}
kernels = pytest.mark.parametrize("name", CASES)

# Few of each kernel, and no survivor among them.
QUICK = (
    "never wait for mbarrier",
    "other parity",
    "drop arrive",
    "drop commit",
    "wait for one group less",
    "drop wgmma.fence",
    "drop bar.sync",
    "drop barrier.cluster",
    "drop fence.proxy",
    "narrower fence",
    "narrower access",
)


def place_in_kernel(name, mutation):
    """The line of the kernel's own source that a mutation is about."""
    source = f"{name}.cu"
    file, line = next(frame for frame in mutation.source if frame[0].endswith(source))
    return Path(file).read_text().splitlines()[line - 1].strip()


def documented_survivors(name):
    """How many of which kind survive where, by the table of docs/mutations.md."""
    rows = re.findall(
        r"^\| (\w+) \| `(.+?)` \| (.+?) \| (\d+) \| .+ \|$", DOCS.read_text(), re.MULTILINE
    )
    return Counter({(kind, line): int(n) for kernel, line, kind, n in rows if kernel == name})


def documented_figures(name):
    """Mutations, how many are caught, how, and in every run."""
    row = re.search(rf"^\| {name} ((?:\| \d+ )+)\|$", DOCS.read_text(), re.MULTILINE)
    return [int(cell) for cell in row[1].split("|")[1:]]


@kernels
def test_a_sample_of_mutations_is_caught(name):
    case = CASES[name]()
    report = mutate(case.ptx, case.run, kinds=QUICK, jobs=2)
    assert report.verdicts and not report.survivors, report.text()
    assert not report.broken and not report.not_loadable, report.text()


@pytest.mark.slow
@kernels
def test_only_equivalent_mutations_survive(name):
    case = CASES[name]()
    report = mutate(case.ptx, case.run, jobs=os.cpu_count(), every_run=True)
    assert not report.broken and not report.not_loadable, report.text()
    survivors = Counter(
        (v.mutation.kind, place_in_kernel(name, v.mutation)) for v in report.survivors
    )
    assert survivors == documented_survivors(name)
    figures = Counter()
    for row in report.counts().values():
        figures.update(row)
    assert list(figures.values()) == documented_figures(name)


@pytest.mark.slow
@kernels
def test_the_originals_raise_nothing_in_a_hundred_schedules(name):
    case = CASES[name]()
    module = Module(case.ptx)
    for mode in ("random", "late"):
        for seed in range(1, 101):
            case.run(module, mode=mode, seed=seed)


def test_every_kind_is_in_the_docs():
    catalogue = DOCS.read_text().partition("## Catalogue")[2].partition("\n## ")[0]
    described = re.findall(r"^\| ([^|`]+?) \| .+ \|$", catalogue, re.MULTILINE)
    assert described[1:] == list(CATALOGUE)
