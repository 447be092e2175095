"""Lists the kernels of modules, and all that is not modelled."""

import argparse

from .._kernels import Kernel
from . import modules


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("modules", nargs="+", metavar="module.ptx", help="files of PTX text")
    parser.epilog = "The exit status is 0 only if everything in all of them is modelled."


def main(args: argparse.Namespace) -> int:
    complete = True
    for path in args.modules:
        module = modules.load(path)
        print(f"{path}: kernels for {module.target}")
        for kernel in module.kernels.values():
            print("\n".join(describe(kernel)))
        unsupported = modules.describe_unsupported(module, path)
        print(f"  not modelled: {len(unsupported) or 'nothing'}")
        for line in unsupported:
            print(f"    {line}")
        complete = complete and not unsupported
    return 0 if complete else 1


def describe(kernel: Kernel) -> list[str]:
    """The kernel, and what a launch of it needs."""
    lines = [f"  {kernel.name} (line {kernel.line})"]
    for i, parameter in enumerate(kernel.parameters):
        lines.append(
            f"    argument {i}: {parameter.bytes} bytes at {parameter.offset}, {parameter.name}"
        )
    facts = {
        "block must be": kernel.required_block,
        "threads of a block, at most": kernel.max_threads,
        "cluster must be": kernel.required_cluster,
        "registers of a thread, at most": kernel.max_registers,
        "blocks of an SM, at least": kernel.min_ctas > 1 and kernel.min_ctas,
        "static shared memory": kernel.static_shared and f"{kernel.static_shared} bytes",
        "local memory of a thread": kernel.local_bytes and f"{kernel.local_bytes} bytes",
    }
    for what, value in facts.items():
        if value:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else value
            lines.append(f"    {what}: {text}")
    return lines
