"""The driver table in the hands of Python: its functions and options, and the launches that a
program makes through it, to profile them, to search them for races in other schedules, or to run a
changed module in their place."""

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from functools import lru_cache

from . import _library
from .module import Launch, Module

MODES = ("eager", "random", "late")


class Options(ctypes.Structure):
    """Of all launches through the table; `mode` is an index of MODES."""

    _fields_ = (
        ("mode", ctypes.c_int32),
        ("races", ctypes.c_int32),
        ("coarse_fp8", ctypes.c_int32),
        ("seed", ctypes.c_uint64),
    )


def table() -> tuple[int, int, int]:
    """Addresses of ptx_driver_function, ptx_driver_register and ptx_driver_unregister."""
    library = _library.load()
    names = ("ptx_driver_function", "ptx_driver_register", "ptx_driver_unregister")
    return tuple(ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in names)


def options() -> Options:
    """Options as they are, at first those of the environment."""
    library = _library.load()
    initialize = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_uint32)
    initialize(library.ptx_driver_function(b"cuInit"))(0)  # reads the environment
    now = Options()
    library.ptx_driver_get_options(ctypes.byref(now))
    return now


def set_options(new: Options) -> None:
    _library.load().ptx_driver_set_options(ctypes.byref(new))


_module_of = lru_cache(maxsize=16)(Module)


class DriverLaunch:
    """A launch that has not run yet. Good while the handler runs that it was given to."""

    def __init__(self, struct: _library.DriverLaunchStruct):
        self.ptx = struct.ptx.decode()
        self.kernel = struct.kernel.decode()
        self.grid, self.block, self.cluster = struct.grid, struct.block, struct.cluster
        self.shared = struct.dynamic_shared
        self._params = ctypes.string_at(struct.params, struct.param_bytes)
        self._regions = [struct.regions[i] for i in range(struct.region_count)]

    def run(self, module: Module | None = None, **options) -> Launch:
        """Runs it, or the kernel of that name of `module`; `options` are those of `Module.launch`:
        seed, mode, races, coarse_fp8, profile, max_instructions."""
        module = module or _module_of(self.ptx)
        return module.launch_block(
            module.kernel(self.kernel),
            self.grid,
            self.block,
            self.cluster,
            self.shared,
            self._params,
            self._regions,
            **options,
        )


@contextlib.contextmanager
def intercepted(handler: Callable[[DriverLaunch], object]) -> Iterator[list]:
    """Inside, `handler(launch)` is called in place of each launch of this process; the list that it
    yields gets what they return. What a handler raises is raised again at the end of the block."""
    results, errors = [], []

    def instead(launch) -> int:
        try:
            results.append(handler(DriverLaunch(launch.contents)))
            return 0
        except BaseException as error:  # C++ must not see it
            errors.append(error)
            return 1

    callback = _library.Instead(instead)
    library = _library.load()
    library.ptx_driver_intercept(callback)
    try:
        yield results
    except Exception as error:  # how the program puts that its launch failed
        raise (errors[0] if errors else error) from None
    finally:
        library.ptx_driver_intercept(_library.Instead())
    if errors:
        raise errors[0]
