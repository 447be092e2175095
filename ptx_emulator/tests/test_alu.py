"""Every form of every ALU opcode, bit by bit, against references written from the PTX ISA."""

import random
import shutil
import subprocess

import numpy as np
import pytest

import ptx_emulator
from ptx_emulator.tests.alu.forms import width
from ptx_emulator.tests.alu.kernel import SENTINEL, module, runs_of
from ptx_emulator.tests.alu.numbers import FORMATS, is_nan
from ptx_emulator.tests.alu.operands import LANES, lanes
from ptx_emulator.tests.alu.table import FORMS, GROUPS, opcode_of


def masks(rng):
    """Full, empty and mixed warps."""
    rows = []
    for warp in range(LANES // 32):
        bits = [0xFFFFFFFF, 0, 1 << rng.randrange(32)][warp] if warp < 3 else rng.getrandbits(32)
        rows += [bits >> lane & 1 for lane in range(32)]
    return rows


def run(forms, name):
    """Operands of each lane, its mask, and (run, codes of the results of each lane)."""
    kinds = forms[0].ins
    rng = random.Random(name)
    rows, mask = lanes(kinds, name), masks(rng)
    runs = [r for form in forms for r in runs_of(form)]
    text, slots, count = module(runs, kinds, LANES)
    operands = np.zeros((len(kinds) + 1, LANES), np.uint64)
    for i in range(len(kinds)):
        operands[i] = [row[i] for row in rows]
    operands[-1] = mask
    results = np.zeros((count, LANES), np.uint64)
    ptx_emulator.Module(text).launch(
        "forms", grid=LANES // 128, block=128, args=[operands, results], races=False
    )
    results = results.tolist()
    return (
        rows,
        mask,
        [
            (r, list(zip(*results[slot : slot + len(r.form.outs)], strict=True)))
            for r, slot in zip(runs, slots, strict=True)
        ],
    )


def matches(form, expected, got):
    if form.accept:
        return form.accept(*expected, got)
    for kind, e, g in zip(form.outs, expected, got, strict=True):
        fmt = FORMATS.get(form.nan or kind)
        if not (g < 1 << fmt.width and is_nan(g, fmt) if e is None else e == g):
            return False
    return True


def show(codes, kinds):
    return " ".join(
        "any NaN" if c is None else f"{c:#0{2 + (width(k) + 3) // 4}x}"
        for c, k in zip(codes, kinds, strict=True)
    )


@pytest.mark.parametrize("name", GROUPS)
def test_forms(name):
    forms = GROUPS[name]
    rows, mask, all_results = run(forms, name)
    expected = {}
    for form in forms:
        if form.accept:
            expected[form] = [(row,) for row in rows]
        else:
            expected[form] = [form.reference(*row) for row in rows]
    wrong = []
    for r, results in all_results:
        form = r.form
        kept = tuple(SENTINEL & ((1 << width(k)) - 1) if k != "pred" else 1 for k in form.outs)
        for row, on, want, got in zip(rows, mask, expected[form], results, strict=True):
            if matches(form, want, got) if on or not r.masked else got == kept:
                continue
            way = "masked" if r.masked else f"alias {r.alias}" if r.alias else "plain"
            want = "" if form.accept else f", not {show(want, form.outs)}"
            text = form.text.replace("$g ", "")
            wrong.append(f"{text} ({way}) of {show(row, form.ins)}: {show(got, form.outs)}{want}")
            break  # one lane of each run is enough
    assert not wrong, f"{len(wrong)} of {len(all_results)} runs:\n" + "\n".join(wrong[:40])


@pytest.mark.skipif(not shutil.which("ptxas"), reason="needs ptxas")
@pytest.mark.parametrize("opcode", sorted({opcode_of(f.word) for f in FORMS}))
def test_forms_are_ptx(opcode, tmp_path):
    """The forms that are tested are PTX for sm_90a, as its own assembler sees it."""
    wrong = []
    for name, forms in GROUPS.items():
        if not name.startswith(opcode + "("):
            continue
        path = tmp_path / "forms.ptx"
        # ptxas 13.0 crashes on a guarded setp with a sink.
        runs = [
            r
            for form in forms
            for r in runs_of(form)
            if not (r.masked and opcode == "setp" and "_|" in form.text)
        ]
        path.write_text(module(runs, forms[0].ins, LANES)[0])
        command = ["ptxas", "-arch=sm_90a", "-O0", str(path), "-o", str(tmp_path / "forms.cubin")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            wrong.append(f"{name}: {done.stderr[:600]}")
    assert not wrong, "\n".join(wrong)
