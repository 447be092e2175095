"""From lowered source to machine code, and what that has: no GPU and no ROCm are needed.

CUDA: nvcc. AMD: clang 22, with the headers of tilelang_kernels/hip in place of ROCm's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tilelang

from tilelang_kernels.lowering import Lowered

HIP_HEADERS = Path(__file__).parent / "hip"


class NoCompiler(RuntimeError):
    """A tool that is not installed."""


@dataclass(frozen=True)
class Object:
    code: bytes  # cubin or hsaco
    registers: int
    spills: int  # bytes on CUDA, registers on AMD
    matrix: dict[str, int]  # instructions of the matrix units, and how many stand in the code


def find_nvcc() -> str:
    for candidate in (os.environ.get("NVCC"), "nvcc", "/usr/local/cuda/bin/nvcc"):
        if candidate and (path := shutil.which(candidate)):
            return path
    raise NoCompiler("nvcc was not found: NVCC, PATH, /usr/local/cuda")


def find_cuobjdump() -> str:
    triton = [Path(folder) / "triton/backends/nvidia/bin" for folder in sys.path]
    found = shutil.which("cuobjdump") or shutil.which(
        "cuobjdump", path=os.pathsep.join(map(str, triton))
    )
    if found is None:
        raise NoCompiler("cuobjdump was not found: on PATH, or in the package triton")
    return found


def find_clang() -> str:
    if path := shutil.which("clang++-22"):
        return path
    raise NoCompiler("clang++-22 was not found (Debian packages clang-22 and lld-22)")


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def nvcc_flags(target: str) -> list[str]:
    includes = tilelang.env.TILELANG_TEMPLATE_PATH, tilelang.env.CUTLASS_INCLUDE_DIR
    return [f"-arch={target}", "-std=c++17", "-O3", *(f"-I{path}" for path in includes)]


def compile_object(lowered: Lowered) -> Object:
    with tempfile.TemporaryDirectory() as folder:
        compiler = _cubin if lowered.target.kind == "cuda" else _hsaco
        return compiler(lowered, Path(folder))


def _cubin(lowered: Lowered, folder: Path) -> Object:
    source, cubin = folder / "kernel.cu", folder / "kernel.cubin"
    source.write_text(lowered.source)
    flags = [*nvcc_flags(lowered.target.name), "-Xptxas=-v"]
    report = run(find_nvcc(), "-cubin", *flags, str(source), "-o", str(cubin))
    sass = run(find_cuobjdump(), "-sass", str(cubin))
    matrix = re.findall(r"\b((?:[HQIU]\w*MMA)\b[\w.]*)", sass)
    return Object(
        cubin.read_bytes(),
        max(int(n) for n in re.findall(r"Used (\d+) registers", report)),
        sum(int(n) for n in re.findall(r"(\d+) bytes spill", report)),
        dict(Counter(opcode.split(".")[0] for opcode in matrix)),
    )


def _hsaco(lowered: Lowered, folder: Path) -> Object:
    source, assembly, hsaco = (folder / f"kernel.{suffix}" for suffix in ("hip", "s", "hsaco"))
    source.write_text(lowered.source)
    flags = [f"--offload-arch={lowered.target.name}", "-x", "hip", "--cuda-device-only"]
    flags += ["-nogpuinc", "-nogpulib", "--no-gpu-bundle-output", "-std=c++17", "-O3"]
    flags += [
        "-Wno-unknown-pragmas",
        f"-I{HIP_HEADERS}",
        f"-I{tilelang.env.TILELANG_TEMPLATE_PATH}",
    ]
    run(find_clang(), *flags, "-S", str(source), "-o", str(assembly))
    run(find_clang(), *flags, "-fuse-ld=lld", str(source), "-o", str(hsaco))
    text = assembly.read_text()

    def total(name: str) -> int:
        return sum(int(n) for n in re.findall(rf"\.{name}:\s+(\d+)", text))

    return Object(
        hsaco.read_bytes(),
        total("vgpr_count"),
        total("vgpr_spill_count") + total("sgpr_spill_count"),
        dict(Counter(re.findall(r"\bv_s?mfma\w*", text))),
    )
