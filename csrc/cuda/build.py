"""Compiles csrc/cuda/<op>/<arch>.cu: PTX by nvcc, and from that very PTX a fatbin.

    python -m csrc.cuda.build [--ptx-only] [--out DIR] [--fault N] [--op NAME ...]

Writes <op>.<arch>.ptx and <op>.<arch>.fatbin into DIR (default dsa_kernels/cuda), which is where
the launcher looks; the emulator takes the PTX, a GPU the fatbin. What is up to date stays. Fails on
a ptxas warning, a spill, or local memory. Needs nvcc 13 or newer (toolkit.py says where).
Without one it says so and builds nothing; DSA_CUDA=1 makes that an error, DSA_CUDA=0 wants nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from csrc.cuda import toolkit

CSRC = Path(__file__).resolve().parents[1]
OUT = CSRC.parent / "dsa_kernels" / "cuda"
FLAGS = ["-std=c++20", "-O3", "-lineinfo", "--expt-relaxed-constexpr", "-I", str(CSRC)]
# Virtual architecture of the PTX, and what the fatbin holds.
ARCHITECTURES = {
    "sm90": ("compute_90a", ["sm_90a"]),
    "sm80": ("compute_80", ["sm_80", "sm_90", "compute_80"]),
}
INCLUDE = re.compile(r'^#include "(.+)"', re.MULTILINE)
OLDEST_NVCC = 13
CLEAN = "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"


def sources(ops: list[str] | None = None) -> list[Path]:
    found = [p for a in ARCHITECTURES for p in sorted(CSRC.glob(f"cuda/*/{a}.cu"))]
    return [p for p in found if not ops or p.parent.name in ops]


def closure(path: Path, seen: set[Path]) -> set[Path]:
    """A file and all that it includes of csrc/."""
    if path not in seen:
        seen.add(path)
        for name in INCLUDE.findall(path.read_text()):
            for folder in (path.parent, CSRC):
                if (included := (folder / name).resolve()).is_file():
                    closure(included, seen)
                    break
    return seen


def key_of(source: Path, *parts: str) -> str:
    digest = hashlib.sha256("\0".join(parts).encode())
    for path in sorted(closure(source, set())):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def usable_nvcc() -> tuple[str | None, str]:
    """nvcc and what it tells of its version; or None and why there is none to use."""
    nvcc = toolkit.find("nvcc")
    if nvcc is None:
        return None, f"nvcc (CUDA {OLDEST_NVCC} or newer) was not found"
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release ((\d+)\.\d+)", version)
    if release is None:
        return None, f"{nvcc} --version names no release"
    if int(release[2]) < OLDEST_NVCC:
        return None, f"nvcc {release[1]} is older than {OLDEST_NVCC}"
    return nvcc, version


def complaints(report: str) -> list[str]:
    """Lines of `ptxas -v` that say that the code is not what was written."""
    return [
        line
        for line in report.splitlines()
        if "warning" in line or "(C75" in line or ("stack frame" in line and CLEAN not in line)
    ]


def compile_source(
    source: Path,
    target: Path,
    architecture: str,
    nvcc: str,
    version: str,
    *,
    ptx_only: bool = False,
    fault: int = 0,
) -> None:
    """`target`.ptx and `target`.fatbin of `source`, where they are not up to date."""
    virtual, real = ARCHITECTURES[architecture]
    flags = [*FLAGS, *([f"-DDSA_FAULT={fault}"] if fault else [])]
    ptx, fatbin, stamp = (
        target.with_name(target.name + suffix) for suffix in (".ptx", ".fatbin", ".key")
    )
    known = dict(line.split() for line in stamp.read_text().splitlines()) if stamp.exists() else {}
    key = key_of(source, version, *flags, virtual, *real)
    if known.get("ptx") != key or not ptx.exists():
        run([nvcc, "-ptx", *flags, f"-arch={virtual}", str(source), "-o", str(ptx)])
        known = {"ptx": key}
    if not ptx_only and (known.get("fatbin") != key or not fatbin.exists()):
        codes = [f"-gencode=arch={virtual},code={code}" for code in real]
        report = run([nvcc, "-fatbin", *codes, "-Xptxas=-v", str(ptx), "-o", str(fatbin)])
        if bad := complaints(report):
            fatbin.unlink()
            raise SystemExit(f"{target.name}: ptxas says\n" + "\n".join(bad))
        known["fatbin"] = key
    stamp.write_text("".join(f"{name} {value}\n" for name, value in known.items()))


def build(source: Path, out: Path, nvcc: str, version: str, ptx_only: bool, fault: int) -> str:
    target = out / f"{source.parent.name}.{source.stem}"
    compile_source(source, target, source.stem, nvcc, version, ptx_only=ptx_only, fault=fault)
    return target.name


def main(arguments: list[str] | None = None) -> list[str]:
    """Stems of what was built, or was up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ptx-only", action="store_true", help="no fatbins: for the emulator")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--fault", type=int, default=0, help="DSA_FAULT, a deliberate fault")
    parser.add_argument("--op", action="append", help="this op's kernels only")
    options = parser.parse_args(arguments)
    wanted = os.environ.get("DSA_CUDA", "auto")
    nvcc, told = (None, "DSA_CUDA=0") if wanted == "0" else usable_nvcc()
    if nvcc is None:
        message = f"The CUDA kernels are left out: {told}."
        if wanted == "1":
            raise SystemExit(message)
        print(message, file=sys.stderr)
        return []
    options.out.mkdir(parents=True, exist_ok=True)
    chosen = sources(options.op)
    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        jobs = [
            pool.submit(build, s, options.out, nvcc, told, options.ptx_only, options.fault)
            for s in chosen
        ]
        stems = [job.result() for job in jobs]
    kinds = "PTX" if options.ptx_only else "PTX and fatbins"
    print(f"{kinds} of {len(stems)} files in {options.out}", file=sys.stderr)
    return stems


if __name__ == "__main__":
    main()
