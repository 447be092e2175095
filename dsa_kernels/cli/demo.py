"""`python -m dsa_kernels demo`: a DeepSeek-V3.2 model, eager, sdpa and through this library.

A seeded, small model with V3.2's attention reads a text in chunks and decodes at growing context,
in one process per attention implementation. The demo compares logits, time and memory, and exits
with 1 if a process fails or the results disagree (`--check`: or if the gain is too small).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from dsa_kernels.cli import demo_report as report, output
from dsa_kernels.cli.demo_worker import Spec

IMPLEMENTATIONS = ("eager", "sdpa", "enabled")
# How the time limit is shared out; what a run does not use goes to those after it.
TIME_SHARE = {"eager": 30, "sdpa": 30, "enabled": 25, "alone": 15}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--text", type=Path, help="file to read, byte by byte (default: Python's own sources)")
    add(
        "--contexts",
        type=_lengths,
        default=[1024, 2048, 4096, 8192],
        metavar="N,N,...",
        help="context lengths at which to decode (default: 1024,2048,4096,8192)",
    )
    add(
        "--alone",
        type=int,
        default=65536,
        metavar="N",
        help="context for a run of the enabled model alone; 0 for none (default: 65536)",
    )
    add(
        "--implementations",
        type=_implementations,
        default=list(IMPLEMENTATIONS),
        metavar="A,B,...",
        help="which to run, of eager, sdpa, enabled (default: all)",
    )
    add("--steps", type=_positive, default=5, help="decode steps at each context (default: 5)")
    add("--chunk", type=_positive, default=512, help="tokens per prefill call (default: 512)")
    add("--layers", type=_positive, default=1, help="layers of the model (default: 1)")
    add("--heads", type=_positive, default=16, help="attention heads (default: 16)")
    add("--topk", type=_positive, default=2048, help="tokens that a query selects (default: 2048)")
    add("--dtype", choices=sorted(report.LOGIT_BOUND), default="float32")
    add("--seed", type=int, default=0)
    add("--threads", type=_positive, default=torch.get_num_threads())
    add(
        "--time-limit",
        type=float,
        default=450,
        metavar="S",
        help="seconds for all runs together; longer contexts are left out (default: 450)",
    )
    add("--check", action="store_true", help="fail also if speed or memory miss their targets")
    add("--json", action="store_true", help="print the results as JSON")


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; got {value}")
    return value


def _lengths(text: str) -> list[int]:
    return sorted({_positive(part) for part in text.split(",")})


def _implementations(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in IMPLEMENTATIONS]:
        raise argparse.ArgumentTypeError(
            f"there is no {unknown[0]!r}; choose from {', '.join(IMPLEMENTATIONS)}"
        )
    return [name for name in IMPLEMENTATIONS if name in names]


def default_text(length: int, path: Path) -> str:
    """Fills `path` with sources of the standard library, at least `length` bytes; names them."""
    names, text = [], b""
    for source in sorted(Path(argparse.__file__).parent.glob("*.py")):
        if len(text) >= length:
            break
        names.append(source.name)
        text += source.read_bytes()
    path.write_bytes(text)
    return f"Python's own sources ({names[0]} ..)" if names else "Python's own sources"


class Phases:
    """Shows where the runs are: on the bar, and without a terminal as a line per phase."""

    def __init__(self, bar: output.Progress):
        self.bar = bar
        self.finished_tokens = 0  # of the runs that are over
        self.started = time.perf_counter()
        self.last = ""

    def show(self, phase: str, tokens: int) -> None:
        self.bar.update(self.finished_tokens + tokens, phase)
        if phase != self.last and not sys.stderr.isatty():
            elapsed = time.perf_counter() - self.started
            print(f"{elapsed:6.1f} s  {phase}", file=sys.stderr, flush=True)
        self.last = phase


def length(spec: Spec) -> int:
    """Tokens of text that a worker reads."""
    return spec.contexts[-1] + spec.steps


class WorkerFailed(RuntimeError):
    pass


def run_worker(name: str, spec: Spec, phases: Phases) -> dict:
    """Runs one worker to its end and returns its result; raises WorkerFailed."""
    command = [sys.executable, "-m", "dsa_kernels.cli.demo_worker", json.dumps(asdict(spec))]
    result = None
    with tempfile.TemporaryFile("w+") as errors:
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        # The worker keeps to its budget by itself; this is for one that hangs.
        watchdog = threading.Timer(2 * spec.budget + 60, worker.kill)
        watchdog.start()
        try:
            for line in worker.stdout:
                message = json.loads(line) if line.startswith("{") else {}
                result = message.get("result", result)
                if "phase" in message:
                    phases.show(f"{name}: {message['phase']}", message["tokens"])
            worker.wait()
        finally:
            watchdog.cancel()
            worker.kill()
            worker.wait()
            worker.stdout.close()
        if worker.returncode != 0 or result is None:
            errors.seek(0)
            tail = "".join(errors.readlines()[-15:]).rstrip()
            raise WorkerFailed(f"{name}: the process ended with {worker.returncode}\n{tail}")
    phases.finished_tokens += length(spec)
    return result


def main(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("transformers") is None:
        print(
            "demo: transformers 5.23 is not installed\n"
            "(in the repository: pip install --no-build-isolation '.[transformers]')",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="dsa_kernels_demo_") as folder:
        return Demo(args, Path(folder)).main()


class Demo:
    """The runs of one call of the demo, and what came of them."""

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args = args
        self.folder = folder
        self.runs: dict[str, dict] = {}
        self.alone: dict | None = None
        self.agreement: dict[str, dict] = {}
        self.ratios: dict | None = None
        self.failures: list[str] = []

    def main(self) -> int:
        args = self.args
        longest = max(args.contexts[-1], args.alone) + args.steps
        text = args.text or self.folder / "text"
        self.text_name = str(args.text) if args.text else default_text(longest, text)
        available = text.stat().st_size if text.is_file() else 0
        if available < longest:
            print(
                f"demo: {self.text_name} has {available:,} bytes; {longest:,} are needed. Pass a "
                "longer file as --text, or smaller --contexts and --alone.",
                file=sys.stderr,
            )
            return 2
        self.spec = Spec(
            implementation="",
            text=str(text),
            out="",
            contexts=args.contexts,
            steps=args.steps,
            greedy=8,
            chunk=args.chunk,
            layers=args.layers,
            heads=args.heads,
            topk=args.topk,
            dtype=args.dtype,
            seed=args.seed,
            threads=args.threads,
            budget=args.time_limit,
        )
        if not args.json:
            print("\n".join(self.heading()), flush=True)
        self.run_all()
        self.judge()
        if args.json:
            output.print_json(self.as_dict())
        else:
            print("\n".join(self.results()))
        return 1 if self.failures else 0

    def run_all(self) -> None:
        plan = [
            (
                name,
                name,
                replace(self.spec, implementation=name, out=str(self.folder / name)),
            )
            for name in self.args.implementations
        ]
        if self.args.alone and "enabled" in self.args.implementations:
            # First as far as a slow machine gets too.
            contexts = sorted({min(self.args.alone, 2 * self.args.contexts[-1]), self.args.alone})
            alone = replace(self.spec, implementation="enabled", contexts=contexts, greedy=0)
            plan.append(("alone", "enabled, alone", alone))
        with output.progress(sum(length(spec) for _, _, spec in plan)) as bar:
            phases = Phases(bar)
            ends = time.perf_counter() + self.args.time_limit
            for i, (key, name, spec) in enumerate(plan):
                left = ends - time.perf_counter()
                share = TIME_SHARE[key] / sum(TIME_SHARE[k] for k, _, _ in plan[i:])
                spec = replace(spec, budget=max(0.0, left * share))
                try:
                    result = run_worker(name, spec, phases)
                except WorkerFailed as failure:
                    self.failures.append(str(failure))
                    continue
                if key == "alone":
                    self.alone = result
                else:
                    self.runs[key] = result

    def judge(self) -> None:
        """Fills in agreement, ratios and failures."""
        spec = self.spec
        eager = self.runs.get("eager")
        for name, run in self.runs.items():
            if eager is None or name == "eager":
                continue
            record = report.compare(self.folder / "eager", self.folder / name, spec)
            worst = max(record["logit_difference"], record["logit_difference_at_swaps"])
            tie = 2 * max(worst, record["logit_bound"]) * record["logit_rms"]
            continuations = eager["greedy"], run["greedy"]
            record["tokens_continued"] = min(map(len, continuations))
            record["continuation_agrees"] = report.continuation_agrees(*continuations, tie)
            self.agreement[name] = record
            self.failures += report.disagreements(name, record, spec.dtype)
        context = report.common_context(self.runs)
        if self.runs and context is None:
            self.failures.append(
                f"no context was reached within the time limit of {self.args.time_limit:.0f} s"
            )
        elif "enabled" in self.runs and len(self.runs) > 1:
            self.ratios = report.ratios(self.runs, context)
        if self.args.check:
            self.failures += (
                report.missed_bars(self.ratios, spec.contexts[-1])
                if self.ratios
                else ["--check needs the enabled model and one to compare it with"]
            )

    def heading(self) -> list[str]:
        s = self.spec
        lines = [
            "DeepSeek Sparse Attention in a Hugging Face model: eager, sdpa, and enabled",
            "with dsa_kernels, each in its own process.",
            "",
            f"  model    DeepseekV32ForCausalLM, seed {s.seed}: {s.layers} layer(s), "
            f"{s.heads} heads, top-k {s.topk:,}",
            f"  text     {self.text_name}, a token per byte",
            f"  machine  {s.threads} thread(s), torch {torch.__version__}",
            f"  dtype    {s.dtype}",
        ]
        if s.dtype == "float32":
            lines[-1] += ": in bfloat16 (--dtype) torch itself is slow on CPUs that have"
            lines.append("           no instructions for it")
        return [*lines, ""]

    def results(self) -> list[str]:
        lines = []
        if self.runs:
            lines += report.cost_lines(self.runs, self.alone)
        if self.agreement:
            lines += report.agreement_lines(self.agreement, self.spec)
        sentences = report.meaning(self.agreement, self.ratios, self.alone, self.spec.dtype)
        sentences += self.cut_short()
        if sentences:
            lines += [line for s in sentences for line in textwrap.wrap(s, 79)] + [""]
        for failure in self.failures:
            lines.append(textwrap.fill(f"FAILED: {failure}", 79, replace_whitespace=False))
        if not self.failures:
            lines.append("OK")
        return lines

    def cut_short(self) -> list[str]:
        """Says which runs ended at the time limit."""
        wanted = {name: self.spec.contexts[-1] for name in self.runs}
        runs = dict(self.runs)
        if self.alone is not None:
            runs["enabled, alone"], wanted["enabled, alone"] = self.alone, self.args.alone
        return [
            f"{name} was stopped by the time limit before {report.context_name(wanted[name])} "
            "tokens; --time-limit gives it longer."
            for name, run in runs.items()
            if not run["contexts"] or run["contexts"][-1]["tokens"] < wanted[name]
        ]

    def as_dict(self) -> dict:
        settings = asdict(self.spec)
        for internal in ("implementation", "out", "budget"):
            del settings[internal]
        return {
            "settings": {**settings, "text": self.text_name, "torch": torch.__version__},
            "runs": self.runs,
            "alone": self.alone,
            "agreement": self.agreement,
            "ratios": self.ratios,
            "failures": self.failures,
            "ok": not self.failures,
        }
