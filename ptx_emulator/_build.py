"""Compiles csrc/ with the system's C++ compiler; the library is cached by content."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ._errors import BuildError

SOURCES = Path(__file__).parent / "csrc"
# Contraction would round once where a handler rounds twice; nobody reads the exception flags.
FLAGS = ["-std=c++20", "-O3", "-march=native", "-ffp-contract=off", "-fno-trapping-math"]
FLAGS += ["-fno-math-errno", "-fPIC", "-fvisibility=default", "-Wall"]

_INCLUDE = re.compile(r'^#include "(.+)"', re.MULTILINE)


def cache_directory() -> Path:
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "ptx_emulator"
    return Path(__file__).parent.parent / "build" / "ptx_emulator"


def find_compiler() -> str:
    name = os.environ.get("CXX", "g++")
    path = shutil.which(name)
    if path is None:
        raise BuildError(f"ptx_emulator needs a C++20 compiler; '{name}' was not found")
    return path


def _flags(compiler: str) -> list[str]:
    """FLAGS and, in their place, what -march=native means here: a cache may be shared."""
    described = subprocess.run(
        [compiler, *FLAGS, "-E", "-dM", "-x", "c++", os.devnull], capture_output=True, text=True
    )
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True)
    return [*FLAGS, *os.environ.get("PTX_EMULATOR_CXXFLAGS", "").split()], (
        described.stdout + version.stdout
    )


def library() -> Path:
    """The path of the shared library, built if need be."""
    compiler = find_compiler()
    flags, machine = _flags(compiler)
    objects = {}
    for source in sorted(SOURCES.glob("*.cpp")):
        digest = hashlib.sha256(f"{flags}{machine}".encode())
        for part in sorted(_closure(source, set())):
            digest.update((SOURCES / part).read_bytes())
        objects[source] = cache_directory() / f"{source.stem}-{digest.hexdigest()[:16]}.o"
    whole = hashlib.sha256("".join(o.name for o in objects.values()).encode()).hexdigest()[:16]
    target = cache_directory() / f"ptx_emulator-{whole}.so"
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _build([compiler, *flags], objects, target)
        except OSError as error:
            raise BuildError(
                f"cannot build in {target.parent}: {error}; XDG_CACHE_HOME names another place"
            ) from error
    return target


def _build(compile_command: list[str], objects: dict[Path, Path], target: Path) -> None:
    """Files come into the cache whole, so that several processes may build at once."""

    def make(result: Path, arguments: list[str]) -> None:
        part = Path(directory) / result.name
        _run([*compile_command, *arguments, "-o", str(part)])
        part.replace(result)

    def make_object(source: Path) -> None:
        if not objects[source].exists():
            make(objects[source], ["-c", str(source)])

    with tempfile.TemporaryDirectory(dir=target.parent) as directory:
        with ThreadPoolExecutor(_jobs()) as pool:
            list(pool.map(make_object, objects))
        make(target, ["-shared", "-Wl,-z,defs", *map(str, objects.values())])


def _jobs() -> int:
    text = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
    if not text.isdecimal() or int(text) == 0:
        raise BuildError(f"MAX_JOBS has to be a number of processes; it is {text!r}")
    return int(text)


def _closure(source: Path, seen: set[str]) -> set[str]:
    """The names of a source and of all that it includes of csrc/."""
    if source.name not in seen:
        seen.add(source.name)
        for name in _INCLUDE.findall(source.read_text()):
            _closure(SOURCES / name, seen)
    return seen


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stderr}")
