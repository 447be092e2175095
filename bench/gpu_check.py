"""The CUDA kernels on a machine with a Hopper GPU: all that can't be checked without one.

Every command runs in a process of its own, as a fault or a hang of the GPU ends that process and no
other. What they print is in build/gpu-check.log, too. A step that failed does not stop the others;
the exit status is 1 if any did.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from bench.gpu.primitive_cases import cases
from bench.gpu.small_cases import small_shapes
from bench.suite import shapes
from csrc.cuda import toolkit
from dsa_kernels._op import OPS
from dsa_kernels.cli import select
from dsa_kernels.testing.on_gpu import VARIABLE

ROOT = Path(__file__).parent.parent
LOG = ROOT / "build" / "gpu-check.log"
PYTHON = sys.executable
SANITIZERS = {
    "memcheck": ["--leak-check", "no"],
    "racecheck": ["--racecheck-report", "all"],
    "synccheck": [],
    "initcheck": [],
}


@dataclass(frozen=True)
class Command:
    """details: what it does, a line each, for the plan."""

    arguments: list[str]
    seconds: int  # it is stopped after
    environment: dict[str, str] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join(self.arguments)])


@dataclass(frozen=True)
class Step:
    name: str
    about: str
    commands: Callable[[argparse.Namespace], Iterator[Command]]


def environment(args: argparse.Namespace) -> Iterator[Command]:
    yield Command([PYTHON, "-m", "bench.gpu.environment"], 300)


def build(args: argparse.Namespace) -> Iterator[Command]:
    yield Command([PYTHON, "setup.py", "-q", "build_ext", "--inplace"], 3600)
    yield Command([PYTHON, "-m", "csrc.cuda.build"], 3600, {"DSA_CUDA": "1"})


def test_files(ops: list[str]) -> list[Path]:
    """Tests that run with every backend: those of each op, and those of all ops."""
    found = {p for op in ops for p in ROOT.glob(f"tests/test_{op}*.py")}
    found -= set(ROOT.glob("tests/test_*_cuda.py"))  # of kernels in the emulator, by themselves
    found |= {ROOT / "tests" / f"test_{name}.py" for name in ("emulated", "contract")}
    return sorted(found)


def tests(args: argparse.Namespace) -> Iterator[Command]:
    for path in test_files(select.chosen_ops(args)):
        arguments = ["-m", "pytest", "-m", "not slow", "-q", str(path.relative_to(ROOT))]
        yield Command([PYTHON, *arguments], 3600, {VARIABLE: "1"})


def sanitizers(args: argparse.Namespace) -> Iterator[Command]:
    sanitizer = toolkit.find("compute-sanitizer") or "compute-sanitizer"
    small = [f"{op}: {shape}" for op in sorted(OPS) for shape in small_shapes(op)]
    for name, options in SANITIZERS.items():
        arguments = ["--tool", name, *options, "--error-exitcode", "1"]
        # Without torch's pool every tensor is an allocation, whose ends the tool knows.
        yield Command(
            [sanitizer, *arguments, PYTHON, "-m", "bench.gpu.small_cases"],
            3600,
            {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
            small if name == "memcheck" else ["the same"],
        )


def primitives(args: argparse.Namespace) -> Iterator[Command]:
    found = cases()
    for kernel in dict.fromkeys(c.kernel for c in found):
        details = [f"{c.name}: {c.launch_text()}" for c in found if c.kernel == kernel]
        command = [PYTHON, "-m", "bench.gpu.compare", "--kernel", kernel]
        yield Command(command, 300, details=details)


def timing(args: argparse.Namespace) -> Iterator[Command]:
    more = ["--shape", args.shape] if args.shape else []
    more += ["--quick"] if args.quick else []
    more += ["--json", str(args.json.absolute())] if args.json else []
    for op in select.chosen_ops(args):
        rows = [f"{name}: {shape}" for _, name, shape in shapes([op], args.shape, args.quick)]
        if rows:
            command = [PYTHON, "-m", "bench.gpu.timing", "--op", op, *more]
            yield Command(command, 3600, details=rows)


STEPS = (
    Step("environment", "GPU, driver, torch and tools", environment),
    Step("build", "the extension, and the kernels' fatbins", build),
    Step("tests", 'of the ops, with the GPU as backend "emulated"', tests),
    Step("sanitizers", "compute-sanitizer, one small case of every op", sanitizers),
    Step("primitives", "micro-kernels, their bytes against the emulator's", primitives),
    Step("timing", "every op at published shapes, L2 flushed", timing),
)


def run(command: Command, log: TextIO) -> str | None:
    """Runs it, showing and logging what it prints; why it failed, or None."""
    print(f"$ {command}", file=log, flush=True)
    try:
        process = subprocess.Popen(
            command.arguments,
            cwd=ROOT,
            env={**os.environ, **command.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return str(error)
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(command.seconds, stop)
    timer.start()
    try:
        for line in process.stdout:
            print(f"    {line}", end="", flush=True)
            log.write(line)
        status = process.wait()
    except KeyboardInterrupt:  # the terminal's does not reach another session
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        timer.cancel()
        log.flush()
    if stopped.is_set():
        return f"stopped after {command.seconds} s"
    return f"exit status {status}" if status else None


def run_step(step: Step, args: argparse.Namespace, log: TextIO) -> list[str]:
    """Commands that failed, with the reason."""
    failures = []
    for command in step.commands(args):
        print(f"  {command}", flush=True)
        if (reason := run(command, log)) is not None:
            failures.append(f"{command}: {reason}")
            print(f"  FAILED: {reason}", flush=True)
            print(f"FAILED: {reason}", file=log)
    return failures


def plan(steps: list[Step], args: argparse.Namespace) -> None:
    for i, step in enumerate(steps, 1):
        print(f"[{i}/{len(steps)}] {step.name}: {step.about}")
        for command in step.commands(args):
            print(f"  {command}")
            for line in command.details:
                print(f"      {line}")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [s.name for s in STEPS]
    parser.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    parser.add_argument("--step", action="append", choices=names, help="only this; repeatable")
    select.add_op_filter(parser)
    parser.add_argument("--shape", default="", metavar="TEXT", help="time shapes named *TEXT*")
    parser.add_argument("--quick", action="store_true", help="time each op's smallest shape")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the times to it")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    steps = [s for s in STEPS if not args.step or s.name in args.step]
    if args.dry_run:
        plan(steps, args)
        return 0
    summary, failed = [], False
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("w") as log:
        for i, step in enumerate(steps, 1):
            print(f"[{i}/{len(steps)}] {step.name}: {step.about}", flush=True)
            begin = time.monotonic()
            failures = run_step(step, args, log)
            outcome = f"{len(failures)} FAILED" if failures else "ok"
            failed |= bool(failures)
            summary.append(f"{step.name:<14}{outcome:<12}{time.monotonic() - begin:.0f} s")
            summary += [f"    {failure}" for failure in failures]
        print("\n".join(["", "summary", *summary]))
        log.write("\n".join(["", "summary", *summary, ""]))
    print(f"\nall output is in {LOG.relative_to(ROOT)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
