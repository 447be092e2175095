"""Registration and backend selection: the only metaprogramming in the package.

An op is declared once, in `ops/<op>.py`, as an `Op`: a schema string and a table that gives each
tensor's dtypes and symbolic shape. From those two come the torch ops (one overload per backend),
their fakes, the argument checks and the error texts, so none of them can drift from the others.

    torch dispatcher   picks the device
    overload           picks the implementation: default = native, .reference, .tilelang, .emulated
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dsa_kernels import _gpu, _tilelang
from dsa_kernels._cuda import connect, emulation_problem
from dsa_kernels._native import cpu_isa

NAMESPACE = "dsa_kernels"

# In order of preference. The native overload is torch's default one, so a bare
# `torch.ops.dsa_kernels.<op>(...)` is native.
BACKENDS = ("native", "tilelang", "emulated", "reference")
AUTOMATIC = ("native", "tilelang", "reference")  # emulation is only ever asked for by name

OPS: dict[str, Op] = {}
_library = torch.library.Library(NAMESPACE, "DEF")
_native_problem: str | None = "the extension has not been loaded"


@dataclass(frozen=True)
class TensorSpec:
    """One row of a contract's tensor table, parsed from text such as

        "float8_e4m3fn|bfloat16 [num_rows, num_heads, head_dim]"     any of the dtypes
        "bfloat16|float32(cpu) [num_rows, dim]"                      float32 not by CUDA kernels
        "=q [seq_len, head_dim]"                                     the dtype of argument q
        "uint8 [num_pages | page_size, head_dim+4]"                  dims after the bar are packed

    A symbol means the same size everywhere in the op, and the value of the int argument of that
    name where there is one. The last dim always has stride 1.
    """

    name: str
    text: str
    dtypes: tuple[torch.dtype, ...]
    cuda_dtypes: tuple[torch.dtype, ...]  # of these, what CUDA kernels take
    like: str | None
    dims: tuple[tuple[str | None, int], ...]  # (symbol or None, offset)
    packed_from: int
    optional: bool
    written: bool
    hint: str

    @staticmethod
    def parse(name: str, text: str, optional: bool, written: bool, hint: str) -> TensorSpec:
        dtype_text, dim_text = re.fullmatch(r"(\S+) \[(.*)\]", text).groups()
        like = dtype_text[1:] if dtype_text.startswith("=") else None
        names = [] if like else dtype_text.split("|")
        dtypes = tuple(getattr(torch, n.removesuffix("(cpu)")) for n in names)
        cuda_dtypes = tuple(d for d, n in zip(dtypes, names, strict=True) if "(cpu)" not in n)
        before_bar, bar, _ = dim_text.partition("|")
        dims = []
        for token in filter(None, re.split(r"[,|]\s*", dim_text.replace(" ", ""))):
            symbol, offset = re.fullmatch(r"([a-z_]\w*)?\+?(\d+)?", token).groups()
            dims.append((symbol, int(offset or 0)))
        packed_from = len(before_bar.split(",")) if bar else len(dims) - 1
        return TensorSpec(
            name, text, dtypes, cuda_dtypes, like, tuple(dims), packed_from, optional, written, hint
        )

    def shape_text(self) -> str:
        return self.text.partition(" ")[2]


def _describe(value) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return f"{str(value.dtype)[6:]} {list(value.shape)} on {value.device}"


class Op:
    """A contract. See the module docstring.

    name:       the op's name, shared by every file about it
    schema:     argument list of the low-level torch op, which writes into caller-owned outputs
    tensors:    argument name -> TensorSpec text, or (text, hint for the error message)
    reference:  pure-PyTorch implementation with the schema's arguments
    check:      what the table cannot say: `check(args, sizes)` raises ValueError through `fail`
    """

    def __init__(
        self,
        name: str,
        schema: str,
        *,
        tensors: dict[str, str | tuple[str, str]],
        reference: Callable[..., None],
        check: Callable[[dict, dict], None] | None = None,
    ):
        self.name = name
        self.schema = schema
        self.reference = reference
        self._check = check
        parsed = torch._C.parse_schema(f"{NAMESPACE}::{name}{schema}")
        self.arguments = tuple(a.name for a in parsed.arguments)
        specs = []
        for a in parsed.arguments:
            if a.name in tensors:
                row = tensors[a.name]
                text, hint = (row, "") if isinstance(row, str) else row
                optional = isinstance(a.type, torch._C.OptionalType)
                written = a.alias_info is not None and a.alias_info.is_write
                specs.append(TensorSpec.parse(a.name, text, optional, written, hint))
        self.tensors = tuple(specs)
        self._overloads: dict[str, Callable] = {}
        self._available: dict[tuple[str, str], bool] = {}
        self._define("native")
        self._define("reference")
        self._define("emulated")
        self._define("tilelang")
        _library.impl(f"{name}.reference", reference, "CompositeExplicitAutograd")
        if name in _tilelang.ported():
            _library.impl(f"{name}.tilelang", functools.partial(_tilelang.run, name), "CUDA")
        OPS[name] = self

    def _define(self, backend: str) -> None:
        """Adds the overload for `backend`: schema, fake, and the refusal of gradients."""
        qualified = self.name if backend == "native" else f"{self.name}.{backend}"
        # `needs_exact_strides`: inductor must not re-layout arguments, strides are in the contract.
        tags = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
        _library.define(qualified + self.schema, tags=tags)
        # Outputs belong to the caller, so there is nothing to infer.
        torch.library.register_fake(f"{NAMESPACE}::{qualified}", _returns_nothing, lib=_library)
        packet = getattr(getattr(torch.ops, NAMESPACE), self.name)
        overload = packet.default if backend == "native" else getattr(packet, backend)
        _library.impl(qualified, _without_gradients(self, overload), "Autograd")
        self._overloads[backend] = overload

    def __call__(self, *args, backend: str | None = None) -> None:
        """Checks `args` (in schema order) against the contract and runs the chosen backend."""
        device = self.check(*args)
        chosen = self.choose(backend, device)
        if chosen in ("emulated", "tilelang") or (chosen == "native" and device == "cuda"):
            self._check_cuda_dtypes(args, chosen)
        self._overloads[chosen](*args)

    def fail(self, message: str, kind: type[Exception] = ValueError):
        raise kind(f"{self.name}: {message}")

    def check_integer(self, name: str, value) -> None:
        if not isinstance(value, int | torch.SymInt):
            self.fail(f"{name} must be an integer; got {value!r}.", TypeError)

    def check_size_of(self, name: str, size: int | None, out, dim: int) -> None:
        """A size that is given beside an output has to be the output's."""
        if size is not None and has_dims(out, 2) and out.shape[dim] != size:
            of = ("rows", "columns")[dim]
            self.fail(f"{name} must be out's number of {of}; got {size} and {list(out.shape)}.")

    def check(self, *args) -> str:
        """Raises TypeError or ValueError where `args` break the contract; returns the device type.

        Reads metadata only, never values, so it neither synchronises nor breaks tracing.
        """
        values = dict(zip(self.arguments, args, strict=True))
        sizes: dict[str, int] = {n: v for n, v in values.items() if isinstance(v, int)}
        sizes_from: dict[str, str] = dict.fromkeys(sizes, "the argument")
        first: torch.Tensor | None = None
        for spec in self.tensors:
            value = values[spec.name]
            if value is None and spec.optional:
                continue
            if not isinstance(value, torch.Tensor):
                self._mismatch(spec, value, values, "", TypeError)
            allowed = (values[spec.like].dtype,) if spec.like else spec.dtypes
            if value.dtype not in allowed:
                self._mismatch(spec, value, values, "", TypeError)
            self._check_shape(spec, value, values, sizes, sizes_from)
            self._check_strides(spec, value)
            if first is None:
                first, first_name = value, spec.name
            elif value.device != first.device:
                self.fail(
                    f"{spec.name} must be on the device of {first_name}, {first.device}; "
                    f"got {_describe(value)}. Move it with .to({str(first.device)!r})."
                )
        if self._check is not None:
            self._check(values, sizes)
        return first.device.type

    def _check_shape(self, spec, value, values, sizes, sizes_from) -> None:
        if value.dim() != len(spec.dims):
            self._mismatch(spec, value, values, "", ValueError)
        for size, (symbol, offset) in zip(value.shape, spec.dims, strict=True):
            known = symbol in sizes
            if symbol is None:
                ok = size == offset
            elif known:
                ok = size == sizes[symbol] + offset
            else:
                sizes[symbol], sizes_from[symbol] = size - offset, spec.name
                ok = size >= offset
            if not ok:  # the text is made only here: sizes may be symbolic under torch.compile
                note = (
                    f" with {symbol} = {sizes[symbol]} from {sizes_from[symbol]}" if known else ""
                )
                self._mismatch(spec, value, values, note, ValueError)

    def _check_strides(self, spec, value) -> None:
        # Empty tensors may have any strides. Asked last: torch.compile may not know the answer.
        expected = 1
        for dim in range(value.dim() - 1, -1, -1):
            size, stride = value.shape[dim], value.stride(dim)
            if dim >= spec.packed_from:
                if stride != expected and size > 1 and value.numel() != 0:
                    what = "contiguous" if spec.packed_from == 0 else "contiguous in its last dim"
                    if 0 < spec.packed_from < value.dim() - 1:
                        what = f"contiguous within each {spec.dims[spec.packed_from - 1][0]} entry"
                    remedy = "Make it so with .contiguous()"
                    if spec.written:
                        remedy = "Allocate it so: a copy would take the writes"
                    self.fail(
                        f"{spec.name} {spec.shape_text()} must be {what}; got strides "
                        f"{list(value.stride())}. {remedy}."
                    )
                expected = expected * size
            elif spec.written and stride == 0 and size > 1 and value.numel() != 0:
                self.fail(
                    f"{spec.name} {spec.shape_text()} is written, so it must not overlap itself; "
                    f"got strides {list(value.stride())}. Pass a tensor that is not expanded."
                )

    def _check_cuda_dtypes(self, args, backend: str) -> None:
        values = dict(zip(self.arguments, args, strict=True))
        for spec in self.tensors:
            value = values[spec.name]
            if value is not None and spec.dtypes and value.dtype not in spec.cuda_dtypes:
                taken = " or ".join(str(d)[6:] for d in spec.cuda_dtypes)
                self.fail(
                    f"{spec.name} must be {taken} for kernels of GPUs (backend {backend!r}); "
                    f"got {_describe(value)}. Convert it, or pass backend='reference'.",
                    TypeError,
                )

    def _mismatch(self, spec, value, values, note: str, kind: type[Exception]):
        if spec.like:
            dtypes = f"{str(values[spec.like].dtype)[6:]} (the dtype of {spec.like})"
        else:
            dtypes = " or ".join(str(d)[6:] for d in spec.dtypes)
        none = " or None" if spec.optional else ""
        hint = f" {spec.hint}" if spec.hint else ""
        self.fail(
            f"{spec.name} must be {dtypes} {spec.shape_text()}{note}{none}; "
            f"got {_describe(value)}.{hint}",
            kind,
        )

    def choose(self, backend: str | None, device: str) -> str:
        """The backend that will run: `backend` or DSA_BACKEND exactly, else the best available."""
        wanted = backend if backend is not None else default_backend
        if wanted is not None:
            if not self._runs(wanted, device):
                self.fail(
                    f"backend {wanted!r} was asked for and cannot run on {device}: "
                    f"{self.unavailable(wanted, device)}. "
                    f"Available there: {', '.join(self.backends(device))}."
                )
            return wanted
        for name in AUTOMATIC:
            if self._runs(name, device):
                return name
        self.fail(f"no backend runs on {device}; see dsa_kernels.explain({self.name!r}).")

    def _runs(self, backend: str, device: str) -> bool:
        exists = self._available.get((backend, device), False)
        return exists and (device != "cuda" or _gpu.problem(self.name, backend) is None)

    def backends(self, device: str = "cpu") -> tuple[str, ...]:
        """Backends that exist for tensors on `device`, best first."""
        return tuple(b for b in BACKENDS if self.unavailable(b, device) is None)

    def unavailable(self, backend: str, device: str) -> str | None:
        """Why `backend` cannot serve `device`, or None if it can."""
        if backend not in BACKENDS:
            return f"there is no such backend (backends are {', '.join(BACKENDS)})"
        if self._available.get((backend, device), False):
            return _gpu.problem(self.name, backend) if device == "cuda" else None
        if backend == "native" and device == "cpu":
            return _native_problem or "the extension has no CPU kernel for this op"
        if backend == "emulated" and device == "cpu" and self._has_kernel(backend, "CPU"):
            return emulation_problem(self.name)
        if backend == "tilelang" and device == "cuda" and self._has_kernel(backend, "CUDA"):
            return _tilelang.problem()
        return f"this version has no {backend} implementation for {device}"

    def refresh(self) -> None:
        """Records which kernels torch has; called once every backend has been loaded."""
        problems = {"emulated": emulation_problem(self.name), "tilelang": _tilelang.problem()}
        for backend in self._overloads:
            for device, key in (("cpu", "CPU"), ("cuda", "CUDA"), ("meta", "Meta")):
                exists = (
                    backend == "reference" or device == "meta" or self._has_kernel(backend, key)
                )
                self._available[backend, device] = exists and problems.get(backend) is None

    def _has_kernel(self, backend: str, key: str) -> bool:
        qualified = f"{NAMESPACE}::{self.name}" + ("" if backend == "native" else f".{backend}")
        return torch._C._dispatch_has_kernel_for_dispatch_key(qualified, key)


def has_dims(value, dims: int) -> bool:
    """Whether a public function may look at sizes of an argument that is not checked yet."""
    return isinstance(value, torch.Tensor) and value.dim() == dims


def _returns_nothing(*args) -> None:
    return None


def _without_gradients(op: Op, overload):
    """Autograd kernel: no op has a backward, and a gradient must not go missing, or be that of
    values since overwritten, in silence.

    Calls whose tensors were all made under torch.inference_mode() never come here.
    """
    written = [op.arguments.index(spec.name) for spec in op.tensors if spec.written]

    def kernel(*args):
        if torch.is_grad_enabled():
            for name, value in zip(op.arguments, args, strict=False):
                if isinstance(value, torch.Tensor) and value.requires_grad:
                    op.fail(
                        f"{name} requires grad, and this op has no backward. Call it under "
                        "torch.no_grad() or pass a detached tensor."
                    )
        with torch._C._AutoDispatchBelowAutograd():
            overload(*args)
        for i in written:
            if not args[i].is_inference():
                torch.autograd.graph.increment_version(args[i])

    return kernel


def backends(op: str, device: str = "cpu") -> tuple[str, ...]:
    """Backends that can run `op` on tensors of `device` ("cpu", "cuda"), best first."""
    return _contract(op).backends(device)


def _contract(op: str) -> Op:
    if op not in OPS:
        raise ValueError(f"there is no op {op!r}; ops are {', '.join(sorted(OPS))}")
    return OPS[op]


@dataclass(frozen=True)
class Explanation:
    """What `explain` returns: the backend that a call would use, and why not each other one."""

    op: str
    device: str
    chosen: str
    refused: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{self.op} on {self.device}: {self.chosen}"]
        lines += [f"  not {name}: {reason}" for name, reason in self.refused.items()]
        return "\n".join(lines)


def explain(op: str, *args, backend: str | None = None) -> Explanation:
    """Says which backend a call of `op` would use, and why each other one would not be.

    op: an op's name. args: the call's tensors, in any order, only for their device (CPU if none).
    Raises ValueError for an unknown op, or where `backend` is asked for and cannot run.
    """
    contract = _contract(op)
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    device = tensors[0].device.type if tensors else "cpu"
    chosen = contract.choose(backend, device)
    refused = {}
    for name in BACKENDS:
        if name == chosen:
            continue
        reason = contract.unavailable(name, device)
        if reason is None:
            asked = backend is not None or default_backend is not None
            reason = f"{chosen} was asked for" if asked else f"{chosen} is preferred"
        refused[name] = reason
    return Explanation(op, device, chosen, refused)


def load_native(path: str | None) -> None:
    """Loads the extension at `path` (None: it was not built) and takes stock of all kernels."""
    global _native_problem
    if path is None:
        _native_problem = "the extension is not built (run `pip install .` or `make build`)"
    else:
        try:
            torch.ops.load_library(path)
            connect(path)
            cpu_isa()  # a bad DSA_CPU_ISA is an error now, not at the first op
            _native_problem = None
        except OSError as error:
            _native_problem = f"the extension does not load: {error}"
    refresh()


def refresh() -> None:
    """Takes stock of the kernels that torch has."""
    for op in OPS.values():
        op.refresh()


default_backend: str | None = os.environ.get("DSA_BACKEND") or None
if default_backend is not None and default_backend not in BACKENDS:
    raise ValueError(f"DSA_BACKEND={default_backend!r}: backends are {', '.join(BACKENDS)}")
