"""Builds the extension, `dsa_kernels/_C.abi3.so`, on the libtorch stable ABI, and for an install or
a wheel the CUDA kernels, `dsa_kernels/cuda/*.fatbin`.

DSA_CPU=0 leaves the extension out (the package then runs its reference). A failed build stops the
install, except with DSA_CPU=auto, which prints why and goes on without it. CUDA kernels need nvcc
13 or newer and are left out without it; DSA_CUDA=1 makes that an error, DSA_CUDA=0 wants none.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

ROOT = Path(__file__).parent
COMMON_FLAGS = [
    "-std=c++20",
    "-O3",
    "-ffp-contract=off",  # ISA levels differ only where a kernel says so
    "-fno-math-errno",
    "-fno-trapping-math",  # only exception flags are given up; without it selects do not vectorise
    "-fvisibility=hidden",
    "-Wall",
    "-Wno-psabi",
    "-DTORCH_TARGET_VERSION=0x020b000000000000",  # 2.11
]
# Only these files get ISA flags; which of them runs is decided by cpuid at run time.
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, *(f"-mavx512{x}" for x in ("f", "bw", "dq", "vl")), "-mprefer-vector-width=512"]
ISA_FLAGS = {
    "avx2": AVX2,
    "avx512": AVX512,
    "avx512_bf16": [*AVX512, "-mavx512vbmi", "-mavx512bf16"],
}
if platform.machine() not in ("x86_64", "AMD64"):
    ISA_FLAGS = {}


def relative(paths) -> list[str]:
    return sorted(str(p.relative_to(ROOT)) for p in paths)


class BuildWithCudaKernels(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib) / "dsa_kernels" / "cuda"
        shutil.rmtree(folder, ignore_errors=True)  # an earlier build's would go into the wheel
        self.mkpath(str(folder))
        sys.path.insert(0, str(ROOT))
        from csrc.cuda import build

        for stem in build.main([]):
            self.copy_file(str(build.OUT / f"{stem}.fatbin"), str(folder))


def extension():
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    class BuildWithIsaLevels(BuildExtension):
        def build_extension(self, ext):
            try:
                self.compile_and_link(ext)
            except RuntimeError as error:  # torch's; an extension may be optional for this one
                raise CompileError(str(error)) from error

        def compile_and_link(self, ext):
            flags = (
                ext.extra_compile_args["cxx"] if isinstance(ext.extra_compile_args, dict) else []
            )
            for level, isa_flags in ISA_FLAGS.items():
                ext.extra_objects += self.compiler.compile(
                    [f"csrc/cpu/isa/{level}.cpp"],
                    output_dir=self.build_temp,
                    include_dirs=ext.include_dirs,
                    # gcc 12 takes its own intrinsics' undefined vectors for a mistake of ours.
                    extra_postargs={"cxx": [*flags, *isa_flags, "-Wno-maybe-uninitialized"]},
                    depends=ext.depends,
                )
            super().build_extension(ext)

    csrc = ROOT / "csrc"
    isa_sources = {csrc / "cpu" / "isa" / f"{level}.cpp" for level in ISA_FLAGS}
    sources = [p for p in csrc.glob("bindings/*.cpp")] + [
        p for p in csrc.glob("c[pu]*/**/*.cpp") if p not in isa_sources
    ]
    return {
        "ext_modules": [
            CppExtension(
                "dsa_kernels._C",
                relative(sources),
                depends=relative(csrc.glob("**/*.h")),
                extra_compile_args={"cxx": COMMON_FLAGS},
                py_limited_api=True,
                optional=os.environ.get("DSA_CPU") == "auto",
            )
        ],
        "cmdclass": {"build_ext": BuildWithIsaLevels, "build_py": BuildWithCudaKernels},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


setup(**({} if os.environ.get("DSA_CPU") == "0" else extension()))
