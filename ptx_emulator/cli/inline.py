"""A launch written on the command line: deterministic data, and outputs that must not change."""

import zlib
from dataclasses import dataclass, field

import numpy as np

from ..module import Launch, Module
from . import formats
from .arguments import Array, Scalar, array_of

_SHOWN = 8  # elements of an output


@dataclass
class InlineLaunch:
    """Launches with fresh arrays at each call. The first call's outputs are what later ones must
    give: a correct kernel's do not depend on the schedule."""

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    cluster: tuple[int, ...] | None
    shared: int
    arguments: list[Scalar | Array]
    arrays: dict[int, np.ndarray] = field(default_factory=dict)  # of the last call, by argument
    expected: dict[int, np.ndarray] | None = None

    def __call__(self, module: Module, **options) -> Launch:
        values = [argument.make() for argument in self.arguments]
        launch = module.launch(
            self.kernel,
            self.grid,
            self.block,
            values,
            cluster=self.cluster,
            shared=self.shared,
            **options,
        )
        self.arrays = {i: array_of(values[i]) for i in self.array_indices()}
        if self.expected is None:
            self.expected = self.arrays
        for i, array in self.arrays.items():
            self._compare(i, array, self.expected[i])
        return launch

    def array_indices(self) -> list[int]:
        return [i for i, argument in enumerate(self.arguments) if isinstance(argument, Array)]

    def describe_outputs(self) -> list[str]:
        """A line for each array that the last call changed."""
        return [
            f"argument {i}: {self._type(i)}, CRC-32 {zlib.crc32(array.tobytes()):08x}, "
            f"{self._first(i, array)}"
            for i, array in self.arrays.items()
            if array.tobytes() != self.arguments[i].initial.tobytes()
        ]

    def _type(self, i: int) -> str:
        argument = self.arguments[i]
        return f"{argument.type}[{','.join(map(str, argument.initial.shape))}]"

    def _first(self, i: int, array: np.ndarray) -> str:
        values = formats.decode(array.ravel()[:_SHOWN], self.arguments[i].type)
        more = " ..." if array.size > _SHOWN else ""
        return (
            " ".join(f"{value:g}" if value.dtype.kind == "f" else str(value) for value in values)
            + more
        )

    def _compare(self, i: int, array: np.ndarray, expected: np.ndarray) -> None:
        bits = [a.view(f"u{a.itemsize}") for a in (array, expected)]
        wrong = bits[0] != bits[1]
        if not wrong.any():
            return
        at = tuple(int(n) for n in np.argwhere(wrong)[0])
        kind = self.arguments[i].type
        got, wanted = (formats.decode(a, kind)[at] for a in (array, expected))
        raise AssertionError(
            f"argument {i} depends on the schedule: {np.count_nonzero(wrong)} of {array.size} "
            f"elements differ from those of the first, the first of them at {list(at)}: "
            f"{got} instead of {wanted}. If the kernel may do that, as with atomics on floats, "
            "assert in a function (--launch)."
        )
