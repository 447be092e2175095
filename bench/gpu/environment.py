"""What a machine has of what the CUDA kernels need, and what to install where something lacks.

python -m bench.gpu.environment
"""

from __future__ import annotations

import subprocess
import sys

import torch

from csrc.cuda import toolkit
from dsa_kernels.cli.info import environment

HOPPER = (9, 0)


def _last_line(*command: str) -> str | None:
    """Of what a program prints; None if there is no such program, or it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return lines[-1].strip() if lines and done.returncode == 0 else None


def driver_version() -> str | None:
    return _last_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


def torch_problem(version: str, cuda: str | None, available: bool) -> str | None:
    """What to do for a torch that sees a GPU, or None."""
    if cuda is None:
        release = version.partition("+")[0]
        return (
            f"torch {version} is built without CUDA. Install the build with it: "
            f'{sys.executable} -m pip install --force-reinstall "torch=={release}"'
        )
    if not available:
        return f"torch {version} (CUDA {cuda}) sees no GPU: see what nvidia-smi says"
    return None


def gpu_problem(name: str, capability: tuple[int, int]) -> str | None:
    if capability != HOPPER:
        found = ".".join(map(str, capability))
        return f"{name} has compute capability {found}; the kernels for sm_90a need 9.0"
    return None


def problems_and_facts() -> tuple[list[str], dict[str, str | None]]:
    available = torch.cuda.is_available()
    problems = [torch_problem(torch.__version__, torch.version.cuda, available)]
    facts: dict[str, str | None] = {"GPU": None, "compute capability": None}
    if available:
        name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
        facts = {"GPU": name, "compute capability": ".".join(map(str, capability))}
        problems.append(gpu_problem(name, capability))
    nvcc, sanitizer = toolkit.find("nvcc"), toolkit.find("compute-sanitizer")
    facts |= {
        "driver": driver_version(),
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda}",
        "nvcc": nvcc and _last_line(nvcc, "--version"),
        "compute-sanitizer": sanitizer and _last_line(sanitizer, "--version"),
        "CPU": environment()["cpu"],
    }
    if nvcc is None:
        problems.append("nvcc was not found: install a CUDA toolkit, 13.0 or newer, or set NVCC")
    if sanitizer is None:
        problems.append("compute-sanitizer was not found: it is in the CUDA toolkit")
    return [p for p in problems if p], facts


def main() -> int:
    problems, facts = problems_and_facts()
    for name, value in facts.items():
        print(f"{name:<20}{'-' if value is None else value}")
    for problem in problems:
        print(f"lacking: {problem}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
