"""C++ programs that tests build against the emulator's library."""

import subprocess
from pathlib import Path

from ptx_emulator import _build
from ptx_emulator.cli.flags import flags

SOURCES = Path(__file__).parent / "cpp"


def build(folder, name, *more):
    """Compiles cpp/<name>.cpp, as a user of `python -m ptx_emulator flags` does."""
    program = folder / name
    warnings = ["-Wall", "-Wextra", "-Werror"]
    source = str(SOURCES / f"{name}.cpp")
    command = [_build.find_compiler(), source, *warnings, *more, *flags(), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def output_of(program, *words, **options):
    done = subprocess.run([program, *words], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
