"""Building the library: what is wrong is said once, and several processes may build at once."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ptx_emulator import BuildError, __main__, _build


@pytest.mark.parametrize(
    "variables, message",
    [
        ({"CXX": "no-such-compiler"}, "needs a C++20 compiler; 'no-such-compiler' was not found"),
        ({"CXX": "false"}, "false"),
        ({"XDG_CACHE_HOME": "/proc/none"}, "cannot build in /proc/none/ptx_emulator"),
        ({"MAX_JOBS": "many"}, "MAX_JOBS has to be a number of processes; it is 'many'"),
        ({"MAX_JOBS": "0"}, "MAX_JOBS"),
    ],
    ids=["no compiler", "failing compiler", "no cache", "text for jobs", "no jobs"],
)
def test_what_keeps_it_from_being_built_is_said(monkeypatch, tmp_path, capsys, variables, message):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BuildError) as raised:
        _build.library()
    assert message in str(raised.value)
    assert __main__.main(["flags"]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


def test_processes_build_at_once(monkeypatch, tmp_path):
    """A package of one small source; each process finds a whole library in the cache."""
    sources = tmp_path / "csrc"
    sources.mkdir()
    (sources / "one.h").write_text("constexpr int kValue = 1;\n")
    (sources / "one.cpp").write_text('#include "one.h"\nextern "C" int value() { return kValue; }')
    script = (
        "import ctypes, pathlib, sys; from ptx_emulator import _build\n"
        "_build.SOURCES = pathlib.Path(sys.argv[1])\n"
        "print(ctypes.CDLL(str(_build.library())).value())"
    )
    root = str(Path(_build.__file__).parents[1])
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": root}
    command = [sys.executable, "-c", script, str(sources)]

    def build(_):
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    def values(n):
        with ThreadPoolExecutor(n) as pool:
            return [done.stdout + done.stderr for done in pool.map(build, range(n))]

    assert values(4) == ["1\n"] * 4
    (sources / "one.h").write_text("constexpr int kValue = 2;\n")  # what was built is out of date
    assert values(4) == ["2\n"] * 4
    left = sorted(path.suffix for path in (tmp_path / "ptx_emulator").iterdir())
    assert left == [".o", ".o", ".so", ".so"]
