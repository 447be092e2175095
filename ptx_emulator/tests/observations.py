"""All that can be observed of runs of kernels, for tests of determinism.

python -m ptx_emulator.tests.observations
"""

import hashlib
import json

import numpy as np
import torch

from ptx_emulator import EmulatorError, Module, TensorMap, Uninitialized

from . import (
    test_attention,
    test_cluster,
    test_gemm_cp_async,
    test_gemm_ring,
    test_races,
    test_split_k,
    test_topk,
)
from .case import SCHEDULES, schedule_name
from .ptx_kernel import kernel

CASES = {
    "gemm_ring": lambda: test_gemm_ring.case(129, 72, 264),
    "attention": lambda: test_attention.case(1, 65),
    "cluster": lambda: test_cluster.case(70, 40, 200),
    "split_k": lambda: test_split_k.case(40, 72, 520, 5),
    "gemm_cp_async": lambda: test_gemm_cp_async.case(70, 72, 200),
    "topk": lambda: test_topk.case(3, 777, 64),
}
FAULTS = {
    "past the end": "ld.global.u32 %r1, [%rd0+65536];",
    "before the begin": "ld.global.u32 %r1, [%rd0+-64];",
    "misaligned": "ld.global.u32 %r1, [%rd0+2];",
    "nobody wrote": "ld.global.u32 %r1, [%rd0+64];",
    "no mbarrier": "mov.u32 %r1, 1024; mbarrier.arrive.shared.b64 _, [%r1];",
    "deadlock": "@%p0 bra HERE; HERE: setp.ne.u32 %p1, %r0, 0; @%p1 exit; bar.sync 1, 64;",
    "bulk": "cp.async.bulk.prefetch.L2.global [%rd0+8], 16;",
}


class Observer:
    """Launches as the module does, and notes what can be observed of it. The arrays stay alive, so
    that the next launch has others."""

    def __init__(self, module):
        self.module = module
        self.seen = hashlib.sha256()
        self.arguments = []

    def launch(self, kernel, grid, block, args, **options):
        self.arguments.append(args)
        launch = self.module.launch(kernel, grid, block, args, profile=True, **options)
        for array in map(self._array, args):
            if array is not None:
                self.seen.update(array.contiguous().view(torch.uint8).numpy().tobytes())
        self.seen.update(json.dumps(launch.stats).encode())
        self.seen.update(json.dumps(launch.profile.as_dict()).encode())
        return launch

    def addresses(self):
        found = [[self._array(a) for a in args] for args in self.arguments]
        return [a.data_ptr() for args in found for a in args if a is not None]

    @staticmethod
    def _array(argument):
        for kind in (TensorMap, Uninitialized):
            if isinstance(argument, kind):
                argument = argument.array
        if isinstance(argument, np.ndarray):
            return torch.from_numpy(argument)
        return argument if isinstance(argument, torch.Tensor) else None


def observe_case(name, observer=Observer):
    """What each schedule shows."""
    case = CASES[name]()
    module = Module(case.ptx)
    shown = {}
    for schedule in SCHEDULES:
        seen = observer(module)
        case.run(seen, **schedule)
        shown[schedule_name(schedule)] = seen.seen.hexdigest()
    return shown


def mistakes():
    """Names, and functions that raise."""
    for run, _, bad in test_races.CASES:
        for macros in bad:
            yield (
                test_races.name(run, macros),
                lambda observer, run=run, macros=macros, **options: run(
                    observer(test_races.module(*macros)), **options
                ),
            )
    for name, body in FAULTS.items():
        text = kernel(f"ld.param.u64 %rd0, [a]; mov.u32 %r0, %tid.x; {body} ret;", ".param .u64 a")
        yield (
            name,
            lambda observer, text=text, **options: observer(Module(text)).launch(
                "k", 1, 32, [Uninitialized(np.empty(1024, np.uint32))], **options
            ),
        )


def observe_reports(observer=Observer):
    reports = {}
    for name, run in mistakes():
        for schedule in SCHEDULES[:4]:
            try:
                run(observer, **schedule)
            except EmulatorError as error:
                reports[f"{name} {schedule_name(schedule)}"] = f"{type(error).__name__}: {error}"
    return reports


def observe():
    return {name: observe_case(name) for name in CASES} | {"reports": observe_reports()}


if __name__ == "__main__":
    print(json.dumps(observe()))
