"""Compiles csrc/ with the system's C++ compiler; the library is cached by content."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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
        raise RuntimeError(f"ptx_emulator needs a C++20 compiler; '{name}' was not found")
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
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as directory:

        def compile_one(item: tuple[Path, Path]) -> None:
            source, result = item
            if not result.exists():
                part = Path(directory) / result.name
                _run([compiler, *flags, "-c", str(source), "-o", str(part)])
                part.replace(result)

        with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
            list(pool.map(compile_one, objects.items()))
        part = Path(directory) / target.name
        _run(
            [
                compiler,
                *flags,
                "-shared",
                "-Wl,-z,defs",
                *map(str, objects.values()),
                "-o",
                str(part),
            ]
        )
        part.replace(target)
    return target


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
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
