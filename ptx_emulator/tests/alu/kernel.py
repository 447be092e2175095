"""A PTX kernel that runs forms over the same operands, in several ways, and stores the results."""

from dataclasses import dataclass
from string import Template

from .forms import Form, width

HEAD = """.version 8.7
.target sm_90a
.address_size 64
"""
SENTINEL = 0x5AC3965A_A53C695A


def register_class(kind):
    bits = width(kind)
    return "pred" if bits == 1 else f"b{bits}"


@dataclass(frozen=True)
class Run:
    """How a form is run: as it is, with a result in the register of a source, or in some lanes."""

    form: Form
    masked: bool = False
    alias: tuple[int, int] | None = None  # result, source


def runs_of(form):
    yield Run(form)
    yield Run(form, masked=True)
    for d, out in enumerate(form.outs):
        for s, source in enumerate(form.ins):
            if register_class(out) == register_class(source):
                yield Run(form, alias=(d, s))


def load(name, cls, address, slot, lanes):
    at = f"[{address}+{8 * slot * lanes}]"
    if cls == "pred":
        return f"ld.global.b32 %scratch, {at};\nsetp.ne.b32 {name}, %scratch, 0;"
    return f"ld.global.{cls} {name}, {at};"


def store(name, cls, address, slot, lanes):
    at = f"[{address}+{8 * slot * lanes}]"
    if cls == "pred":
        return f"selp.b32 %scratch, 1, 0, {name};\nst.global.b32 {at}, %scratch;"
    return f"st.global.{cls} {at}, {name};"


def instance(run, first_slot, lanes):
    form, lines = run.form, ["{"]
    sources = [f"%in{i}" for i in range(len(form.ins))]
    results = [f"%out{i}" for i in range(len(form.outs))]
    lines.append(".reg .b32 %t0;")
    for name, kind in zip(results, form.outs, strict=True):
        cls = register_class(kind)
        lines.append(f".reg .{cls} {name};")
        if run.masked and cls == "pred":
            lines.append(f"setp.eq.b32 {name}, %mask, %mask;")
        elif run.masked:
            lines.append(f"mov.{cls} {name}, {SENTINEL & ((1 << width(kind)) - 1)};")
    if run.alias:
        d, s = run.alias
        lines.append(f"mov.{register_class(form.outs[d])} {results[d]}, {sources[s]};")
        sources[s] = results[d]
    fields = dict(zip("abce", sources, strict=False))
    fields |= {f"d{i}": name for i, name in enumerate(results)}
    lines.append(
        Template(form.text).substitute(fields, t0="%t0", g="@%guard" if run.masked else "")
    )
    for i, (name, kind) in enumerate(zip(results, form.outs, strict=True)):
        lines.append(store(name, register_class(kind), "%results", first_slot + i, lanes))
    lines.append("}")
    return lines


def module(runs, kinds, lanes):
    """The text, and the first slot of each run's results."""
    lines = [
        HEAD,
        ".visible .entry forms(.param .u64 operands, .param .u64 results)",
        "{",
        ".reg .b64 %operands, %results, %at;",
        ".reg .b32 %thread, %cta, %size, %scratch, %mask;",
        ".reg .pred %guard;",
        "ld.param.u64 %operands, [operands];",
        "ld.param.u64 %results, [results];",
        "mov.u32 %thread, %tid.x;",
        "mov.u32 %cta, %ctaid.x;",
        "mov.u32 %size, %ntid.x;",
        "mad.lo.u32 %thread, %cta, %size, %thread;",
        "mul.wide.u32 %at, %thread, 8;",
        "add.u64 %operands, %operands, %at;",
        "add.u64 %results, %results, %at;",
        load("%mask", "b32", "%operands", len(kinds), lanes),
        "setp.ne.b32 %guard, %mask, 0;",
    ]
    for i, kind in enumerate(kinds):
        cls = register_class(kind)
        lines.append(f".reg .{cls} %in{i};")
        lines.append(load(f"%in{i}", cls, "%operands", i, lanes))
    slots, slot = [], 0
    for run in runs:
        slots.append(slot)
        lines += instance(run, slot, lanes)
        slot += len(run.form.outs)
    lines += ["ret;", "}"]
    return "\n".join(lines) + "\n", slots, slot
