"""`info`: versions, the CPU, and which backends each op has."""

from __future__ import annotations

import argparse
import inspect
import os
import platform
import re
import textwrap
from pathlib import Path

import torch

import dsa_kernels
from dsa_kernels import _gpu
from dsa_kernels._native import cpu_isa, extension_path
from dsa_kernels._op import BACKENDS, OPS
from dsa_kernels.cli import output

# Without a GPU nothing rules a backend out, so that calls can be traced for one.
NO_GPU = (
    "No GPU is seen here. These are the backends that calls on CUDA tensors choose from; "
    "which of them a GPU can run, and so which is chosen, depends on the GPU."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="default: cpu")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="machine-readable output")
    how.add_argument(
        "--ops-markdown", action="store_true", help="print docs/ops.md, made from the contracts"
    )


def main(args: argparse.Namespace) -> int:
    if args.ops_markdown:
        print(ops_markdown(), end="")
        return 0
    facts, ops = environment(), backends_of_ops(args.device)
    if args.device == "cuda":
        facts["gpu"] = _gpu.current()
    if args.json:
        output.print_json({**facts, "device": args.device, "ops": ops})
        return 0
    for name, value in facts.items():
        label = name.replace("_", " ")
        print(f"{label:<12}{'-' if value is None else value}")
    rows = [[op, ", ".join(entry["available"])] for op, entry in ops.items()]
    print(f"\n{output.table([f'op on {args.device}', 'backends, best first'], rows, left=2)}")
    if args.device == "cuda" and facts["gpu"] is None:
        print(f"\n{textwrap.fill(NO_GPU, output.WIDTH)}")
    print("\nnot available:")
    for line in _absences(ops):
        print(textwrap.fill(line, output.WIDTH, initial_indent="  ", subsequent_indent="    "))
    return 0


def environment() -> dict:
    """What a bug report or a timing must say of the machine and the build."""
    extension = extension_path()
    return {
        "dsa_kernels": dsa_kernels.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "extension": None if extension is None else Path(extension).name,
        "compiler": _compiler(extension),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": cpu_isa(),
    }


def backends_of_ops(device: str) -> dict[str, dict]:
    return {
        name: {
            "available": list(op.backends(device)),
            "unavailable": {
                b: reason for b in BACKENDS if (reason := op.unavailable(b, device)) is not None
            },
        }
        for name, op in sorted(OPS.items())
    }


def _absences(ops: dict[str, dict]) -> list[str]:
    """One line per backend and reason, with the ops it holds for."""
    holders: dict[tuple[str, str], list[str]] = {}
    for name, entry in ops.items():
        for backend, reason in entry["unavailable"].items():
            holders.setdefault((backend, reason), []).append(name)
    return [
        f"{backend} ({'all ops' if len(names) == len(ops) else ', '.join(names)}): {reason}"
        for (backend, reason), names in holders.items()
    ] or ["nothing: every backend runs every op"]


def _compiler(extension: str | None) -> str | None:
    """The compilers name themselves in the ELF's .comment section."""
    if extension is None:
        return None
    data = Path(extension).read_bytes()
    found = re.findall(rb"GCC: \([^)\0]*\) [\d.]+|clang version [\d.]+", data)
    return ", ".join(sorted({f.decode() for f in found})) or None


def _cpu_model() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        match = None
    return match.group(1) if match else platform.processor() or platform.machine()


def ops_markdown() -> str:
    """docs/ops.md: every op's summary, schema and tensor table, from its contract."""
    lines = [
        "# Ops",
        "",
        "Made from the contracts in `dsa_kernels/ops/` by `python -m dsa_kernels info "
        "--ops-markdown`; do not edit.",
        "",
        "A symbol means the same size everywhere in an op, and the value of the int argument of "
        "that name. Dims to the right of a bar are packed; other strides are free, but the last "
        "dim is always contiguous. `=q` is the dtype of argument q.",
    ]
    for name, op in sorted(OPS.items()):
        summary = inspect.getdoc(getattr(dsa_kernels, name)).partition("\n\n")[0]
        lines += ["", f"## {name}", "", " ".join(summary.split()), ""]
        lines += [f"    {name}{op.schema}", "", "| tensor | dtype | shape | |", "|---|---|---|---|"]
        for spec in op.tensors:
            dtype = spec.text.partition(" ")[0].replace("|", " or ").replace("(cpu)", " (CPU)")
            shape = spec.shape_text().replace("|", "\\|")
            role = "written" if spec.written else "optional" if spec.optional else ""
            lines.append(f"| {spec.name} | {dtype} | {shape} | {role} |")
    return "\n".join(lines) + "\n"
