"""Kernels lowered for CUDA, run by the PTX emulator on CPU tensors."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from tilelang_kernels.toolchain.cache import kept
from tilelang_kernels.toolchain.compilers import find_nvcc
from tilelang_kernels.toolchain.lowering import Lowered, bind, evaluate, lower
from tilelang_kernels.toolchain.objects import nvcc_flags, run
from tilelang_kernels.toolchain.targets import Target


def ptx_of(lowered: Lowered) -> str:
    """By nvcc, kept on disk."""
    flags = [*nvcc_flags(lowered.target.name), "-lineinfo"]

    def compiled() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            source, made = Path(folder) / "kernel.cu", Path(folder) / "kernel.ptx"
            source.write_text(lowered.source)
            run(find_nvcc(), "-ptx", *flags, str(source), "-o", str(made))
            return made.read_bytes()

    return kept("ptx", [lowered.source, *flags, run(find_nvcc(), "--version")], compiled).decode()


@functools.cache
def _loaded(builder, target: Target, options: tuple):
    from ptx_emulator import Module

    lowered = lower(builder(target, **dict(options)), target)
    return lowered, Module(ptx_of(lowered))


class Emulated:
    """Runs kernels for a CUDA target, with the options of ptx_emulator's driver."""

    def __init__(self, target: Target):
        self.target = target

    def __call__(self, builder, configuration: dict, *arguments) -> None:
        """`builder`(target, **configuration) is the TileLang function; it gets the arguments."""
        from ptx_emulator import TensorMap, driver

        lowered, module = _loaded(builder, self.target, tuple(sorted(configuration.items())))
        values = bind(lowered.function, arguments)
        tensors = {
            lowered.function.buffer_map[p].name: a
            for p, a in zip(lowered.function.params, arguments, strict=True)
            if p in lowered.function.buffer_map
        }
        at = functools.partial(evaluate, values=values)

        def parameter(name: str):
            if name in lowered.maps:
                m = lowered.maps[name]
                return TensorMap(
                    tensors[m.tensor],
                    m.box,
                    dims=[at(d) for d in m.dims],
                    strides=[at(s) for s in m.strides],
                    element_strides=m.element_strides,
                    swizzle=m.swizzle,
                )
            return tensors[name] if name in tensors else values[name]

        grid = tuple(at(size) for size in lowered.grid)
        options = driver.options()
        module.launch(
            lowered.name,
            grid,
            lowered.block,
            [parameter(name) for name in lowered.parameters],
            shared=lowered.shared_bytes,
            memory=list(tensors.values()),
            mode=driver.MODES[options.mode],
            seed=options.seed,
            races=bool(options.races),
            coarse_fp8=bool(options.coarse_fp8),
        )
