"""How long calls take: medians, thread counts, and calls that run side by side."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import torch


def median_seconds(call: Callable[[], object], budget: float = 0.5, at_least: int = 3) -> float:
    """Median of as many calls as fit `budget` seconds, after a first one that warms up.

    A call that alone takes more than the budget and a second is not repeated.
    """
    first = once(call)
    if first > max(budget, 1.0):
        return first
    times: list[float] = []
    while len(times) < at_least or sum(times) < budget:
        times.append(once(call))
    return statistics.median(times)


def once(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """torch, and so every op, runs on `count` threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(calls: Sequence[Callable[[], object]]) -> float:
    """Seconds from the first start to the last end of `calls`, each in a thread of its own."""
    if len(calls) == 1:
        return once(calls[0])
    barrier = threading.Barrier(len(calls))
    spans: list[tuple[float, float]] = []

    def work(call: Callable[[], object]) -> None:
        barrier.wait()
        begin = time.perf_counter()
        call()
        spans.append((begin, time.perf_counter()))

    workers = [threading.Thread(target=work, args=(call,)) for call in calls]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return max(end for _, end in spans) - min(begin for begin, _ in spans)
