"""From a TileLang function in the Ascend dialect to AscendC source, and a check of such source."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import tilelang
from tilelang import tvm

from tilelang_kernels.toolchain.cache import kept
from tilelang_kernels.toolchain.compilers import find_clang

STUB = Path(__file__).with_name("stub")


def lower(function) -> str:
    """Kept on disk: TileLang takes long to find a schedule."""
    sources = [Path(__file__).read_text(), tvm.ir.save_json(function)]
    return kept("ascend", sources, lambda: _lower(function).encode()).decode()


def _lower(function) -> str:
    target = tilelang.backend.target.determine_target("ascend", return_object=True)
    with tilelang.transform.PassContext(opt_level=3), target:
        return tilelang.lower(function, target=target, enable_device_compile=False).kernel_source


def check_syntax(source: str) -> None:
    """Syntax and types by clang, with TileLang's own templates and, in place of CANN's headers,
    declarations in stub/. Raises NoCompiler, and ValueError with the compiler's words."""
    clang = find_clang()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cpp"
        file.write_text(source)
        command = [clang, "-std=c++20", "-fsyntax-only", "-Wno-everything", "-D__NPU_ARCH__=3510"]
        command += [f"-I{STUB}", f"-I{tilelang.env.TILELANG_TEMPLATE_PATH}", str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stderr)
