"""The same module, inputs, mode and seed give the same bytes, counts and reports: at other
addresses, with other hashes, and in another process."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import ptx_emulator

from .observations import CASES, Observer, mistakes, observe, observe_case, observe_reports


@pytest.fixture(scope="module")
def observed():
    return observe()


@pytest.mark.parametrize("name", CASES)
def test_a_second_run_at_other_addresses(observed, name):
    observers = []

    def observer(module):
        observers.append(Observer(module))
        return observers[-1]

    first, second = observe_case(name, observer), observe_case(name, observer)
    assert first == second == observed[name]
    addresses = [o.addresses() for o in observers]
    assert len({tuple(a) for a in addresses}) == len(addresses)


@pytest.mark.parametrize("name", CASES)
def test_seeds_and_modes_are_felt(observed, name):
    # Else the comparisons of this file would say little.
    assert len(set(observed[name].values())) > 1


def test_reports_at_other_addresses(observed):
    kept = []

    def observer(module):
        kept.append(Observer(module))
        return kept[-1]

    again = observe_reports(observer)
    assert again == observed["reports"]
    assert {name.rsplit(" ", 1)[0] for name in again} == {name for name, _ in mistakes()}


def test_reports_name_no_address_of_the_host(observed):
    for text in observed["reports"].values():
        assert not re.search(r"0x[0-9a-f]{8}", text), text


def test_threads_do_not_disturb_each_other(observed):
    names = list(CASES)[:2]
    with ThreadPoolExecutor(len(names)) as pool:
        results = pool.map(observe_case, names)
    assert list(results) == [observed[name] for name in names]


def test_another_process(observed):
    done = subprocess.run(
        [sys.executable, "-m", "ptx_emulator.tests.observations"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(ptx_emulator.__file__).parents[1],
        # A large block of the environment moves the stack, too.
        env={**os.environ, "PYTHONHASHSEED": "12345", "PADDING": "x" * 10007},
    )
    assert json.loads(done.stdout) == observed
