"""`python -m bench.check`: how figures are taken, judged and reported, on made-up bars."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from bench_rows import columns

from bench import bars, check
from dsa_kernels._native import cpu_isa
from dsa_kernels.cli import output

ISA = cpu_isa()
LEVELS = ("scalar", "avx2", "avx512", "avx512_bf16")


def figures(*values: float):
    """A measurement that gives these one after another."""
    left = list(values)
    return lambda: left.pop(0)


def not_here() -> float:
    raise bars.NotHere("it rained")


@pytest.fixture
def judged(monkeypatch, capsys, threads):
    """judged(bars, *argv) -> (status, table by name, stdout)."""
    threads(torch.get_num_threads())  # comes back at the end

    def run(chosen: list[bars.Bar], *argv: str):
        monkeypatch.setattr(bars, "BARS", chosen)
        status = check.main(list(argv))
        text = capsys.readouterr().out
        rows = {}
        for line in text.splitlines()[2:]:
            cells = [cell for cell in line.split("  ") if cell]
            if len(cells) == 4:
                rows[cells[0]] = [cell.strip() for cell in cells[1:]]
        return status, rows, text

    return run


def bar(name="a", limit=1.0, measure=None, **more) -> bars.Bar:
    return bars.Bar(
        name, limit, measure or figures(2.0, 2.0, 2.0), isa=more.pop("isa", ISA), **more
    )


@pytest.mark.parametrize(
    ("figure", "at_least", "at_most"),
    [
        (1.0, "PASS", "PASS"),
        (1.01, "PASS", "FAIL"),
        (0.99, "FAIL", "PASS"),
        (math.nan, "FAIL", "FAIL"),
        (math.inf, "PASS", "FAIL"),
        ("why", "SKIPPED", "SKIPPED"),
    ],
)
def test_judge(figure, at_least, at_most):
    assert check.judge(bar(), figure) == at_least
    assert check.judge(bar(at_most=True), figure) == at_most


def test_the_best_of_three_counts(judged):
    status, rows, _ = judged(
        [
            bar("up", 0.7, figures(0.5, 0.75, 0.6)),
            bar("down", 3, figures(9.0, 2.5, 4.0), at_most=True),
        ]
    )
    assert status == 0
    assert rows == {"up": ["0.75", ">= 0.7", "PASS"], "down": ["2.50", "<= 3", "PASS"]}


def test_a_figure_below_its_bar_fails(judged):
    low, high = bar("low", 0.7, figures(0.5, 0.6, 0.69)), bar("high", 3, at_most=True)
    status, rows, _ = judged([low, high])
    assert status == 1
    assert rows == {"low": ["0.69", ">= 0.7", "FAIL"], "high": ["2.00", "<= 3", "PASS"]}
    status, rows, _ = judged([bar("over", 1.5, at_most=True)], "--allow-skips")
    assert status == 1
    assert rows["over"][-1] == "FAIL"


def test_skips_fail_unless_allowed(judged):
    skipped = bar("dry", measure=not_here)
    for argv, expected in (([], 1), (["--allow-skips"], 0)):
        status, rows, text = judged([bar(), skipped], *argv)
        assert status == expected
        assert rows["dry"] == ["-", ">= 1", "SKIPPED"]
        assert "dry: it rained" in text
    assert judged([skipped, bar("low", 3)], "--allow-skips")[0] == 1  # does not excuse a failure


def test_a_broken_measurement_is_no_skip(judged):
    with pytest.raises(ZeroDivisionError):
        judged([bar(measure=lambda: 1 / 0)], "--allow-skips")


def test_figures_are_of_one_thread(judged, threads):
    threads(2)
    seen = []
    judged([bar(measure=lambda: seen.append(torch.get_num_threads()) or 2.0)])
    assert seen == [1, 1, 1]


def test_only(judged):
    names = ["copy", "two threads, copy", "other"]
    for text, expected in (
        ("other", ["other"]),
        ("cop", names[:2]),
        ("copy", ["copy"]),  # the one of just that name
        ("", names),
    ):
        assert list(judged([bar(name) for name in names], "--only", text)[1]) == expected
    assert judged([bar()], "--only", "no such") == (2, {}, "no such bar\n")


def test_json_is_figures_alone(judged):
    status, _, text = judged([bar("low", 9.0), bar("dry", measure=not_here)], "--json")
    assert status == 0
    assert json.loads(text) == {"low": 2.0, "dry": "it rained"}


def test_markdown(judged, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bars -->\n<!-- /bars -->\nafter\n")
    judged([bar("up"), bar("dry", measure=not_here)], "--markdown", str(page))
    text = page.read_text()
    assert text.startswith("before\n<!-- bars -->\n")
    assert text.endswith("<!-- /bars -->\nafter\n")
    table = [columns(line) for line in text.splitlines() if line.startswith("|")]
    assert table[2:] == [["up", "2.00", ">= 1", "PASS"], ["dry", "-", ">= 1", "SKIPPED"]]
    assert table[1] == ["---"] * 4
    assert len(table[0]) == 4
    page.write_text("<!-- bars -->")
    with pytest.raises(SystemExit) as stop:
        judged([bar(measure=lambda: 1 / 0)], "--markdown", str(page))  # refused before measuring
    assert stop.value.code == 2


def test_another_level_is_measured_in_a_process_at_it(judged, monkeypatch):
    other = next(level for level in LEVELS if level != ISA)
    runs = []

    def run(command, env, **_):
        runs.append((command, env["DSA_CPU_ISA"]))
        name = command[command.index("--only") + 1]
        return SimpleNamespace(returncode=0, stdout=json.dumps({name: 0.5}), stderr="")

    monkeypatch.setattr(check.subprocess, "run", run)
    status, rows, _ = judged([bar("here"), bar("there", 0.4, isa=other)])
    assert status == 0
    assert rows == {"here": ["2.00", ">= 1", "PASS"], "there": ["0.50", ">= 0.4", "PASS"]}
    ((command, level),) = runs
    assert level == other
    assert command[1:] == ["-m", "bench.check", "--json", "--only", "there"]


def test_a_level_that_the_machine_lacks_is_skipped(judged):
    status, rows, text = judged([bar("there", isa="avx9")])
    assert status == 1
    assert rows["there"][-1] == "SKIPPED"
    assert "there: ValueError: DSA_CPU_ISA='avx9': levels that this machine supports are" in text


def test_a_process_that_dies_silently_is_skipped(judged, monkeypatch):
    died = SimpleNamespace(returncode=-4, stdout="", stderr="")
    monkeypatch.setattr(check.subprocess, "run", lambda *args, **kwargs: died)
    status, _, text = judged([bar("there", isa="avx9")])
    assert status == 1
    assert "there: its process ended with -4" in text


def test_bars_are_well_formed():
    names = [b.name for b in bars.BARS]
    assert len(set(names)) == len(names)
    for b in bars.BARS:
        assert b.bar > 0
        assert b.isa in LEVELS
        assert [c.name for c in check.chosen_bars(b.name)] == [b.name]
    rows = [[name, "1234.56", ">= 0.85", "SKIPPED"] for name in names]
    assert max(map(len, output.table(["ratio", "measured", "bar", ""], rows).splitlines())) <= 80
