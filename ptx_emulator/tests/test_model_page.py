"""docs/model.md names every opcode that is modelled, and what it calls refused is refused."""

import re
from pathlib import Path

import pytest

import ptx_emulator
from ptx_emulator import Module

from .ptx_kernel import kernel

PACKAGE = Path(ptx_emulator.__file__).parent
PAGE = (PACKAGE / "docs" / "model.md").read_text()
MAP = ".param .u64 map"
REFUSED = {
    "tcgen05.alloc": "tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%r1], 64;",
    "tcgen05.mma": "tcgen05.mma.cta_group::1.kind::f16 [%r1], %rd1, %rd2, %r2, %p1;",
    "add.f32x2": "add.rn.f32x2 %rd1, %rd2, %rd3;",
    "cvt.e2m1x2": "cvt.rn.satfinite.e2m1x2.f32 %h1, %f1, %f2;",
    "clusterlaunchcontrol.try_cancel": "clusterlaunchcontrol.try_cancel.async.b128 [%r1], [%r2];",
    "tex.2d": "tex.2d.v4.f32.s32 {%f1, %f2, %f3, %f4}, [%rd1, {%r1, %r2}];",
    "tld4.r": "tld4.r.2d.v4.f32.f32 {%f1, %f2, %f3, %f4}, [%rd1, {%f5, %f6}];",
    "sust.b": "sust.b.1d.b32.trap [%rd1, {%r1}], {%r2};",
    "suld.b": "suld.b.1d.b32.trap {%r2}, [%rd1, {%r1}];",
    "txq.width": "txq.width.b32 %r1, [%rd1];",
    "wmma.mma": (
        "wmma.mma.sync.aligned.row.col.m8n8k4.f64.f64 {%fd1, %fd2}, {%fd3}, {%fd4}, {%fd1};"
    ),
    "mma.sp": (
        "mma.sp.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r1, %r2}, {%r3, %r4}, {%r5, "
        "%r6}, {%r1, %r2}, %r7, 0x0;"
    ),
    "mma.s4": (
        "mma.sync.aligned.m8n8k32.row.col.s32.s4.s4.s32 {%r1, %r2}, {%r3}, {%r4}, {%r1, %r2};"
    ),
    "mma.b1": (
        "mma.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32.xor.popc {%r1, %r2}, {%r3}, {%r4}, "
        "{%r1, %r2};"
    ),
    "wgmma.sp": (
        "wgmma.mma_async.sp.sync.aligned.m64n8k32.f32.f16.f16 {%f1, %f2, %f3, %f4}, %rd1, "
        "%rd2, %r1, 0, %p1, 1, 1, 0, 0;"
    ),
    "wgmma.b1": (
        "wgmma.mma_async.sync.aligned.m64n8k256.s32.b1.b1.and.popc {%r1, %r2, %r3, %r4}, "
        "%rd1, %rd2, %p1;"
    ),
    "ldmatrix.b8": "ldmatrix.sync.aligned.m16n16.x1.trans.shared.b8 {%r1, %r2}, [%r3];",
    "cp.async.bulk.tensor.im2col": (
        "cp.async.bulk.tensor.3d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
        "[%r1], [%rd1, {%r2, %r3, %r4}], [%r5], {%h1};"
    ),
    "cp.async.bulk.tensor.tile::gather4": (
        "cp.async.bulk.tensor.2d.shared::cta.global.tile::gather4.mbarrier::complete_tx::bytes"
        " [%r1], [%rd1, {%r2, %r3, %r4, %r5, %r6}], [%r7];"
    ),
    "multimem.ld_reduce": "multimem.ld_reduce.relaxed.gpu.global.add.f32 %f1, [%rd1];",
    "discard": "discard.global.L2 [%rd1], 128;",
    "applypriority": "applypriority.global.L2::evict_normal [%rd1], 128;",
    "alloca": "alloca.u64 %rd1, %rd2;",
    "createpolicy.range": "createpolicy.range.global.L2::evict_last.b64 %rd1, [%rd2], %r1, %r2;",
    "fns": "fns.b32 %r1, %r2, %r3, %r4;",
    "vadd": "vadd.s32.s32.s32 %r1, %r2, %r3;",
    "fma.oob": "fma.rn.oob.f16 %h1, %h2, %h3, %h4;",
    "pmevent": "pmevent 1;",
    "brkpt": "brkpt;",
    "istypep": "istypep.texref %p1, %rd1;",
    "shfl": "shfl.up.b32 %r1, %r2, 1, 0;",
    "vote": "vote.all.pred %p1, %p2;",
    "call": (
        "call (%r1), %rd1, (%r2), prototype;\n"
        "prototype: .callprototype (.param .b32 _) _ (.param .b32 _);"
    ),
}
# Beside instructions.
NOT_OPCODES = {".sync", "malloc", ".target", "grid_group::sync()"}


def section(title):
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def registered():
    files = sorted((PACKAGE / "csrc").glob("ops_*.cpp"))
    return {name for f in files for name in re.findall(r'ops\["([\w.]+)"\]', f.read_text())}


def opcodes_column():
    rows = [line.split("|") for line in section("Modelled").splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall(r"`([a-z][\w.]*)`", row[2])}


def test_the_table_names_every_opcode():
    assert opcodes_column() - {"call"} == registered()


def test_every_example_of_the_page_is_tried():
    examples = set(re.findall(r"`([^`]+)`", section("Refused").split("\n|---")[1]))
    assert examples - NOT_OPCODES == set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_page_calls_refused_is(name):
    module = Module(kernel(REFUSED[name] + "\nret;", MAP))
    assert module.unsupported
    text = " ".join(text for _, text, _ in module.unsupported)
    assert name.split(".")[0] in text


@pytest.mark.parametrize(
    "before, body, reason",
    [
        (
            ".extern .func (.param .b64 p) malloc (.param .b64 n);",
            "{ .param .b64 n; .param .b64 p; call.uni (p), malloc, (n); }",
            "no body of function malloc",
        ),
        (".extern .global .u32 elsewhere;", "", "external variable"),
        (".func loop() { call.uni loop, (); ret; }", "call.uni loop, ();", "recursive"),
        (".func f() { ret; }\n.global .u64 table[1] = {f};", "", "initialised with f"),
    ],
    ids=["external function", "external variable", "recursion", "address of a function"],
)
def test_refused_at_the_level_of_the_module(before, body, reason):
    module = Module(kernel(body + " ret;", "", before=before))
    assert any(reason in f"{text}: {why}" for _, text, why in module.unsupported)
