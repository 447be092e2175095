"""Runs every mutation of a kernel and reports which ones nobody notices; see docs/mutations.md."""

import multiprocessing
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait

from ._errors import Deadlock, EmulatorError, LimitError, MemoryFault, Race, Unsupported
from ._mutation_report import Report, Verdict
from ._mutations import Mutation, mutations
from .module import Module

# Every schedule that a correct kernel must survive: launch options of Module.
SCHEDULES = [
    {"mode": "eager"},
    {"mode": "late"},
    *({"mode": "random", "seed": seed} for seed in range(1, 5)),
]

# A mutant may take this much longer than the original, and a bit.
_SLOWDOWN, _INSTRUCTIONS, _SECONDS = 8, 1_000_000, 300

# Of an error, the first that fits.
_OUTCOMES = {
    Race: "race",
    Deadlock: "deadlock",
    MemoryFault: "fault",
    LimitError: "limit",
    Unsupported: "not loadable",
    EmulatorError: "fault",
    AssertionError: "wrong value",
    Exception: "broken",
}

Run = Callable[..., object]


def mutate(
    ptx: str,
    run: Run,
    *,
    jobs: int = 1,
    schedules: Sequence[dict] = SCHEDULES,
    kinds: Collection[str] | None = None,
    every_run: bool = False,
    timeout: float | None = None,
) -> Report:
    """Applies each mutation of the catalogue, or those of some `kinds`, to the PTX and has
    `run(module, **options)` launch it with each schedule's options until one raises.

    `run` must assert that what it computed is right, and pass with the original: else a ValueError.
    It does so in `jobs` processes forked from this one; if one crashes, or needs more than
    `timeout` seconds for a mutation, another takes its place. `every_run`: all schedules run,
    whatever the first of them find.
    """
    chosen = [m for m in mutations(ptx) if kinds is None or m.kind in kinds]
    with _Workers(run, schedules, jobs) as workers:
        begin = time.monotonic()
        (original,) = workers.judge([_Task(ptx, None, False)], timeout)
        if original.outcome != "survived":
            raise ValueError(f"the original does not pass: {original.text}")
        limit = _SLOWDOWN * original.instructions + _INSTRUCTIONS
        if timeout is None:
            timeout = _SLOWDOWN * (time.monotonic() - begin) + _SECONDS
        tasks = [_Task(m.apply(ptx), limit, every_run) for m in chosen]
        judged = workers.judge(tasks, timeout)
    return Report([_verdict(m, j) for m, j in zip(chosen, judged, strict=True)], every_run)


def _verdict(mutation: Mutation, judged: "_Judged") -> Verdict:
    return Verdict(mutation, judged.outcome, judged.text, judged.caught, judged.runs)


@dataclass(frozen=True)
class _Task:
    ptx: str
    max_instructions: int | None
    every_run: bool


@dataclass
class _Judged:
    outcome: str = "survived"
    text: str = ""
    caught: int = 0  # in how many runs
    runs: int = 0
    instructions: int = 0  # the most that a launch took


class _Limited(Module):
    """A module whose launches are given up after so many instructions."""

    max_instructions: int | None = None
    most = 0

    def launch_block(self, *args, max_instructions: int | None = None, **options):
        if max_instructions is None:
            max_instructions = self.max_instructions
        launched = super().launch_block(*args, max_instructions=max_instructions, **options)
        self.most = max(self.most, launched.stats["warp_instructions"])
        return launched


def _judge(task: _Task, run: Run, schedules: Sequence[dict]) -> _Judged:
    try:
        module = _Limited(task.ptx)
    except EmulatorError as error:
        return _Judged("not loadable", str(error))
    module.max_instructions = task.max_instructions
    judged = _Judged()
    for schedule in schedules:
        judged.runs += 1
        try:
            run(module, **schedule)
        except Exception as error:
            outcome = next(o for kind, o in _OUTCOMES.items() if isinstance(error, kind))
            if not judged.text:
                judged.outcome, judged.text = outcome, str(error) or repr(error)
            judged.caught += 1
            if outcome in ("not loadable", "broken") or not task.every_run:
                break
    judged.instructions = module.most
    return judged


def _serve(connection, run: Run, schedules: Sequence[dict]) -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # the threads of its pool were not forked
    while True:
        try:
            task = connection.recv()
        except EOFError:  # the process that asks is gone
            return
        connection.send(_judge(task, run, schedules))


class _Workers:
    """Processes that judge mutants; one that dies, or takes too long, is replaced."""

    def __init__(self, run: Run, schedules: Sequence[dict], jobs: int):
        self._context = multiprocessing.get_context("fork")
        self._arguments = run, schedules
        self._idle = [self._start() for _ in range(jobs)]
        self._busy = {}  # connection: process, index of the task, deadline

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        busy = [process for process, _, _ in self._busy.values()]
        for process in [*busy, *(process for _, process in self._idle)]:
            process.kill()
            process.join()

    def judge(self, tasks: Sequence[_Task], timeout: float | None) -> list[_Judged]:
        results = [None] * len(tasks)
        left = iter(enumerate(tasks))
        self._hand_out(left, timeout)
        while self._busy:
            for index, judged in self._finished():
                results[index] = judged
            self._hand_out(left, timeout)
        return results

    def _start(self):
        here, there = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(there, *self._arguments), daemon=True)
        process.start()
        there.close()
        return here, process

    def _hand_out(self, left: Iterator[tuple[int, _Task]], timeout: float | None) -> None:
        while self._idle and (following := next(left, None)):
            index, task = following
            connection, process = self._idle.pop()
            connection.send(task)
            deadline = time.monotonic() + timeout if timeout else float("inf")
            self._busy[connection] = process, index, deadline

    def _finished(self) -> Iterator[tuple[int, _Judged]]:
        patience = min(deadline for _, _, deadline in self._busy.values()) - time.monotonic()
        ready = wait(list(self._busy), None if patience == float("inf") else max(patience, 0))
        for connection, (process, index, deadline) in list(self._busy.items()):
            if connection in ready:
                try:
                    judged = connection.recv()
                except (EOFError, OSError):
                    process.join()
                    judged = _Judged("broken", f"the process ended with {process.exitcode}")
            elif time.monotonic() >= deadline:
                process.kill()
                process.join()
                judged = _Judged("broken", "it did not end in time")
            else:
                continue
            del self._busy[connection]
            if process.is_alive():
                self._idle.append((connection, process))
            else:
                connection.close()
                self._idle.append(self._start())
            yield index, judged
