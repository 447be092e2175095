"""Primitives on the GPU against numpy and the emulator.

python -m bench.gpu.compare [--kernel NAME]
"""

from __future__ import annotations

import argparse
import sys

from bench.gpu.driver import Gpu, libcuda
from bench.gpu.primitive_cases import cases
from bench.gpu.primitives import check, compile_primitives


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernel", help="only cases of this kernel")
    kernel = parser.parse_args(argv).kernel
    chosen = [c for c in cases() if kernel in (None, c.kernel)]
    if not chosen:
        print(f"there is no kernel {kernel!r}")
        return 2
    from ptx_emulator import Module  # builds itself at its first use

    stem = compile_primitives(ptx_only=False)
    module = Module(stem.with_suffix(".ptx"))
    gpu = Gpu(stem.with_suffix(".fatbin").read_bytes(), libcuda())
    failed = False
    for case in chosen:
        try:
            text = check(case, gpu.run(case), module)
        except (AssertionError, RuntimeError) as error:
            failed, text = True, f"FAILED, {error}"
        print(f"{case.name}: {text}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
