"""The mistakes of docs/debugging.md: every schedule finds them, the page shows what is said."""

import re
from pathlib import Path

import pytest

import ptx_emulator

from .case import SCHEDULES, schedule_name
from .compile import complaints, kernel_ptx, ptxas_report
from .mistakes import MISTAKES, report, scale_tiles

PAGE = Path(ptx_emulator.__file__).parent / "docs" / "debugging.md"


def test_ptxas_takes_the_kernel_as_written():
    assert not complaints(ptxas_report(kernel_ptx("mistakes")))


def test_the_kernel_without_a_mistake_raises_nothing_over_100_seeds():
    for seed in range(100):
        scale_tiles()(seed=seed, mode=("eager", "random", "late")[seed % 3])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=schedule_name)
@pytest.mark.parametrize("name", MISTAKES)
def test_every_schedule_finds_it(name, schedule):
    kind = report(name, **schedule).split(":")[0]
    assert kind == report(name).split(":")[0]


@pytest.mark.parametrize("name", MISTAKES)
def test_the_page_shows_the_report(name):
    def any_lines(text):  # of PTX, which are the compiler's
        return re.sub(r"PTX line \d+", "PTX line", text)

    assert any_lines(report(name)) in any_lines(PAGE.read_text())
