"""Counts, roles, loops and bounds of profiles, against what is known of the kernels."""

import json

import numpy as np
import pytest

from ptx_emulator import Module, machine_model
from ptx_emulator._instructions import class_of, pipe_of

from . import (
    test_attention,
    test_cluster,
    test_gemm_cp_async,
    test_gemm_ring,
    test_split_k,
    test_topk,
)
from .case import SCHEDULES
from .compile import KERNELS
from .profiled import by_opcode, only, profiled

CASES = {
    "gemm_ring": lambda: test_gemm_ring.case(256, 128, 640),
    "attention": lambda: test_attention.case(1, 256),
    "split_k": lambda: test_split_k.case(64, 64, 1024, 8, launches=1),
    "gemm_cp_async": lambda: test_gemm_cp_async.case(128, 64, 256),
    "cluster": lambda: test_cluster.case(256, 128, 448),
    "topk": lambda: test_topk.case(3, 1000, 64),
}


def run(name, **options):
    made = CASES[name]()
    return made.run(Module(made.ptx), **{"profile": True, **options}).profile


def as_json(profile):
    return json.dumps(profile.as_dict())


def test_counts_of_a_loop():
    """Two warps of three CTAs go round five times; warp 1's add has no lane."""
    profile = profiled(
        """
        mov.u32 %r1, 0;
        setp.lt.u32 %p2, %r0, 32;
        LOOP: add.u32 %r1, %r1, 1;
        @%p2 add.u32 %r2, %r0, 7;
        setp.lt.u32 %p1, %r1, 5;
        @%p1 bra LOOP;
        ret;
        """,
        block=64,
        grid=3,
    )
    # mov: tid.x and 0; int: setp, then three of each iteration; ctrl: bra of each, ret.
    each = {"int": 1 + 3 * 5, "mov": 2, "ctrl": 5 + 1}
    assert profile.as_dict()["classes"] == {name: 6 * n for name, n in each.items()}
    assert profile.as_dict()["instructions"] == 6 * sum(each.values())
    guarded = [line for line in by_opcode(profile, "add") if line["predicated_off"]]
    assert [(line["count"], line["predicated_off"]) for line in guarded] == [(30, 15)]
    assert only(profile, "bra")["predicated_off"] == 6  # not taken
    (role,) = profile.as_dict()["roles"]
    assert (role["name"], role["warps"]) == ("all", [0, 1])
    (loop,) = role["loops"]
    assert loop["iterations_per_warp"] == 15 and loop["is_main"]
    assert loop["per_iteration"] == {"int": 3, "ctrl": 1}


def test_both_sides_of_a_divergent_branch_count_once():
    profile = profiled(
        """
        setp.lt.u32 %p1, %r0, 5;
        @%p1 bra LOW;
        add.u32 %r1, %r0, 1;
        bra END;
        LOW: sub.u32 %r1, %r0, 1;
        END: xor.b32 %r2, %r1, %r1;
        ret;
        """
    )
    assert [only(profile, op)["count"] for op in ("add", "sub", "xor", "ret")] == [1, 1, 1, 1]
    assert only(profile, "setp")["line"] < only(profile, "ret")["line"]


def test_nested_loops():
    """A while loop of 4 iterations around one with its test at the end, of 3."""
    profile = profiled(
        """
        mov.u32 %r1, 0;
        OUTER: setp.ge.u32 %p1, %r1, 4;
        @%p1 bra END;
        mov.u32 %r2, 0;
        INNER: add.u32 %r2, %r2, 1;
        mul.lo.u32 %r3, %r2, %r1;
        setp.lt.u32 %p2, %r2, 3;
        @%p2 bra INNER;
        add.u32 %r1, %r1, 1;
        bra OUTER;
        END: ret;
        """
    )
    outer, inner = profile.as_dict()["roles"][0]["loops"]
    assert (outer["iterations_per_warp"], inner["iterations_per_warp"]) == (4, 12)
    assert inner["per_iteration"] == {"int": 3, "ctrl": 1} and inner["is_main"]
    assert inner["inside"] == outer["line"] and outer["inside"] is None
    # The outer loop's own instructions; its test runs once more than its end.
    assert outer["instructions"] == 2 * 5 + 4 + 2 * 4 and not outer["is_main"]


def test_a_loop_by_table_and_one_with_two_entries():
    """brx.idx makes a loop; a cycle that is entered in two places is no natural loop."""
    profile = profiled(
        """
        mov.u32 %r1, 0;
        TABLE: .branchtargets AGAIN, OUT;
        AGAIN: add.u32 %r1, %r1, 1;
        setp.ge.u32 %p1, %r1, 6;
        selp.u32 %r2, 1, 0, %p1;
        brx.idx %r2, TABLE;
        OUT: setp.eq.u32 %p2, %r1, 9;
        @%p2 bra SECOND;
        FIRST: sub.u32 %r1, %r1, 1;
        SECOND: setp.gt.u32 %p3, %r1, 2;
        @%p3 bra FIRST;
        ret;
        """
    )
    (loop,) = profile.as_dict()["roles"][0]["loops"]
    assert loop["iterations_per_warp"] == 6
    assert loop["per_iteration"] == {"int": 3, "ctrl": 1}


def test_polls_that_fail_are_told_apart():
    """Warp 1 spins until warp 0 has counted to 3000."""
    body = """
        mov.u32 %r9, flag;
        mov.u32 %r3, 0;
        setp.ge.u32 %p1, %r0, 32;
        setp.eq.u32 %p3, %r0, 0;
        @%p3 st.volatile.shared.u32 [%r9], %r3;
        bar.sync 0;
        @%p1 bra WAIT;
        mov.u32 %r1, 0;
        COUNT: add.u32 %r1, %r1, 1;
        setp.lt.u32 %p2, %r1, 3000;
        @%p2 bra COUNT;
        @%p3 st.volatile.shared.u32 [%r9], %r1;
        ret;
        WAIT: ld.volatile.shared.u32 %r2, [%r9];
        setp.eq.u32 %p4, %r2, 0;
        @%p4 bra WAIT;
        ret;
        """
    before = ".shared .align 4 .u32 flag;"
    polls = set()
    for seed in range(4):
        profile = profiled(body, block=64, before=before, seed=seed, mode="random")
        plain = profile.as_dict()
        assert [role["name"] for role in plain["roles"]] == ["other", "idle"]
        (loop,) = plain["roles"][0]["loops"]
        assert loop["iterations_per_warp"] == 3000
        assert plain["roles"][1]["loops"] == []
        values = profile.counts.values[1].sum()
        assert values == 12  # as if the flag had been there at once
        assert plain["failed_polls"] % 3 == 0
        polls.add(plain["failed_polls"])
    assert len(polls) > 1


def test_a_role_may_have_a_leader():
    """Warp 0 does a little more, warp 3 something else, in the same loop."""
    little, other = "add.u32 %r5, %r5, 1;", "xor.b32 %r6, %r6, %r1;\n" * 12
    body = f"""
        mov.u32 %r1, 0;
        setp.ge.u32 %p2, %r0, 32;
        setp.lt.u32 %p3, %r0, 96;
        LOOP: {"add.u32 %r4, %r1, %r1;" * 12}
        @%p2 bra SKIP;
        {little}
        SKIP: @%p3 bra NEXT;
        {other}
        NEXT: add.u32 %r1, %r1, 1;
        setp.lt.u32 %p1, %r1, 7;
        @%p1 bra LOOP;
        ret;
        """
    roles = profiled(body, block=128).as_dict()["roles"]
    assert [role["warps"] for role in roles] == [[0, 1, 2], [3]]
    assert [role["name"] for role in roles] == ["other 1", "other 2"]
    (loop,) = roles[0]["loops"]
    assert loop["iterations_per_warp"] == 7
    # A third of the add that only warp 0 runs.
    assert loop["per_iteration"]["int"] == pytest.approx(12 + 1 / 3 + 2, abs=1e-3)


def test_tensor_work_that_is_predicated_off_is_none():
    registers = "{%f1, %f2, %f3, %f4}"
    profile = profiled(
        f"""
        setp.lt.u32 %p1, %r0, 64;
        @%p1 mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32
            {registers}, {{%r1, %r2}}, {{%r3}}, {registers};
        """,
        block=96,
        grid=2,
    )
    assert profile.tensor == {
        "flops": 4 * 2 * 16 * 8 * 8,
        "operations": {"mma m16n8k8 f32.bf16.bf16": {"count": 4, "flops": 4 * 2 * 16 * 8 * 8}},
    }
    assert only(profile, "mma")["count"] == 6
    assert profile.bounds["cta"]["cycles"]["tensor"] == 2 * 2 * 16 * 8 * 8 / 4096


@pytest.mark.parametrize(
    "name, roles",
    [
        ("gemm_ring", {"copy": [0], "idle": [1, 2, 3], "math": list(range(4, 12))}),
        ("attention", {"copy": [0], "idle": [1, 2, 3], "math": list(range(4, 12))}),
        ("cluster", {"math": [0, 1, 2, 3], "copy": [4]}),
        ("split_k", {"all": [0, 1, 2, 3]}),
        ("gemm_cp_async", {"all": [0, 1, 2, 3]}),
    ],
)
def test_roles(name, roles):
    found = run(name).as_dict()["roles"]
    assert {role["name"]: role["warps"] for role in found} == roles
    for role in found:
        if role["name"] == "idle":
            assert role["loops"] == []
        else:
            (main,) = [loop for loop in role["loops"] if loop["is_main"]]
            file, line = main["source"].split(":")
            text = (KERNELS / file).read_text().splitlines()[int(line) - 1]
            assert text.strip().startswith("for (int")


def test_main_loops():
    """Trip counts and what a warp does each time, read off the sources."""
    roles = {role["name"]: role for role in run("gemm_ring").as_dict()["roles"]}
    main = {n: next(x for x in r["loops"] if x["is_main"]) for n, r in roles.items() if r["loops"]}
    # 4 CTAs, 640 / 64 steps.
    assert {name: loop["iterations_per_warp"] for name, loop in main.items()} == dict(
        copy=40, math=40
    )
    assert main["math"]["per_iteration"]["tensor"] == 4
    assert main["copy"]["per_iteration"]["copy"] == 2
    (role,) = run("gemm_cp_async").as_dict()["roles"]
    main = next(loop for loop in role["loops"] if loop["is_main"])
    assert main["iterations_per_warp"] == 2 * 256 / 32
    assert main["per_iteration"]["tensor"] == 2 * 2 * 4
    # 4 copies a thread in all but the last 3 of 8 steps, each of them behind a branch or not
    assert main["per_iteration"]["copy"] == 4 * 5 / 8
    (role,) = run("split_k").as_dict()["roles"]
    main = next(loop for loop in role["loops"] if loop["is_main"])
    assert main["iterations_per_warp"] == 4 * 8 * 1024 / 8 / 64
    assert main["per_iteration"]["tensor"] == 64 / 16 * 2


def test_roles_that_the_caller_names():
    profile = run("gemm_ring")
    named = profile.with_roles({"tma": [0], "first": range(4, 8), "second": range(8, 12)})
    roles = {role["name"]: role for role in named.as_dict()["roles"]}
    assert {name: role["warps"] for name, role in roles.items()} == dict(
        tma=[0], first=[4, 5, 6, 7], second=[8, 9, 10, 11], rest=[1, 2, 3]
    )
    assert roles["first"]["classes"] == roles["second"]["classes"]
    total = sum(role["instructions"] for role in roles.values())
    assert total == profile.as_dict()["instructions"]
    for wrong in ({"math": [0, 12]}, {"a": [0, 1], "b": [1]}, {"none": []}):
        with pytest.raises(ValueError, match="role"):
            profile.with_roles(wrong)


@pytest.mark.parametrize("name", ["gemm_ring", "attention", "cluster", "gemm_cp_async"])
def test_loops_and_memory_are_the_same_in_every_schedule(name):
    """What depends on the schedule is how often a poll fails, and whether lanes that part to wait
    for something meet again before the end."""
    made = CASES[name]()
    module = Module(made.ptx)
    found = set()
    for schedule in SCHEDULES:
        plain = made.run(module, profile=True, races=False, **schedule).profile.as_dict()
        loops = [(role["name"], role["warps"], role["loops"]) for role in plain["roles"]]
        found.add(json.dumps([loops, plain["tensor"], plain["memory"], plain["bounds"]["loops"]]))
    assert len(found) == 1


@pytest.mark.parametrize("name", CASES)
def test_the_same_seed_gives_the_same_profile(name):
    for options in ({"mode": "random", "seed": 3}, {"mode": "late", "seed": 1}):
        assert as_json(run(name, **options)) == as_json(run(name, **options))


def test_without_memory_all_else_is_the_same():
    whole, cheap = run("gemm_ring").as_dict(), run("gemm_ring", profile=False).as_dict()
    assert cheap["memory"] is None and cheap["bounds"] is None
    for name in ("launch", "instructions", "classes", "sources", "tensor"):
        assert whole[name] == cheap[name]
    json.dumps(cheap)


def test_sums_agree():
    plain = run("attention").as_dict()
    assert sum(plain["classes"].values()) == plain["instructions"]
    assert sum(line["count"] for line in plain["lines"]) == plain["instructions"]
    assert sum(plain["sources"].values()) <= plain["instructions"]
    for line in plain["lines"]:
        assert sum(line["by_role"].values()) == line["count"]
    for role in plain["roles"]:
        counts = [line["by_role"].get(role["name"], 0) for line in plain["lines"]]
        assert sum(counts) == role["instructions"]
    for name, count in plain["classes"].items():
        assert sum(role["classes"].get(name, 0) for role in plain["roles"]) == count


@pytest.mark.parametrize(
    "name, flops",
    [
        ("gemm_ring", 2 * 256 * 128 * 640),
        ("split_k", 2 * 64 * 64 * 1024),
        ("gemm_cp_async", 2 * 128 * 64 * 256),
        ("cluster", 2 * 256 * 128 * 448),
        ("attention", 2 * 2 * 256 * 256 * 128),
    ],
)
def test_tensor_work(name, flops):
    tensor = run(name).tensor
    assert tensor["flops"] == flops
    (operation,) = tensor["operations"]
    assert operation.startswith("mma m16n8k16" if "mma m16" in operation else "wgmma m64n64k16")
    assert operation.endswith("f32.bf16.bf16")


def test_bounds_of_a_main_loop():
    """The ring GEMM's step on H100: 128 x 64 x 64 of bf16."""
    bounds = run("gemm_ring").bounds
    loops = bounds["loops"]
    assert bounds["label"] == machine_model.LABEL == "modelled, uncalibrated"
    assert loops["iterations_per_cta"] == 10
    assert loops["cycles"]["tensor"] == 2 * 128 * 64 * 64 / 4096
    filled = (128 + 64) * 64 * 2
    assert loops["shared"]["copies"] == filled / 128
    # Each warpgroup reads 64 rows of A and the 64 of B.
    assert loops["shared"]["operands"] == 2 * (64 + 64) * 64 * 2 / 128
    assert loops["shared"]["accesses"] == 0
    assert loops["cycles"]["shared"] == 448 and loops["binds"] == "shared"
    assert loops["cycles"]["l2"] == filled / 64
    assert loops["estimates"]["l2_sustained"] == round(filled / 25, 3)


def test_bounds_of_partitions():
    """Warps 0 and 4 share a partition; 100 ex2 each take 8 cycles."""
    body = """
        setp.eq.u32 %p1, %r0, 0;
        {}
        mov.u32 %r1, 0;
        LOOP: ex2.approx.f32 %f1, %f1;
        fma.rn.f32 %f2, %f1, %f1, %f1;
        mad.lo.u32 %r2, %r1, %r1, %r1;
        add.u32 %r1, %r1, 1;
        setp.lt.u32 %p2, %r1, 100;
        @%p2 bra LOOP;
        ret;
        """
    for warps, together in ((4, 1), (5, 2), (8, 2), (9, 3)):
        loops = profiled(body.format(""), block=32 * warps, grid=2).bounds["loops"]
        assert loops["iterations_per_cta"] == 100
        units = dict(issue=6, alu=0, fma=1, mufu=8, fp64=0)
        assert loops["cycles"] == dict(
            tensor=0, **{name: n * together for name, n in units.items()}, shared=0, l2=0
        )
        # add and setp, mad
        assert loops["estimates"]["alu_with_integers"] == 4 * together
        assert loops["estimates"]["fma_with_integers"] == 3 * together
        assert loops["binds"] == "mufu"
    loops = profiled(body.format(""), block=32, target="sm_80").bounds["loops"]
    assert loops["cycles"]["fma"] == 2 and loops["estimates"]["l2_sustained"] is None


def test_the_text_says_what_it_is():
    profile = run("gemm_ring")
    text = profile.report()
    for part in (
        "modelled, uncalibrated",
        "not SASS",
        "math (4-11)",
        "gemm_ring.cu:26",
        "wgmma m64n64k16 f32.bf16.bf16",
        "bank conflicts",
    ):
        assert part in text
    assert profile.table() in text
    assert "Bounds" not in run("gemm_ring", profile=False).report()


@pytest.mark.parametrize(
    "opcode, space, kind, pipe",
    [
        ("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16", "generic", "tensor", "tensor"),
        ("wgmma.wait_group.sync.aligned", "generic", "sync", ""),
        ("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", "generic", "tensor", "tensor"),
        ("ex2.approx.ftz.f32", "generic", "sfu", "mufu"),
        ("div.full.f32", "generic", "sfu", "mufu"),
        ("div.rn.f32", "generic", "fp", "alu"),
        ("div.s32", "generic", "int", "int"),
        ("fma.rn.bf16x2", "generic", "fp", "fma"),
        ("fma.rn.f64", "generic", "fp", "fp64"),
        ("max.f32", "generic", "fp", "alu"),
        ("setp.lt.f32", "generic", "fp", "alu"),
        ("setp.ne.and.s32", "generic", "int", "int"),
        ("selp.f32", "generic", "int", "int"),
        ("mad.lo.s32", "generic", "int", "imad"),
        ("mul.wide.u16", "generic", "int", "imad"),
        ("and.pred", "generic", "int", "int"),
        ("cvt.rn.bf16x2.f32", "generic", "cvt", "alu"),
        ("cvt.rn.satfinite.e4m3x2.f32", "generic", "cvt", "alu"),
        ("cvt.rn.f32.s32", "generic", "cvt", "mufu"),
        ("cvt.rzi.f32.f32", "generic", "cvt", "mufu"),
        ("cvt.f64.f32", "generic", "cvt", "mufu"),
        ("cvt.s64.s32", "generic", "cvt", "int"),
        ("cvt.u32.u64", "generic", "cvt", "none"),
        ("cvta.to.global.u64", "generic", "mov", "none"),
        ("ld.param.u64", "param", "mov", "none"),
        ("ld.const.u32", "const", "other", ""),
        ("ld.v4.u32", "shared", "lds", ""),
        ("ld.global.nc.v4.u32", "global", "ldg", ""),
        ("ld.u32", "generic", "ldg", ""),
        ("st.shared.b8", "shared", "sts", ""),
        ("st.local.b8", "local", "stg", ""),
        ("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32", "shared", "copy", ""),
        ("red.async.relaxed.cluster.shared::cluster.add.u32", "shared", "copy", ""),
        ("red.global.add.u32", "global", "atomics", ""),
        ("ldmatrix.sync.aligned.m8n8.x4.shared.b16", "shared", "lds", ""),
        ("cp.async.cg.shared.global", "generic", "copy", ""),
        ("cp.async.wait_group", "generic", "sync", ""),
        ("cp.async.mbarrier.arrive.noinc.shared.b64", "shared", "sync", ""),
        ("cp.async.bulk.tensor.2d.shared::cluster.global", "generic", "copy", ""),
        ("cp.async.bulk.commit_group", "generic", "sync", ""),
        ("cp.reduce.async.bulk.global.shared::cta", "generic", "copy", ""),
        ("mbarrier.try_wait.parity.shared::cta.b64", "shared", "sync", ""),
        ("bar.warp.sync", "generic", "sync", ""),
        ("shfl.sync.bfly.b32", "generic", "shfl", ""),
        ("bra.uni", "generic", "ctrl", ""),
        ("setmaxnreg.inc.sync.aligned.u32", "generic", "other", ""),
    ],
)
def test_classes(opcode, space, kind, pipe):
    assert class_of(opcode, space) == kind
    assert pipe_of(opcode, kind) == pipe


def test_every_constant_has_a_source():
    for target, name in (("sm_80", "A100"), ("sm_90", "H100"), ("sm_90a", "H100")):
        model = machine_model.model_of(target)
        assert name in model.name
        for constant in vars(model).values():
            for one in constant.values() if isinstance(constant, dict) else [constant]:
                if isinstance(one, machine_model.Constant):
                    assert one.value > 0 and one.source
    assert machine_model.model_of("sm_75") is None
    assert machine_model.model_of("sm_100a") is None


def test_an_array_of_another_address_gives_the_same_profile():
    """Sectors are counted from where a region begins, not from where the host put it."""
    body = """
        mul.wide.u32 %rd8, %r0, 4;
        add.u64 %rd9, %rd0, %rd8;
        ld.global.u32 %r1, [%rd9];
        ret;
        """
    raw = np.zeros(64, np.uint32)
    assert as_json(profiled(body, raw[:32])) == as_json(profiled(body, raw[3:35]))
