"""Where the compiled extension is, and what it says of itself."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path


def extension_path() -> str | None:
    """Path of the compiled extension, or None if it was not built."""
    found = sorted(Path(__file__).parent.glob("_C*.so"))
    return str(found[0]) if found else None


@functools.cache
def cpu_isa() -> str | None:
    """The level that CPU kernels run at ("scalar", "avx2", "avx512", "avx512_bf16"), or None
    without the extension.

    Raises ValueError where DSA_CPU_ISA names a level that this machine does not support.
    """
    path = extension_path()
    if path is None:
        return None
    library = ctypes.CDLL(path)
    library.dsa_cpu_isa.restype = library.dsa_cpu_isa_levels.restype = ctypes.c_char_p
    name = library.dsa_cpu_isa()
    if name is None:
        levels = library.dsa_cpu_isa_levels().decode()
        raise ValueError(
            f"DSA_CPU_ISA={os.environ['DSA_CPU_ISA']!r}: levels that this machine supports are "
            f"{levels}."
        )
    return name.decode()
