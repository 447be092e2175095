"""Texts that are no PTX, or hardly, have one error and a line: none hangs, crashes or runs."""

import pytest

from ptx_emulator import EmulatorError, LimitError, Module, Unsupported

from .ptx_kernel import HEADER, kernel

BEGIN = HEADER.format(target="sm_90a")


def in_kernel(body):
    return f"{BEGIN}.visible .entry k() {{ {body} }}\n"


@pytest.mark.parametrize(
    "text, message",
    [
        ("\n", "expected .version and .target"),
        (".version 9.0\n.address_size 64\n", "expected .version and .target"),
        (BEGIN + '.pragma "nounroll"', "expected ';'"),
        (BEGIN + ".alias a, b", "expected ';'"),
        (BEGIN + '.visible .entry k() .pragma "nounroll"', "expected ';'"),
        (in_kernel('.pragma "nounroll"'), "expected ';'"),
        (in_kernel("p: .callprototype _ ()"), "expected ';'"),
        (in_kernel("L: bra L; L: ret;"), "line 4: label L is defined twice"),
        (in_kernel(".reg .b32 %r; .reg .b64 %r; ret;"), "%r is declared twice"),
        (in_kernel("ret;") + in_kernel("trap;"), "line 8: k is defined twice"),
        (in_kernel(".reg .b32 %r<4294967297>;"), "expected a number up to"),
        (in_kernel(".reg .b32 %r<-1>;"), "expected a number up to"),
        (BEGIN + ".global .b32 a[4611686018427387904];", "expected a number up to"),
        (BEGIN + ".global .b8 a[65536][65536][65536][65536];", "too many elements"),
        (BEGIN + ".global .b32 a[2] = {1, 2, 3};", "a has fewer elements than its initialiser"),
        (BEGIN + ".global .align 3 .b32 a;", "expected a power of two"),
        (BEGIN + ".visible .entry k() .reqntid 0 { ret; }", "greater than 0"),
        (BEGIN + ".visible .entry k() .maxntid 99999, 99999, 99999 { ret; }", "up to 1024"),
        (in_kernel(".reg .b32 %r; mov.b32 %r, " + "(" * 10**6), "nested too deep"),
        (in_kernel(".reg .b32 %r; mov.b32 %r, " + "{" * 10**6), "nested too deep"),
        (in_kernel(".reg .b32 %r; mov.b32 %r, 1" + " - -" * 10**6), "nested too deep"),
        (BEGIN + ".global .b32 a[1] = " + "{" * 10**6, "nested too deep"),
        ("// größe\n" + BEGIN + "größe", "line 5: expected a directive"),
    ],
)
def test_what_is_no_ptx_is_an_error(text, message):
    with pytest.raises(EmulatorError, match="this is no PTX: ") as raised:
        Module(text + "\n")
    assert message in str(raised.value)


def test_every_beginning_of_a_module_loads_or_is_an_error():
    text = kernel("@%p1 bra L; mov.b64 {%r1, %r2}, %rd1; L: st.global.v2.b32 [%rd2+4], {1, -0f2};")
    for end in range(len(text)):
        try:
            Module(text[:end] + "\n")
        except EmulatorError as error:
            assert "this is no PTX: " in str(error)


@pytest.mark.parametrize("target", ["sm_100a", "sm_120", "gfx942", "sm_"])
def test_other_targets_are_not_modelled(target):
    module = Module(kernel("ret;", target=target))
    assert module.unsupported == [(2, target, "targets are modelled up to sm_90a")]
    with pytest.raises(Unsupported, match=target):
        module.launch("k", 1, 32, [])


@pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_89", "sm_90", "sm_90a"])
def test_targets_that_sm_90a_runs_are_modelled(target):
    Module(kernel("ret;", target=target)).launch("k", 1, 32, [])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: "// größe 大\n" + text,
        lambda text: text.replace(" ", "\t \t"),
    ],
    ids=["CRLF", "BOM", "UTF-8", "blanks"],
)
def test_spelling_of_files_does_not_matter(change, tmp_path):
    path = tmp_path / "größe.ptx"
    path.write_bytes(change(kernel("ret;")).encode())
    Module(path).launch("k", 1, 32, [])
    Module(change(kernel("ret;"))).launch("k", 1, 32, [])


def test_local_memory_is_limited():
    module = Module(kernel(".local .b8 a[524289]; ret;"))
    with pytest.raises(LimitError, match="local memory of a thread"):
        module.launch("k", 1, 32, [])


def test_modules_without_kernels_and_kernels_without_arguments():
    assert Module(BEGIN).kernels == {}
    launch = Module(in_kernel("ret;")).launch("k", (2, 3), (1, 2, 3), [], profile=True)
    assert launch.stats["warp_instructions"] == 6
    assert "k, sm_90a" in launch.profile.report()


def test_registers_that_nothing_uses_take_no_place():
    Module(in_kernel(".reg .b32 %r<2000000000>; mov.b32 %r1999999999, 1; ret;")).launch(
        "k", 1, 32, []
    )
