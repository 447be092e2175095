"""Nothing of the ALU is modelled without being tested: forms that differ from a tested one in a
modifier or a type are either tested too, or refused."""

import random
import re
from pathlib import Path
from string import Template

import pytest

import ptx_emulator
from ptx_emulator.tests.alu.forms import WIDTHS, Form
from ptx_emulator.tests.alu.kernel import HEAD, register_class
from ptx_emulator.tests.alu.table import FORMS, opcode_of

SOURCES = Path(ptx_emulator.__file__).parent / "csrc"
FILES = ("integer", "bit", "float", "half", "compare", "convert", "convert_packed", "move")
# Tested in test_move.py, as they need memory or clusters.
ELSEWHERE = {"cvta", "isspacep", "mapa", "getctarank"}
TYPES = (*WIDTHS, "f32x2", "e2m1x2", "ue8m0x2")
MODIFIERS = sorted(
    {m for f in FORMS for m in f.word.split(".")[1:] if m not in WIDTHS}
    | {"rs", "oob", "scaled", "unknown", "x"}
)
MOST = 250  # forms of an opcode whose neighbours are tried


def test_opcodes_have_forms():
    registered = {
        name
        for file in FILES
        for name in re.findall(r'ops\["(\w+)"\]', (SOURCES / f"ops_{file}.cpp").read_text())
    }
    assert registered - ELSEWHERE == {opcode_of(f.word) for f in FORMS}


def replaced(form, words, kinds):
    """The form with other words and operands of other types, or None if it makes no sense."""
    new = ".".join(words)

    def change(kind):
        return kinds.get(kind.split(":")[0], kind)

    outs, ins = (tuple(change(k) for k in ks) for ks in (form.outs, form.ins))
    if any(k.split(":")[0] not in WIDTHS for k in (*outs, *ins)):
        return None
    return Form(new, outs, ins, None, form.body.replace(form.word + " ", new + " "))


def neighbours(form):
    words = form.word.split(".")
    for i in range(1, len(words)):
        yield replaced(form, words[:i] + words[i + 1 :], {})
        if words[i] in WIDTHS:
            for t in TYPES:
                changed = [*words[:i], t, *words[i + 1 :]]
                yield replaced(form, changed, {words[i]: t} if t in WIDTHS else {})
                yield replaced(form, changed, {})
                if words.count(words[i]) > 1:
                    every = [t if w == words[i] else w for w in words]
                    yield replaced(form, every, {words[i]: t})
        else:
            for m in MODIFIERS:
                yield replaced(form, [*words[:i], m, *words[i + 1 :]], {})
    for m in MODIFIERS:
        yield replaced(form, [words[0], m, *words[1:]], {})


def declared(form):
    lines = ["{", ".reg .b32 %t0;"]
    names = {}
    for prefix, kinds in (("d", form.outs), ("s", form.ins)):
        for i, kind in enumerate(kinds):
            lines.append(f".reg .{register_class(kind)} %{prefix}{i};")
            names[f"d{i}" if prefix == "d" else "abce"[i]] = f"%{prefix}{i}"
    text = Template(form.text).substitute(names, t0="%t0", g="")
    # One line, so that what is refused is known by it.
    return " ".join([*lines, text.replace("\n", " "), "}"])


def canonical(word):
    """Without regard to the order of modifiers other than types, which the ISA fixes anyway."""
    opcode, *words = word.split(".")
    types = [w for w in words if w in TYPES]
    return (opcode, tuple(types), tuple(sorted(w for w in words if w not in TYPES)))


KNOWN = {canonical(f.word) for f in FORMS}


@pytest.mark.parametrize("opcode", sorted({opcode_of(f.word) for f in FORMS}))
def test_neighbours_of_forms_are_tested_or_refused(opcode):
    base = [f for f in FORMS if opcode_of(f.word) == opcode]
    if len(base) > MOST:
        base = random.Random(opcode).sample(base, MOST)
    candidates = {}
    for form in base:
        for n in neighbours(form):
            if n is not None and canonical(n.word) not in KNOWN:
                candidates.setdefault((n.word, n.outs, n.ins), n)
    lines = HEAD.count("\n") + 2
    text = HEAD + ".visible .entry forms()\n{\n"
    by_line = {}
    for i, form in enumerate(candidates.values()):
        by_line[lines + 1 + i] = form
        text += declared(form) + "\n"
    refused = {line for line, _, _ in ptx_emulator.Module(text + "ret;\n}\n").unsupported}
    accepted = sorted({f.word for line, f in by_line.items() if line not in refused})
    assert not accepted, f"modelled, but not tested: {accepted[:40]} ({len(accepted)})"
