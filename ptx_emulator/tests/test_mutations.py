"""The mutator's catalogue: what each entry finds in a text, and what it makes of it."""

import difflib

import pytest

from ptx_emulator import Module
from ptx_emulator._catalogue import CATALOGUE
from ptx_emulator._mutations import mutations
from ptx_emulator._statements import PtxText

HEADER = """.version 8.6
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 bytes[];
.visible .entry k(.param .u64 a)
{
.reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<40>; .reg .f32 %f<40>; .reg .b64 %rd<20>;
"""

# One of each instruction that some entry is about, and some that none is.
BODY = """
mbarrier.init.shared::cta.b64 [%r1], 4;
{ .reg .pred P1; LAB_WAIT: mbarrier.try_wait.parity.shared::cta.b64 P1, [%r1], %r2; @P1 bra DONE;
bra LAB_WAIT; DONE: }
mbarrier.test_wait.acquire.cluster.shared::cta.b64 %p1, [%r1], %rd1; // mbarrier.test_wait of old
@%p2 mbarrier.arrive.shared::cta.b64 %rd1, [%r1];
mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r1];
mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], %r3;
mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [%r1];
mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r1], 512;
cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r1];
cp.async.cg.shared.global [%r4], [%rd2], 16;
cp.async.commit_group;
cp.async.wait_group 2;
cp.async.wait_all;
cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster \
[%r4], [%rd2, {%r5, %r6}], [%r1], %h1;
cp.async.bulk.tensor.2d.global.shared::cta.bulk_group .L2::cache_hint \
[%rd2, {%r5, %r6}], [%r4], %rd3;
cp.async.bulk.commit_group ;
cp.async.bulk.wait_group.read 0;
mapa.shared::cluster.u32 %r7, %r1, %r8;
wgmma.fence.sync.aligned;
wgmma.commit_group.sync.aligned;
wgmma.wait_group.sync.aligned 1;
bar.sync 0;
@!%p3 bar.sync 3, 128;
barrier.sync.aligned %r9, %r10;
bar.arrive 3, 128;
bar.red.popc.u32 %r9, 0, %p1;
bar.warp.sync -1;
barrier.cluster.arrive.release.aligned;
barrier.cluster.wait.acquire.aligned;
fence.proxy.async.shared::cta;
fence.mbarrier_init.release.cluster;
fence.acq_rel.gpu;
membar.cta;
ld.acquire.gpu.global.u32 %r11, [%rd4];
st.release.sys.global.u32 [%rd4], %r11;
st.volatile.shared.u32 [%r4], %r11;
st.local.u32 [%r4], %r11;
stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r4], {%r11};
red.global.add.u32 [%rd4], %r11;
atom.global.add.noftz.f16x2 %r11, [%rd4], %r11;
atom.acq_rel.gpu.global.cas.b64 %rd5, [%rd4], %rd5, %rd6;
atom.shared.add.u32 %r11, [%r4], 1;
ret;
}
"""


def changed(type, compute, statement):
    return f"{{ .reg .{type} mutated; {compute}; {statement} }}"


WAIT = "mbarrier.try_wait.parity.shared::cta.b64 P1, [%r1], {};"
EXPECT = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], {};"
ALL_THREADS = (
    "mov.u32 mutated, %ntid.x; mov.u32 factor, %ntid.y; mul.lo.u32 mutated, mutated, factor; "
    "mov.u32 factor, %ntid.z; mul.lo.u32 mutated, mutated, factor; "
    "add.u32 mutated, mutated, 31; and.b32 mutated, mutated, -32;"
)
MULTICAST = (
    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
    ".multicast::cluster [%r4], [%rd2, {{%r5, %r6}}], [%r1], {};"
)
CLUSTER_BARRIER = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;"

# What each kind is to find in BODY, and what is to become of it.
EXPECTED = {
    "never wait for mbarrier": ["mov.pred P1, 1;", "mov.pred %p1, 1;"],
    "other parity": [changed("b32", "xor.b32 mutated, %r2, 1", WAIT.format("mutated"))],
    "relaxed wait": [
        "mbarrier.try_wait.parity.relaxed.cta.shared::cta.b64 P1, [%r1], %r2;",
        "mbarrier.test_wait.relaxed.cluster.shared::cta.b64 %p1, [%r1], %rd1;",
    ],
    "relaxed arrive": [
        "@%p2 mbarrier.arrive.relaxed.cta.shared::cta.b64 %rd1, [%r1];",
        "mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [%r1];",
        "mbarrier.arrive.expect_tx.relaxed.cta.shared::cta.b64 _, [%r1], %r3;",
    ],
    "drop arrive": [
        ("@%p2 mbarrier.arrive.shared::cta.b64 %rd1, [%r1];", ""),
        ("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r1];", ""),
        ("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], %r3;", ""),
        ("mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [%r1];", ""),
        ("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%r1];", ""),
    ],
    "arrive without expect_tx": ["mbarrier.arrive.shared::cta.b64 _, [%r1];"],
    "drop expect_tx": [("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r1], 512;", "")],
    "other expect_tx": [
        changed("b32", "add.s32 mutated, %r3, 16", EXPECT.format("mutated")),
        changed("b32", "add.s32 mutated, %r3, -16", EXPECT.format("mutated")),
        changed(
            "b32",
            "add.s32 mutated, 512, 16",
            "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r1], mutated;",
        ),
        changed(
            "b32",
            "add.s32 mutated, 512, -16",
            "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%r1], mutated;",
        ),
    ],
    "drop mbarrier.init": [("mbarrier.init.shared::cta.b64 [%r1], 4;", "")],
    "other mbarrier count": [
        changed("b32", f"add.s32 mutated, 4, {n}", "mbarrier.init.shared::cta.b64 [%r1], mutated;")
        for n in (1, -1)
    ],
    "drop copy": [
        ("cp.async.cg.shared.global [%r4], [%rd2], 16;", ""),
        (MULTICAST.format("%h1"), ""),
        (
            "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group.L2::cache_hint "
            "[%rd2, {%r5, %r6}], [%r4], %rd3;",
            "",
        ),
    ],
    "drop commit": [
        ("cp.async.commit_group;", ""),
        ("cp.async.bulk.commit_group;", ""),
        ("wgmma.commit_group.sync.aligned;", ""),
    ],
    "drop wait_group": [
        ("cp.async.wait_group 2;", ""),
        ("cp.async.wait_all;", ""),
        ("cp.async.bulk.wait_group.read 0;", ""),
        ("wgmma.wait_group.sync.aligned 1;", ""),
    ],
    "wait for one group less": [
        "cp.async.wait_group 3;",
        "cp.async.bulk.wait_group.read 1;",
        "wgmma.wait_group.sync.aligned 2;",
    ],
    "other multicast": [
        changed(
            "b16",
            "sub.u16 mutated, %h1, 1; and.b16 mutated, mutated, %h1",
            MULTICAST.format("mutated"),
        )
    ],
    "other mapa rank": ["mapa.shared::cluster.u32 %r7, %r1, 0;"],
    "drop wgmma.fence": [("wgmma.fence.sync.aligned;", "")],
    "drop bar.sync": [
        ("bar.sync 0;", ""),
        ("@!%p3 bar.sync 3, 128;", ""),
        ("barrier.sync.aligned %r9, %r10;", ""),
    ],
    "drop bar.arrive": [("bar.arrive 3, 128;", "")],
    "arrive, no wait": [
        f"{{ .reg .b32 mutated, factor; {ALL_THREADS} bar.arrive 0, mutated; }}",
        "@!%p3 bar.arrive 3, 128;",
        "barrier.arrive.aligned %r9, %r10;",
    ],
    "other barrier count": [
        changed("b32", f"add.s32 mutated, {count}, {n}", statement)
        for count, statement in [
            ("128", "@!%p3 bar.sync 3, mutated;"),
            ("%r10", "barrier.sync.aligned %r9, mutated;"),
            ("128", "bar.arrive 3, mutated;"),
        ]
        for n in (32, -32)
    ],
    "other barrier": [
        "@!%p3 bar.sync 0, 128;",
        "barrier.sync.aligned 0, %r10;",
        "bar.arrive 0, 128;",
    ],
    "drop bar.warp.sync": [("bar.warp.sync -1;", "")],
    "drop barrier.cluster": [(CLUSTER_BARRIER, "")],
    "relaxed barrier.cluster": ["barrier.cluster.arrive.relaxed.aligned;"],
    "drop fence.proxy": [("fence.proxy.async.shared::cta;", "")],
    "drop fence.mbarrier_init": [("fence.mbarrier_init.release.cluster;", "")],
    "drop fence": [("fence.acq_rel.gpu;", ""), ("membar.cta;", "")],
    "narrower fence": ["fence.acq_rel.cta;"],
    "relaxed access": [
        "ld.relaxed.gpu.global.u32 %r11, [%rd4];",
        "st.relaxed.sys.global.u32 [%rd4], %r11;",
        "atom.relaxed.gpu.global.cas.b64 %rd5, [%rd4], %rd5, %rd6;",
    ],
    "weak access": ["st.shared.u32 [%r4], %r11;"],
    "narrower access": [
        "ld.acquire.cta.global.u32 %r11, [%rd4];",
        "st.release.cta.global.u32 [%rd4], %r11;",
        "red.cta.global.add.u32 [%rd4], %r11;",
        "atom.cta.global.add.noftz.f16x2 %r11, [%rd4], %r11;",
        "atom.acq_rel.cta.global.cas.b64 %rd5, [%rd4], %rd5, %rd6;",
    ],
    "drop store": [
        ("st.release.sys.global.u32 [%rd4], %r11;", ""),
        ("st.volatile.shared.u32 [%r4], %r11;", ""),
        ("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r4], {%r11};", ""),
        ("red.global.add.u32 [%rd4], %r11;", ""),
    ],
    "drop atomic": ["mov.b32 %r11, 0;", "mov.b64 %rd5, 0;", "mov.b32 %r11, 0;"],
}

D = ", ".join(f"%f{i}" for i in range(32))
WGMMA = "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16"


def mma(scale_d, *flags):
    return f"{WGMMA} {{{D}}}, %rd8, %rd9, {scale_d}, {', '.join(map(str, flags))};"


# Addresses in shared memory and descriptors, and the same arithmetic for other ends.
ARITHMETIC = f"""
and.b32 %r1, %r0, 24;
shl.b32 %r2, %r1, 4;
xor.b32 %r3, %r2, %r9;
add.u32 %r3, %r3, 1024;
st.shared.u32 [%r3+16], %r20;
and.b32 %r20, %r0, 24;
xor.b32 %r21, %r20, 5;
shl.b32 %r22, %r21, 4;
cvt.u64.u32 %rd1, %r2;
or.b64 %rd8, %rd1, 4611686293305360384;
mov.u32 %r30, 1073741888;
mov.b64 %rd9, {{%r2, %r30}};
or.b64 %rd10, %rd1, 4611686293305360384;
{mma("%p1", 1, 1, 0, 1)}
ret;
}}
"""

ARITHMETIC_EXPECTED = {
    "drop address xor": ["mov.b32 %r3, %r2;"],
    "other address mask": ["and.b32 %r1, %r0, 16;"],
    "other address shift": ["shl.b32 %r2, %r1, 3;"],
    "other descriptor swizzle": [
        "or.b64 %rd8, %rd1, 0x8000004000010000;",
        "mov.u32 %r30, 0x80000040;",
    ],
    "other descriptor stride": [
        "or.b64 %rd8, %rd1, 0x4000002000010000;",
        "mov.u32 %r30, 0x40000020;",
    ],
    "other descriptor leading": ["or.b64 %rd8, %rd1, 0x4000004000020000;"],
    "other wgmma scale": [
        changed("pred", "not.pred mutated, %p1", mma("mutated", 1, 1, 0, 1)),
        mma("%p1", -1, 1, 0, 1),
        mma("%p1", 1, -1, 0, 1),
    ],
    "other wgmma major": [mma("%p1", 1, 1, 1, 1), mma("%p1", 1, 1, 0, 0)],
}


def found(text, kind):
    return [m for m in mutations(text) if m.kind == kind]


def test_every_entry_is_tested():
    assert {*EXPECTED, *ARITHMETIC_EXPECTED} == set(CATALOGUE)


@pytest.mark.parametrize("kind", CATALOGUE)
def test_finds_and_changes_what_it_should(kind):
    body, expected = BODY, EXPECTED.get(kind)
    if expected is None:
        body, expected = ARITHMETIC, ARITHMETIC_EXPECTED[kind]
    made = found(HEADER + body, kind)
    befores = [e[0] for e in expected if isinstance(e, tuple)]
    if befores:
        assert [m.before for m in made] == befores
    assert [m.after for m in made] == [e[1] if isinstance(e, tuple) else e for e in expected]


@pytest.mark.parametrize("body", [BODY, ARITHMETIC])
def test_changes_nothing_else(body):
    text = HEADER + body
    for m in mutations(text):
        lines = text.splitlines()
        differ = [
            d
            for d in difflib.ndiff(lines, m.apply(text).splitlines())
            if d[0] in "+-" and d[1:].strip()
        ]
        removed = [d[2:] for d in differ if d[0] == "-"]
        assert len(removed) == len(m.edits) and lines[m.line - 1] in removed
        left = " ".join(" ".join(removed).split())
        for statement in m.before.split(";")[:-1]:
            # The same, but for blanks.
            assert statement.replace(" ", "") in left.replace(" ", "")


@pytest.mark.parametrize("body", [BODY, ARITHMETIC])
def test_mutants_can_be_loaded(body):
    text = HEADER + body
    assert not Module(text).unsupported
    for m in mutations(text):
        assert not Module(m.apply(text)).unsupported, m


def test_comments_strings_and_directives_are_no_statements():
    text = HEADER.replace(".address_size", '.file 1 "bar.sync 0;"\n.address_size') + (
        "// bar.sync 0;\n/* bar.sync 0;\nbar.sync 0; */\n.loc 1 7 3\nL: bar.sync 0; ret;\n}\n"
        ".section .debug_str\n{\ninfo: .b8 98,97\n}\n"
    )
    parsed = PtxText(text)
    assert [s.opcode for s in parsed.statements] == ["bar.sync", "ret"]
    assert text.splitlines()[parsed.statements[0].line - 1].startswith("L:")


def test_registers_of_another_function_are_others():
    body = "xor.b32 %r1, %r1, 3; st.shared.u32 [%r1], %r2; ret; }\n"
    other = HEADER.replace(" k(", " other(").splitlines()[4:]
    text = (
        HEADER + body + "\n".join(other) + "\nxor.b32 %r1, %r1, 3; st.shared.u32 [%r2], %r1; ret; }"
    )
    assert len(found(text, "drop address xor")) == 1


def test_sources_are_told_from_the_innermost_call():
    text = HEADER + (
        '.file 1 "k.cu"\n.file 2 "ptx.cuh"\n.loc 1 40 3\nbar.sync 0;\n.loc 1 20 5, function_name '
        "$L__info0, inlined_at 1 40 3\n.loc 2 9 3, function_name $L__info1, inlined_at 1 20 5\n"
        "wgmma.fence.sync.aligned;\nret;\n}"
    )
    sources = {m.kind: m.source for m in mutations(text)}
    assert sources["drop bar.sync"] == (("k.cu", 40),)
    assert sources["drop wgmma.fence"] == (("ptx.cuh", 9), ("k.cu", 20), ("k.cu", 40))
