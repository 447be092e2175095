"""What is launched, as the command line says it: inline, or by a function of a Python file."""

import argparse
import importlib.util
import shlex
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .._errors import EmulatorError
from ..module import Launch, Module
from . import arguments, modules
from .errors import UsageError
from .inline import InlineLaunch

# Launches a kernel of the module with options of Module.launch, and asserts that the result is
# right; as the mutator and the tests have it.
Run = Callable[..., Launch | None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    modules.add_module(parser)
    inline = parser.add_argument_group("a launch")
    inline.add_argument("--kernel", metavar="K", help="needed if the module has several")
    inline.add_argument("--grid", type=_triple, metavar="X,Y,Z", help="default: 1")
    inline.add_argument(
        "--block", type=_triple, metavar="X,Y,Z", help="default: what the kernel requires"
    )
    inline.add_argument(
        "--cluster", type=_triple, metavar="X,Y,Z", help="default: what the kernel requires, or 1"
    )
    inline.add_argument("--shared", type=int, metavar="BYTES", help="dynamic shared memory")
    inline.add_argument("--arg", action="append", metavar="ARG", help="see below")
    function = parser.add_argument_group("or a launch by Python")
    function.add_argument(
        "--launch",
        metavar="FILE.py[:FUNCTION]",
        help="function(module, **options), by default `run`, launches and asserts",
    )
    parser.add_argument(
        "--coarse-fp8", action="store_true", help="sum fp8 wgmma as coarsely as Hopper does"
    )
    parser.epilog = arguments.SYNTAX


def add_schedule(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--mode",
        choices=["eager", "random", "late"],
        default="eager",
        help="when asynchronous operations take effect (default: eager, at once)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the schedule (default: 0)")


def schedule_of(args: argparse.Namespace) -> dict:
    return {"mode": args.mode, "seed": args.seed}


def run_of(args: argparse.Namespace, module: Module) -> Run:
    given = [
        name
        for name in ("kernel", "grid", "block", "cluster", "shared", "arg")
        if getattr(args, name) is not None
    ]
    if not args.launch:
        return _inline(args, module)
    if given:
        raise UsageError(f"--launch says it all: it goes without --{given[0]}")
    return _function(args.launch)


def options_of(args: argparse.Namespace) -> dict:
    return {"coarse_fp8": True} if args.coarse_fp8 else {}


def command_line(args: argparse.Namespace, *more: str) -> str:
    """The command that runs the same launch."""
    words = ["python", "-m", "ptx_emulator", "run", args.module]
    for name in ("kernel", "grid", "block", "cluster", "shared", "launch"):
        value = getattr(args, name)
        if value is not None:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [f"--{name}", text]
    for argument in args.arg or []:
        words += ["--arg", argument]
    if args.coarse_fp8:
        words.append("--coarse-fp8")
    return shlex.join([*words, *more])


@dataclass
class Outcome:
    launch: Launch | None = None
    failure: str = ""  # what the kernel did wrong
    seconds: float = 0.0


def attempt(run: Run, module: Module, options: dict) -> Outcome:
    """Runs it; what the kernel does wrong is an outcome, what the user does wrong a UsageError."""
    begin = time.perf_counter()
    try:
        result, failure = run(module, **options), ""
        launch = result if isinstance(result, Launch) else None
    except EmulatorError as error:
        launch, failure = None, f"{type(error).__name__}: {error}"
    except AssertionError as error:
        launch, failure = None, f"wrong result: {_first_words(error)}"
    except Exception as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        raise UsageError(f"{type(error).__name__}: {text}{_place(error)}") from error
    return Outcome(launch, failure, time.perf_counter() - begin)


def describe(outcome: Outcome) -> str:
    if outcome.launch is None:
        return f"{outcome.seconds:.2f} s"
    stats = outcome.launch.stats
    return (
        f"{stats['warp_instructions']} warp instructions, at most {stats['max_resident']} clusters "
        f"at once, {outcome.seconds:.2f} s"
    )


def _first_words(error: AssertionError) -> str:
    return f"{error or 'an assertion failed'}{_place(error)}"


def _place(error: Exception) -> str:
    """Where a launch of Python failed."""
    package = str(Path(__file__).parent.parent)
    own = [
        f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(package)
    ]
    if not own:
        return ""
    last = [f for f in own if f.filename == own[0].filename][-1]
    return f"\n  at {last.filename}:{last.lineno}: {last.line}"


def _triple(text: str) -> tuple[int, ...]:
    numbers = tuple(int(n) for n in text.split(","))
    if len(numbers) > 3:
        raise ValueError
    return numbers


def _inline(args: argparse.Namespace, module: Module) -> Run:
    try:
        kernel = module.kernel(args.kernel) if args.kernel else _only(module)
    except KeyError as error:
        raise UsageError(error.args[0]) from None
    values = [arguments.parse(text, i) for i, text in enumerate(args.arg or [])]
    if len(values) != len(kernel.parameters):
        raise UsageError(
            f"{kernel.signature} takes {len(kernel.parameters)} arguments, got {len(values)}"
        )
    block = args.block or kernel.required_block
    if not block:
        raise UsageError(f"--block is needed, as {kernel.name} requires none")
    return InlineLaunch(
        kernel.name, args.grid or (1,), block, args.cluster, args.shared or 0, values
    )


def _only(module: Module):
    if len(module.kernels) == 1:
        return next(iter(module.kernels.values()))
    names = ", ".join(module.kernels)
    raise UsageError(f"--kernel is needed, one of {names}" if names else "there is no kernel")


def _function(text: str) -> Run:
    path, _, name = text.partition(":")
    name = name or "run"
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or not Path(path).is_file():
        raise UsageError(f"cannot read {path}, which --launch names: a Python file is expected")
    made = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(path).resolve().parent))
    try:
        spec.loader.exec_module(made)
    except Exception as error:
        raise UsageError(f"{path}: {type(error).__name__}: {error}{_place(error)}") from error
    function = getattr(made, name, None)
    if not callable(function):
        raise UsageError(f"{path} has no function {name}(module, **options)")
    return function
