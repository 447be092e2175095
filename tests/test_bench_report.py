"""Tables, records, comparisons and pictures of the benchmark, on made-up measurements."""

from __future__ import annotations

import json
import subprocess
import warnings

import pytest
import torch
from bench_rows import PEAKS, PEERS, check_markdown, made_up, wide

from bench import peaks, plot, report
from bench.suite import Row
from dsa_kernels._op import OPS
from dsa_kernels.cli import output
from dsa_kernels.cli.info import environment
from dsa_kernels.testing.cases import case


@pytest.mark.parametrize("op", sorted(OPS))
def test_tables_fit(op):
    """80 columns, as all commands; with every peer, 100."""
    for names, width in (([], output.WIDTH), (PEERS, 100)):
        lines = report.table(wide(op), names).splitlines()
        assert len(lines) == 2 + len(case(op).BENCH)
        assert max(map(len, lines)) <= width


def test_heading_fits_and_says_what_ran():
    cpu = "Intel(R) Xeon(R) Platinum 8581C CPU @ 2.10GHz"
    facts = {**environment(), "cpu": cpu, "isa": "avx512_bf16", "commit": "v1.0-123-g1234abcd"}
    lines = report.heading(facts, PEAKS)
    assert max(map(len, lines)) <= output.WIDTH
    text = "\n".join(lines)
    for said in (cpu, "avx512_bf16", "threads 2", facts["commit"], torch.__version__):
        assert said in text
    for said in ("bf16 2345", "fp32 1234 GFLOP/s", "L2 1234/1234", "DRAM 123/123"):
        assert said in text


def test_cells():
    row = made_up(torch=2.5, torch_scaled=True, peers={"ggml": 0.5})
    assert report.cells(row, ["ggml", "vllm-cpu"]) == [
        *("v32-decode-8k", "1.00 ms", "1000 GF/s", "50%", "bf16", "2.50x~", "0.500x", "-")
    ]
    assert report.cells(made_up(bound="fp32"), [])[2:5] == ["1000 GF/s", "50%", "fp32"]
    row = made_up(bound="L3", peers={"ggml": 0.5}, peers_scaled=True)
    assert report.cells(row, ["ggml"])[2:] == ["1.00 GB/s", "50%", "L3", "-", "0.500x~"]


@pytest.mark.parametrize("names", [[], PEERS])
def test_markdown_is_well_formed(names):
    rows = [row for op in sorted(OPS) for row in wide(op)] + [made_up()]
    check_markdown(report.markdown(rows, names), rows)


def test_a_table_goes_between_the_markers(tmp_path):
    page = tmp_path / "page.md"
    before, after = "# Title\n\ntext\n\n", "\n\nmore <!-- other -->\n"
    page.write_text(f"{before}<!-- table -->\nold\n\n<!-- /table -->{after}")
    for text in ("| a |\n|---|\n| b |", "shorter"):
        report.publish(page, "table", text)
        assert page.read_text() == f"{before}<!-- table -->\n\n{text}\n\n<!-- /table -->{after}"


def test_a_page_without_markers_is_all_table(tmp_path):
    page = tmp_path / "page.md"
    for text in ("first", "second"):
        report.publish(page, "table", text)
        assert page.read_text() == f"{text}\n"


@pytest.mark.parametrize(
    "text", ["<!-- table -->", "x <!-- /table -->", "<!-- /table --> x <!-- table -->"]
)
def test_half_a_pair_of_markers_is_refused(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match=r"<!-- table -->.*<!-- /table -->"):
        report.publish(page, "table", "new")
    assert page.read_text() == text


def record(*rows: Row) -> dict:
    """As it comes back from a file."""
    return json.loads(json.dumps(report.record({"cpu": "a"}, PEAKS, list(rows))))


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        (0.50, 0.40, True),  # a planted drop
        (0.010, 0.008, True),  # of a small share too
        (0.50, 0.46, False),  # noise
        (0.50, 0.50, False),
        (0.50, 0.70, False),  # faster
    ],
)
def test_regressions(before, now, named):
    old = record(made_up(of_peak=before), made_up("topk_indices"))
    found = report.regressions(old, [made_up("topk_indices"), made_up(of_peak=now)])
    assert len(found) == named
    if named:
        assert found[0].startswith("mqa_logits v32-decode-8k: ")


def test_a_slower_clock_is_no_regression():
    old = record(made_up(seconds=1e-3, of_peak=0.5))
    assert report.regressions(old, [made_up(seconds=2e-3, of_peak=0.5)]) == []


def test_rows_that_one_run_lacks_are_no_regressions():
    old = record(made_up(of_peak=0.9), made_up(shape="gone", of_peak=0.9))
    rows = [made_up("topk_indices", of_peak=0.1), made_up(shape="new", of_peak=0.1)]
    assert report.regressions(old, rows) == []


def test_a_record_keeps_rows():
    row = made_up(torch=2.0, torch_scaled=True, peers={"ggml": 3.0})
    kept = record(row)
    assert [Row(**entry) for entry in kept["rows"]] == [row]
    assert peaks.Peaks(**kept["peaks"]) == PEAKS


def test_commit(monkeypatch, tmp_path):
    """A run is of a changed tree where code has changed, not where a page was refreshed."""

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", *who, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True
        ).stdout.decode()

    monkeypatch.setattr(report, "ROOT", tmp_path)
    for name in ("csrc", "docs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("old")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    name = git("rev-parse", "--short", "HEAD").strip()
    assert report.commit() == name
    (tmp_path / "docs" / "file").write_text("new")
    assert report.commit() == name
    (tmp_path / "csrc" / "file").write_text("new")
    assert report.commit() == f"{name}-dirty"


@pytest.mark.parametrize("error", [FileNotFoundError, None])
def test_commit_where_there_is_no_git(monkeypatch, tmp_path, error):
    if error is None:  # no repository
        monkeypatch.setattr(report, "ROOT", tmp_path)
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    assert report.commit() == "unknown"


PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "rows",
    [
        [row for op in sorted(OPS) for row in wide(op)],
        wide("mla_cache_store"),  # none of decode
        [made_up("indexer_k_cache_gather", flops=0, bound="L2")],  # none with arithmetic
    ],
    ids=["all", "no decode", "no arithmetic"],
)
def test_plot_is_a_picture(tmp_path, rows):
    pytest.importorskip("matplotlib")
    file = tmp_path / "picture.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot.draw(rows, PEAKS, "title", file)
    assert file.read_bytes().startswith(PNG)
    assert file.stat().st_size > 10_000


def test_contexts_are_of_two_requests_only(monkeypatch):
    """Not of v32-decode-8k-mtp, which has four, of two tokens."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    figure, axes = pyplot.subplots()
    rows = [
        made_up("paged_mqa_logits", name, seconds=i + 1.0)
        for i, name in enumerate(case("paged_mqa_logits").BENCH)
    ]
    plot._contexts(axes, rows)
    (line,) = axes.get_lines()
    names = [f"v32-decode-{c}" for c in plot.CONTEXTS]
    seconds = {row.shape: row.seconds for row in rows}
    assert list(line.get_xdata()) == list(plot.CONTEXTS.values())
    assert list(line.get_ydata()) == [seconds[name] * 1e3 for name in names]
    pyplot.close(figure)
