"""Source of an op's kernels for a target, and objects where the compiler for it is installed.

python -m tilelang_kernels lower --target gfx950 --op mqa_logits --out kernels/
python -m tilelang_kernels lower --target ascend --op mqa_logits --out kernels/   source alone
python -m tilelang_kernels check        objects of all ops for all targets, held to objects.json
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from tilelang_kernels import OPS, ascend
from tilelang_kernels.toolchain.compilers import NoCompiler
from tilelang_kernels.toolchain.targets import TARGETS, Refused


def name_of(op: str, configuration: dict) -> str:
    return "_".join([op, *map(str, configuration.values())])


def lower(target_name: str, op: str, out: Path) -> int:
    """One line a kernel; the exit status is 1 if a compiler failed."""
    from tilelang_kernels.toolchain import lowering, objects

    target = TARGETS[target_name]
    module = importlib.import_module(f"tilelang_kernels.{op}")
    out.mkdir(parents=True, exist_ok=True)
    source_suffix, object_suffix = ("cu", "cubin") if target.kind == "cuda" else ("hip", "hsaco")
    failed = False
    for configuration in module.CONFIGURATIONS:
        stem = out / f"{name_of(op, configuration)}.{target.name}"
        try:
            lowered = lowering.lower(module.kernel(target, **configuration), target)
        except Refused as error:
            print(f"{stem.name}: refused: {error}", flush=True)
            continue
        stem.with_name(f"{stem.name}.{source_suffix}").write_text(lowered.source)
        try:
            made = objects.compile_object(lowered)
        except NoCompiler as error:
            print(f"{stem.name}: source only: {error}", flush=True)
            continue
        except RuntimeError as error:
            failed = True
            print(f"{stem.name}: FAILED: {error}", flush=True)
            continue
        stem.with_name(f"{stem.name}.{object_suffix}").write_bytes(made.code)
        print(
            f"{stem.name}: {made.registers} registers, {made.spills} spilled, "
            f"{lowered.shared_bytes} bytes shared, {made.matrix}",
            flush=True,
        )
    return int(failed)


def lower_ascend(op: str, out: Path) -> int:
    """Sources for Ascend NPUs, for which there is no compiler without CANN."""
    from tilelang_kernels.ascend import lowering

    module = importlib.import_module(f"tilelang_kernels.ascend.{op}")
    out.mkdir(parents=True, exist_ok=True)
    for configuration in module.CONFIGURATIONS:
        path = out / f"{name_of(op, configuration)}.ascend.cpp"
        path.write_text(source := lowering.lower(module.kernel(**configuration)))
        try:
            lowering.check_syntax(source)
        except NoCompiler as error:
            print(f"{path.stem}: source only, not checked: {error}", flush=True)
        else:
            print(f"{path.stem}: source only, syntax checked", flush=True)
    return 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tilelang_kernels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("lower", help="source and objects, ahead of time")
    command.add_argument("--target", required=True, choices=sorted([*TARGETS, ascend.NAME]))
    command.add_argument("--op", required=True, choices=sorted({*OPS, *ascend.OPS}))
    command.add_argument("--out", type=Path, default=Path("tilelang_objects"), metavar="DIR")
    command = commands.add_parser("check", help="what typical kernels come to")
    command.add_argument("--target", action="append", choices=sorted(TARGETS))
    command.add_argument("--op", action="append", choices=OPS)
    command.add_argument("--update", action="store_true", help="write what there is as expected")
    command.add_argument("--table", action="store_true", help="print what is recorded alone")
    args = parser.parse_args(argv)
    if args.command == "check":
        from tilelang_kernels.toolchain import check

        if args.table:
            print(check.table())
            return 0
        return check.check(args.op or list(OPS), args.target or list(TARGETS), args.update)
    if args.target == ascend.NAME:
        if args.op not in ascend.OPS:
            parser.error(f"{args.op} has no kernel for {ascend.NAME}: {', '.join(ascend.OPS)}")
        return lower_ascend(args.op, args.out)
    return lower(args.target, args.op, args.out)


if __name__ == "__main__":
    sys.exit(main())
