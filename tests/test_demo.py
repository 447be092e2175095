"""The demo: its judgement on made-up runs, one tiny real run, and the README's example."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dsa_kernels.cli import demo, demo_report as report, output
from dsa_kernels.cli.demo_worker import VOCAB, RecordTopk, Spec

README = Path(__file__).parent.parent / "README.md"
ROWS, TOPK = 12, 4
SPEC = Spec(
    implementation="",
    text="",
    out="",
    contexts=[10],
    steps=2,
    greedy=0,
    chunk=4,
    layers=1,
    heads=1,
    topk=TOPK,
    dtype="float32",
    seed=0,
    threads=1,
    budget=1.0,
)


def write_run(path: Path, logits, selected, closeness=None) -> Path:
    """Leaves the files of a worker: `selected` bool [layers, rows, keys], `closeness` likewise."""
    logits.astype(np.float32).tofile(f"{path}.logits")
    for layer, rows in enumerate(selected):
        np.packbits(rows, axis=1).tofile(f"{path}.selected{layer}")
        if closeness is not None:
            closeness[layer].astype(np.float32).tofile(f"{path}.closeness{layer}")
    return path


@pytest.fixture
def made_up(tmp_path):
    """Logits, selections and closeness of a run, and a function that compares another with it."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(ROWS, VOCAB))
    logits /= np.sqrt(np.mean(logits**2))
    selected = np.zeros((2, ROWS - TOPK, ROWS), bool)
    selected[..., :TOPK] = True
    closeness = np.full((2, ROWS - TOPK), 0.5)
    spec = replace(SPEC, layers=2)

    def compare(other_logits, other_selected):
        a = write_run(tmp_path / "a", logits, selected, closeness)
        b = write_run(tmp_path / "b", other_logits, other_selected)
        record = report.compare(a, b, spec)
        record["continuation_agrees"] = True
        return record, report.disagreements("b", record, "float32")

    return logits, selected, closeness, compare


def test_equal_runs_agree(made_up):
    logits, selected, _, compare = made_up
    record, failures = compare(logits, selected)
    assert not failures
    assert record["positions"] == record["same_greedy_token"] == ROWS
    assert record["selections"] == ROWS - TOPK
    assert record["logit_difference"] == record["selections_that_differ"] == 0


@pytest.mark.parametrize("wrong", [2e-3, float("nan")])
def test_a_logit_out_of_bounds_fails(made_up, wrong):
    logits, selected, _, compare = made_up
    other = logits.copy()
    other[7, 3] += wrong
    _, failures = compare(other, selected)
    assert len(failures) == 1 and "logits differ" in failures[0]


def test_a_logit_within_bounds_passes(made_up):
    logits, selected, _, compare = made_up
    other = logits.copy()
    other[7, 3] += 5e-4
    record, failures = compare(other, selected)
    assert not failures
    assert record["logit_difference"] == pytest.approx(5e-4, rel=0.01)


def test_a_swap_in_a_near_tie_is_reported_and_allowed(made_up):
    logits, selected, closeness, compare = made_up
    closeness[1, 2] = 1e-6
    selected_other, other = selected.copy(), logits.copy()
    selected_other[1, 2, [0, 9]] = [False, True]
    other[TOPK + 2] += 0.1  # of the position where the sets differ
    record, failures = compare(other, selected_other)
    assert not failures
    assert record["near_ties"] == record["selections_that_differ"] == 1
    assert record["most_tokens_swapped"] == 1
    assert record["logit_difference"] == 0
    assert record["logit_difference_at_swaps"] == pytest.approx(0.1, rel=0.01)


def test_a_swap_without_a_near_tie_fails(made_up):
    logits, selected, _, compare = made_up
    other = selected.copy()
    other[0, 2, [0, 9]] = [False, True]
    record, failures = compare(logits, other)
    assert record["of_these_not_near_ties"] == 1
    assert len(failures) == 1 and "selects other tokens" in failures[0]


def test_a_run_that_left_nothing_fails(tmp_path):
    record = report.compare(tmp_path / "a", tmp_path / "b", SPEC)
    record["continuation_agrees"] = True
    assert "no logits" in report.disagreements("b", record, "float32")[0]


def test_selections_that_are_missing_fail(made_up):
    logits, selected, _, compare = made_up
    record, failures = compare(logits, selected[:, :-3])
    assert record["of_these_not_near_ties"] == 3 and failures


def test_continuations():
    a = [{"token": 1, "lead": 0.5}, {"token": 2, "lead": 1e-6}, {"token": 3, "lead": 0.5}]
    other_last = [*a[:2], {"token": 4, "lead": 0.5}]
    other_tie = [a[0], {"token": 4, "lead": 1e-6}, {"token": 5, "lead": 0.5}]
    assert report.continuation_agrees(a, a, 1e-3)
    assert not report.continuation_agrees(a, other_last, 1e-3)
    assert report.continuation_agrees(a, other_tie, 1e-3)


def test_ratios_are_against_the_better_one_and_bars_are_checked():
    def made(prefill, decode, growth):
        record = {"prefill_s": prefill, "decode_s": decode, "growth_bytes": growth}
        return {"contexts": [{"tokens": 64, **record}]}

    runs = {
        "eager": made(10.0, 0.5, 4000),
        "sdpa": made(9.0, 0.6, 3000),
        "enabled": made(1.8, 0.03125, 750),
    }
    assert report.common_context(runs) == 64
    ratios = report.ratios(runs, 64)
    assert ratios == {
        "context": 64,
        "decode_speedup": pytest.approx(16),
        "prefill_speedup": 5.0,
        "growth_share": 0.25,
    }
    assert not report.missed_bars(ratios, 64)
    assert len(report.missed_bars({**ratios, "prefill_speedup": 4.9}, 64)) == 1
    assert len(report.missed_bars({**ratios, "growth_share": 0.3}, 64)) == 1
    assert len(report.missed_bars({**ratios, "decode_speedup": 14.9}, 128)) == 2


def test_recorded_topk_is_torchs_and_knows_how_close_it_was():
    scores = torch.tensor([[1.0, 8.0, 5.0, 4.0], [2.0, 2.0, -8.0, 2.0]])
    with RecordTopk() as recorder:
        some = scores.topk(2, dim=-1)
        every = scores.topk(4, dim=-1).indices
    assert torch.equal(some.values, torch.topk(scores, 2).values)
    assert torch.equal(scores.gather(1, some.indices), some.values)
    assert torch.equal(every.sort().values[0], torch.arange(4))
    (indices, closeness), (_, unbounded) = recorder.records
    assert indices is some.indices
    assert closeness.tolist() == [0.125, 0.0]
    assert unbounded.tolist() == [float("inf")] * 2


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args(arguments)


def test_a_text_that_is_too_short_is_refused(tmp_path, capsys):
    text = tmp_path / "short"
    text.write_bytes(b"x" * 100)
    assert demo.main(parse("--text", str(text), "--contexts", "64,128", "--alone", "0")) == 2
    assert "has 100 bytes; 133 are needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [("--contexts", "0"), ("--implementations", "eager,flash"), ("--steps", "-1")]
)
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(SystemExit):
        parse(*arguments)


INSTALL = "(in the repository: pip install --no-build-isolation '.[transformers]')"


def test_without_transformers_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda _: None)
    assert demo.main(parse()) == 2
    assert capsys.readouterr().err == f"demo: transformers 5.23 is not installed\n{INSTALL}\n"


def test_the_integration_without_transformers_says_what_to_install():
    program = "import sys; sys.modules['transformers'] = None\n"
    program += "import dsa_kernels.integrations.transformers"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: dsa_kernels.integrations.transformers needs")
    assert last.endswith(INSTALL)


TINY = ("--contexts=48,96", "--topk=32", "--chunk=40", "--heads=2", "--steps=2", "--threads=2")


def test_a_tiny_run(capsys):
    code = demo.main(parse(*TINY, "--alone=128", "--implementations=eager,enabled", "--json"))
    result = json.loads(capsys.readouterr().out)
    assert result["failures"] == [] and code == 0
    assert list(result["runs"]) == ["eager", "enabled"]
    for run in (*result["runs"].values(), result["alone"]):
        assert run["loaded_bytes"] > 0
        for context in run["contexts"]:
            assert context["prefill_s"] > 0 and context["decode_s"] > 0
    for record in result["agreement"].values():
        assert record["positions"] == 98
        assert record["selections"] == 98 - 32
        assert record["continuation_agrees"]
    assert [c["tokens"] for c in result["alone"]["contexts"]] == [128]


def test_a_failing_process_is_quoted():
    spec = replace(SPEC, text="no_such_file")
    with pytest.raises(
        demo.WorkerFailed, match=r"eager: the process ended with 1\n(.*\n)*.*no_such"
    ):
        demo.run_worker("eager", spec, demo.Phases(output.Progress()))


def test_a_failing_process_fails_the_demo_and_not_the_other_runs(monkeypatch, capsys):
    def run_worker(name, spec, phases):
        if name == "sdpa":
            raise demo.WorkerFailed("sdpa: the process ended with -9")
        context = {"tokens": 48, "prefill_s": 1.0, "decode_s": 1.0, "growth_bytes": 1}
        return {"loaded_bytes": 1, "contexts": [context], "greedy": []}

    monkeypatch.setattr(demo, "run_worker", run_worker)
    arguments = ("--contexts=48", "--alone=0", "--implementations=eager,sdpa")
    assert demo.main(parse(*arguments)) == 1
    out = capsys.readouterr().out
    assert "FAILED: sdpa: the process ended with -9" in out
    assert "  eager" in out and "OK" not in out


def test_the_readme_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("sparse_mla_decode on cpu: ")
