"""From lowered source to machine code, and what that has: no GPU and no ROCm are needed.

CUDA: nvcc. AMD: clang 22, with the headers of tilelang_kernels/toolchain/hip in place of ROCm's.
"""

from __future__ import annotations

import pickle
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import tilelang

from tilelang_kernels.toolchain.cache import kept
from tilelang_kernels.toolchain.compilers import find_clang, find_cuobjdump, find_nvcc
from tilelang_kernels.toolchain.lowering import Lowered
from tilelang_kernels.toolchain.targets import Target

HIP_HEADERS = Path(__file__).parent / "hip"


@dataclass(frozen=True)
class Object:
    code: bytes  # cubin or hsaco
    registers: int
    spills: int  # bytes on CUDA, registers on AMD
    matrix: dict[str, int]  # instructions of the matrix units, and how many stand in the code


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def nvcc_flags(target: str) -> list[str]:
    includes = tilelang.env.TILELANG_TEMPLATE_PATH, tilelang.env.CUTLASS_INCLUDE_DIR
    return [f"-arch={target}", "-std=c++17", "-O3", *(f"-I{path}" for path in includes)]


def compiler_version(target: Target) -> str:
    """Of what compiles for the target. Raises NoCompiler."""
    is_cuda = target.kind == "cuda"
    text = run(find_nvcc() if is_cuda else find_clang(), "--version")
    return re.search(r"release [\d.]+, V[\d.]+" if is_cuda else r"clang version [\d.]+", text)[0]


def compile_object(lowered: Lowered) -> Object:
    """Kept on disk. Raises NoCompiler, RuntimeError."""
    is_cuda = lowered.target.kind == "cuda"
    version = compiler_version(lowered.target)

    def compiled() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            return pickle.dumps((_cubin if is_cuda else _hsaco)(lowered, Path(folder)))

    files = [Path(__file__), *([] if is_cuda else sorted(HIP_HEADERS.rglob("*.h*")))]
    sources = [lowered.source, lowered.target.name, version]
    sources += [file.read_text() for file in files if file.is_file()]
    return pickle.loads(kept("object", sources, compiled))


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
