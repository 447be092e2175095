"""How the commands print: tables of 80 columns, JSON, and a progress bar on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence

WIDTH = 80


def print_json(value) -> None:
    print(json.dumps(value, indent=2))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns two spaces apart; the first `left` of them flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), line(["-" * w for w in widths]), *map(line, rows)])


def seconds(value: float) -> str:
    """Three digits and a unit: 12.3 us, 4.56 ms, 7.89 s."""
    for scale, unit in ((1e-6, "us"), (1e-3, "ms"), (1.0, "s")):
        if value < 999.5 * scale or unit == "s":
            return f"{number(value / scale)} {unit}"
    raise AssertionError


def number(value: float) -> str:
    """Three significant digits, and three decimals at most."""
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2 if value >= 0.9995 else 3
    return f"{value:.{digits}f}"


class Progress:
    """What `progress` yields: `update` moves the bar, `pause` clears it to print on stdout."""

    def update(self, done: float, what: str = "") -> None:
        pass

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        yield


class _PlainProgress(Progress):
    CELLS = 30

    def __init__(self, total: float):
        self.total = total

    def update(self, done: float, what: str = "") -> None:
        share = min(done / self.total, 1.0) if self.total else 1.0
        filled = round(share * self.CELLS)
        bar = "#" * filled + "." * (self.CELLS - filled)
        text = f"[{bar}] {share:4.0%} {what}"[: WIDTH - 1]
        sys.stderr.write(f"\r{text.ljust(WIDTH - 1)}")
        sys.stderr.flush()

    def clear(self) -> None:
        sys.stderr.write("\r" + " " * (WIDTH - 1) + "\r")
        sys.stderr.flush()

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        self.clear()
        yield


class _RichProgress(Progress):
    def __init__(self, bar, task):
        self.bar, self.task = bar, task

    def update(self, done: float, what: str = "") -> None:
        self.bar.update(self.task, completed=done, description=what)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        self.bar.stop()
        yield
        self.bar.start()


@contextlib.contextmanager
def progress(total: float) -> Iterator[Progress]:
    """A bar on stderr while the block runs, where stderr is a terminal; gone afterwards."""
    if not sys.stderr.isatty():
        yield Progress()
        return
    try:
        from rich import console, progress as rich_progress
    except ImportError:
        plain = _PlainProgress(total)
        try:
            yield plain
        finally:
            plain.clear()
        return
    with rich_progress.Progress(
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TextColumn("{task.description}"),
        console=console.Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    ) as bar:
        yield _RichProgress(bar, bar.add_task("", total=total))
