"""What holds for every op: its files, its torch citizenship, and what it may write."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path

import pytest
import torch

import dsa_kernels
from dsa_kernels._op import BACKENDS, OPS
from dsa_kernels.cli.info import ops_markdown
from dsa_kernels.testing import assert_bitwise_equal
from dsa_kernels.testing.cases import case
from dsa_kernels.testing.differential import copy_written, fewer_rows, named, watched_run

ROOT = Path(__file__).parent.parent
NAMES = [
    "indexer_k_cache_gather",
    "indexer_k_cache_store",
    "indexer_q_rope_quant",
    "indexer_topk",
    "indices_to_slots",
    "merge_attention_states",
    "mla_cache_gather",
    "mla_cache_store",
    "mqa_logits",
    "paged_indexer_topk",
    "paged_mqa_logits",
    "sparse_mla_decode",
    "sparse_mla_prefill",
    "topk_indices",
]
FILES = [
    "dsa_kernels/ops/{}.py",
    "dsa_kernels/reference/{}.py",
    "dsa_kernels/testing/cases/{}.py",
    "csrc/bindings/{}.cpp",
    "csrc/cpu/{}.cpp",
    "tests/test_{}.py",
    "bench/bench_{}.py",
]
# Every backend that runs here, of every op.
OVERLOADS = [(op, backend) for op in sorted(OPS) for backend in OPS[op].backends("cpu")]
each_op = pytest.mark.parametrize("op", sorted(OPS))
each_overload = pytest.mark.parametrize(("op", "backend"), OVERLOADS)


def arguments(op: str, which: int = 0) -> list:
    return case(op).make(torch.Generator().manual_seed(which), **case(op).SMALL[which])


def overload(op: str, backend: str):
    packet = getattr(torch.ops.dsa_kernels, op)
    return packet.default if backend == "native" else getattr(packet, backend)


def public_arguments(op: str, args: list) -> tuple[dict, dict]:
    """Arguments of the public function by name: (all but outputs, outputs that it can allocate)."""
    values = named(OPS[op], args)
    values = getattr(case(op), "public_arguments", dict)(values)
    written = {spec.name for spec in OPS[op].tensors if spec.written}
    given, outputs = {}, {}
    for name, parameter in inspect.signature(getattr(dsa_kernels, op)).parameters.items():
        if name in values:
            optional = name in written and parameter.default is None
            (outputs if optional else given)[name] = values[name]
    return given, outputs


def test_the_public_list():
    assert sorted(OPS) == NAMES
    assert sorted(set(dsa_kernels.__all__) & set(OPS)) == NAMES
    assert dsa_kernels.__all__ == sorted(dsa_kernels.__all__)


@each_op
@pytest.mark.parametrize("pattern", FILES)
def test_files(op, pattern):
    assert (ROOT / pattern.format(op)).is_file(), f"{pattern.format(op)} is missing"


@pytest.mark.parametrize(
    "pattern", ["dsa_kernels/ops/*.py", "csrc/bindings/*.cpp", "bench/bench_*.py"]
)
def test_no_file_without_an_op(pattern):
    """A stem that is no op's name is a typo or a leftover."""
    stems = {p.stem.removeprefix("bench_") for p in ROOT.glob(pattern)}
    assert stems - {"__init__", "common"} - set(OPS) == set()


@each_op
def test_reference_has_the_schemas_arguments(op):
    assert tuple(inspect.signature(OPS[op].reference).parameters) == OPS[op].arguments


@each_op
def test_public_function(op):
    function = getattr(dsa_kernels, op)
    names = list(inspect.signature(function).parameters)
    assert names[-1] == "backend"
    doc = inspect.getdoc(function)
    for section in ("Args:", "Raises:"):
        assert section in doc, f"the docstring of {op} has no {section}"
    for name in names:
        assert name in doc, f"the docstring of {op} does not mention {name}"


def test_docs_agree_with_the_contracts():
    text = (ROOT / "docs" / "ops.md").read_text()
    assert text == ops_markdown(), (
        "docs/ops.md is stale: python -m dsa_kernels info --ops-markdown > docs/ops.md"
    )


OPCHECKS = ("test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")


@each_overload
def test_opcheck(op, backend):
    args = arguments(op)
    fp8 = any(isinstance(a, torch.Tensor) and a.dtype == torch.float8_e4m3fn for a in args)
    # test_schema compares arguments with torch.allclose, which float8 does not have;
    # test_writes_its_outputs_and_nothing_else checks the same in bytes.
    checks = OPCHECKS if fp8 else ("test_schema", *OPCHECKS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.library.opcheck(
            overload(op, backend), tuple(copy_written(OPS[op], args)), test_utils=checks
        )


@each_overload
def test_compile_with_dynamic_shapes(op, backend):
    """The public function, with outputs that it allocates and with outputs that it is given."""
    check_compiled(op, backend, "aot_eager")


@pytest.mark.parametrize("op", ["topk_indices", "mla_cache_store"])
def test_inductor(op):
    check_compiled(op, "native", "inductor")


def check_compiled(op: str, backend: str, compiler: str) -> None:
    function = getattr(dsa_kernels, op)

    def step(given: dict, outputs: dict):
        allocated = function(**given, backend=backend) if outputs else None
        return allocated, function(**given, **outputs, backend=backend)

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend=compiler)
    for which in (0, 1):
        args = arguments(op, which)
        after = []
        for run in (step, compiled):
            copied = copy_written(OPS[op], args)
            with torch._dynamo.config.patch(error_on_recompile=True):  # shapes are dynamic
                results = run(*public_arguments(op, copied))
            after.append((copied, results))
        (eager, eager_results), (traced, traced_results) = after
        for name, e, t in zip(OPS[op].arguments, eager, traced, strict=True):
            if isinstance(e, torch.Tensor) and name != "workspace":
                assert_bitwise_equal(t, e, name)
        for e, t in zip(flat(eager_results), flat(traced_results), strict=True):
            assert_bitwise_equal(t, e, "a returned tensor")


def test_compile_with_sizes_that_are_data():
    step = torch.compile(
        lambda scores, mask: dsa_kernels.topk_indices(scores[mask], 8), fullgraph=True
    )
    scores, mask = torch.randn(5, 20), torch.tensor([1, 0, 1, 1, 0]).bool()
    assert_bitwise_equal(step(scores, mask), dsa_kernels.topk_indices(scores[mask], 8))


def test_no_advice_that_loses_writes():
    """.contiguous() of an output is another tensor."""
    out = torch.zeros(8, 4, dtype=torch.int32).t()
    with pytest.raises(ValueError, match=r"must be contiguous.*Allocate it so"):
        dsa_kernels.topk_indices(torch.randn(4, 20), 8, out=out)


def flat(results) -> list:
    if isinstance(results, torch.Tensor):
        return [results]
    return [] if results is None else [t for part in results for t in flat(part)]


@each_overload
def test_meta_and_fake_tensors(op, backend):
    args = arguments(op)
    meta = [a.to("meta") if isinstance(a, torch.Tensor) else a for a in args]
    assert overload(op, backend)(*meta) is None
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=False) as mode:
        fake = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in args]
        given, outputs = public_arguments(op, fake)
        results = flat(getattr(dsa_kernels, op)(**given, backend=backend))
    if not outputs:
        assert results == []
        return
    real = {n: v for n, v in outputs.items() if n != "workspace"}
    assert [(r.shape, r.dtype) for r in results] == [(v.shape, v.dtype) for v in real.values()]


@each_overload
@pytest.mark.parametrize("which", [0, 1])
def test_writes_its_outputs_and_nothing_else(op, backend, which):
    args = arguments(op, which)
    after = watched_run(OPS[op], args, backend)
    before = named(OPS[op], args)
    for spec in OPS[op].tensors:
        if spec.written and spec.name != "workspace":
            changed = after[spec.name].contiguous().view(torch.uint8) != before[
                spec.name
            ].contiguous().view(torch.uint8)
            assert changed.any(), f"{op} left {spec.name} as it was"


@each_overload
def test_agrees_with_reference(op, backend):
    for which in (0, 1):
        args = arguments(op, which)
        expected = watched_run(OPS[op], args, "reference")
        case(op).compare(expected, watched_run(OPS[op], args, backend))


@each_overload
def test_no_rows(op, backend):
    shape = fewer_rows(op, case(op).SMALL[0], 0)
    args = case(op).make(torch.Generator(), **shape)
    after = watched_run(OPS[op], args, backend)
    given, outputs = public_arguments(op, args)
    results = flat(getattr(dsa_kernels, op)(**given, backend=backend))
    assert all(r.shape == after[n].shape for r, n in zip(results, outputs, strict=False))


@each_op
def test_requires_grad_raises(op):
    args = arguments(op)
    for i, (name, a) in enumerate(zip(OPS[op].arguments, args, strict=True)):
        if isinstance(a, torch.Tensor) and a.is_floating_point():
            grad = [*args[:i], a.detach().clone().requires_grad_(), *args[i + 1 :]]
            with pytest.raises(ValueError, match=f"{op}: {name} requires grad"):
                overload(op, "native")(*grad)


@each_overload
def test_autograd_learns_of_writes(op, backend):
    """A tensor saved for backward and then overwritten must make backward() raise."""
    args = copy_written(OPS[op], arguments(op))
    tensors = {n: t for n, t in named(OPS[op], args).items() if isinstance(t, torch.Tensor)}
    before = {n: t._version for n, t in tensors.items()}
    overload(op, backend)(*args)
    written = {spec.name for spec in OPS[op].tensors if spec.written}
    assert {n for n, t in tensors.items() if t._version > before[n]} == written
    if backend != "reference":  # torch's own operations refuse outputs that have no version
        with torch.inference_mode():
            args = copy_written(OPS[op], arguments(op))
        overload(op, backend)(*args)


class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
    """Which overloads of this package ran."""

    def __init__(self):
        super().__init__()
        self.ran = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "dsa_kernels":
            self.ran.append(func._overloadname)
        return func(*args, **(kwargs or {}))


@each_op
def test_explain_is_honest(op):
    args = arguments(op)
    told = dsa_kernels.explain(op, *args)
    assert {told.chosen, *told.refused} == set(BACKENDS)
    given, outputs = public_arguments(op, args)
    function = getattr(dsa_kernels, op)
    with Recorder() as recorder:
        function(**given, **outputs)
    assert recorder.ran == ["default" if told.chosen == "native" else told.chosen]
    for backend, reason in told.refused.items():
        assert reason
        if backend in dsa_kernels.backends(op):  # not preferred, but it does run
            assert "preferred" in reason
            function(**given, **outputs, backend=backend)
        else:
            with pytest.raises(ValueError, match=f"backend '{backend}' was asked for"):
                function(**given, **outputs, backend=backend)


@each_op
def test_explain_of_a_named_backend(op):
    told = dsa_kernels.explain(op, backend="reference")
    assert told.chosen == "reference"
    assert "asked for" in told.refused["native"]
    with pytest.raises(ValueError, match="cannot run on cpu"):
        dsa_kernels.explain(op, backend="tilelang")
