"""Bytes, sectors and bank conflicts of profiles, against brute force."""

import ctypes

import numpy as np
import pytest

from ptx_emulator import Module

from . import test_cluster, test_gemm_cp_async, test_gemm_ring, test_split_k
from .hooks import library, pointer
from .profiled import by_opcode, only, profiled
from .ptx_kernel import kernel

LANES = 32
WIDTHS = {1: "b8", 2: "b16", 4: "b32", 8: "v2.b32", 16: "v4.b32"}
VALUES = {1: "%h1", 2: "%h1", 4: "%r10", 8: "{%r10, %r11}", 16: "{%r10, %r11, %r12, %r13}"}


def passes(addresses, mask, width, atomic=False):
    """Serves lanes pass by pass: in each, every bank hands out one word, to all lanes that want it,
    or to one if they want to change it. Returns the passes and what they'd be without conflicts."""
    group = min(LANES, 128 // max(width, 4))
    needed = ideal = 0
    for first in range(0, LANES, group):
        wanted = [
            address // 4 + word
            for lane, address in enumerate(addresses)
            if first <= lane < first + group and mask >> lane & 1
            for word in range(max(width // 4, 1))
        ]
        ideal += bool(wanted)
        while wanted:
            needed += 1
            open_words = {}
            left = []
            for word in wanted:
                if word % 32 not in open_words:
                    open_words[word % 32] = word
                elif atomic or open_words[word % 32] != word:
                    left.append(word)
            wanted = left
    return needed, ideal


def patterns(rng, width):
    """Addresses of 32 lanes in 8 KiB: at random, strided, crowded, the same."""
    slots = 8192 // width
    yield from (rng.integers(0, slots, LANES) * width for _ in range(20))
    yield from (rng.integers(0, 64, LANES) % slots * width for _ in range(5))
    yield from (np.arange(LANES) * step % slots * width for step in (0, 1, 2, 3, 8, 16, 17, 32, 33))
    yield rng.permutation(LANES) * width
    yield rng.integers(0, 8, LANES) * 128 + rng.integers(0, 2) * width  # one bank


def masks(rng):
    return [0xFFFFFFFF, 1, 0x80000000, 0xFFFF, 0x00FF00FF, int(rng.integers(1, 2**32))]


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_wavefronts(width, atomic):
    rng = np.random.default_rng(width)
    needed, ideal = ctypes.c_uint32(), ctypes.c_uint32()
    for addresses in patterns(rng, width):
        given = addresses.astype(np.uint64)
        for mask in masks(rng):
            library().ptx_test_wavefronts(
                pointer(given), mask, width, atomic, ctypes.byref(needed), ctypes.byref(ideal)
            )
            assert (needed.value, ideal.value) == passes(addresses.tolist(), mask, width, atomic)


def test_the_rule_by_known_cases():
    lanes = np.arange(LANES)
    for width, step, expected in [
        (4, 4, (1, 1)),
        (4, 8, (2, 1)),
        (4, 128, (32, 1)),
        (4, 0, (1, 1)),  # a broadcast
        (1, 1, (1, 1)),  # four lanes to a word
        (2, 128, (32, 1)),
        (8, 8, (2, 2)),  # half a warp at a time
        (8, 128, (32, 2)),
        (16, 16, (4, 4)),  # a quarter of a warp at a time
        (16, 128, (32, 4)),
        (16, 144, (4, 4)),  # rows with a pad of 16 bytes
    ]:
        assert passes((lanes * step).tolist(), 0xFFFFFFFF, width) == expected


SHARED = ".shared .align 128 .b8 buffer[8192];"
PLACE = """
mul.wide.u32 %rd8, %r0, 4;
add.u64 %rd9, %rd0, %rd8;
ld.global.u32 %r1, [%rd9];
add.u64 %rd9, %rd1, %rd8;
ld.global.u32 %r2, [%rd9];
setp.ne.u32 %p1, %r2, 0;
mov.u32 %r3, buffer;
add.u32 %r3, %r3, %r1;
mov.u32 %r10, 1; mov.u32 %r11, 2; mov.u32 %r12, 3; mov.u32 %r13, 4; mov.u16 %h1, 5;
"""


def lanes_of(mask):
    return np.array([mask >> lane & 1 for lane in range(LANES)], np.uint32)


@pytest.mark.parametrize("width", WIDTHS)
def test_shared_loads_and_stores(width):
    rng = np.random.default_rng(100 + width)
    kind, value = WIDTHS[width], VALUES[width]
    body = PLACE + f"@%p1 st.shared.{kind} [%r3], {value};\n@%p1 ld.shared.{kind} {value}, [%r3];"
    for addresses in list(patterns(rng, width))[::4]:
        mask = int(rng.choice(masks(rng)))
        profile = profiled(
            body,
            addresses.astype(np.uint32),
            lanes_of(mask),
            before=SHARED,
            grid=3,
            races=False,  # of lanes that store the same word
        )
        needed, ideal = passes(addresses.tolist(), mask, width)
        moved = 3 * width * bin(mask).count("1")
        for opcode, counter in (("st.shared", "shared_written"), ("ld.shared", "shared_read")):
            line = only(profile, opcode)
            assert (line["wavefronts"], line["ideal_wavefronts"]) == (3 * needed, 3 * ideal)
            assert line[counter] == moved
        shared = profile.memory["shared"]
        assert shared == {"ld": {"read": moved}, "st": {"written": moved}}
        conflicts = profile.memory["bank_conflicts"]
        assert (conflicts["wavefronts"], conflicts["ideal"]) == (6 * needed, 6 * ideal)
        assert len(conflicts["lines"]) == (2 if needed > ideal else 0)


def test_shared_atomics():
    rng = np.random.default_rng(5)
    body = PLACE + "@%p1 st.shared.u32 [%r3], %r10;\n@%p1 atom.shared.add.u32 %r5, [%r3], %r10;"
    body += "\n@%p1 red.shared.add.u32 [%r3], %r10;"
    for addresses in list(patterns(rng, 4))[::3]:
        mask = int(rng.choice(masks(rng)))
        profile = profiled(
            body, addresses.astype(np.uint32), lanes_of(mask), before=SHARED, races=False
        )
        expected = passes(addresses.tolist(), mask, 4, atomic=True)
        for opcode in ("atom", "red"):
            line = only(profile, opcode)
            assert (line["wavefronts"], line["ideal_wavefronts"]) == expected


@pytest.mark.parametrize("count", [1, 2, 4])
def test_matrix_moves(count):
    """Eight rows of 16 bytes for each matrix; the addresses of further lanes don't count."""
    rng = np.random.default_rng(count)
    registers = "{" + ", ".join(f"%r{10 + i}" for i in range(count)) + "}"
    form = f"sync.aligned.m8n8.x{count}.shared.b16"
    body = PLACE + f"stmatrix.{form} [%r3], {registers};\nldmatrix.{form} {registers}, [%r3];"
    for addresses in list(patterns(rng, 16))[::3]:
        profile = profiled(
            body, addresses.astype(np.uint32), lanes_of(1), before=SHARED, races=False
        )
        expected = passes(addresses.tolist(), (1 << 8 * count) - 1, 16)
        for opcode, counter in (("stmatrix", "shared_written"), ("ldmatrix", "shared_read")):
            line = only(profile, opcode)
            assert (line["wavefronts"], line["ideal_wavefronts"]) == expected
            assert line[counter] == 128 * count


@pytest.mark.parametrize("width", [4, 8, 16])
def test_global_bytes_and_sectors(width):
    """Gathers and scatters of three warps at random places."""
    rng = np.random.default_rng(width)
    kind, value = WIDTHS[width], VALUES[width]
    threads, bytes_of_region = 96, 1 << 14
    body = f"""
        mul.wide.u32 %rd8, %r0, 4;
        add.u64 %rd9, %rd0, %rd8;
        ld.global.u32 %r1, [%rd9];
        add.u64 %rd9, %rd1, %rd8;
        ld.global.u32 %r2, [%rd9];
        setp.lt.s32 %p1, %r1, 0;
        cvt.u64.u32 %rd6, %r1;
        cvt.u64.u32 %rd7, %r2;
        add.u64 %rd6, %rd6, %rd2;
        add.u64 %rd7, %rd7, %rd3;
        @!%p1 ld.global.nc.{kind} {value}, [%rd6];
        @!%p1 st.global.{kind} [%rd7], {value};
        """
    for _ in range(8):
        places = rng.integers(0, bytes_of_region // width, (2, threads)) * width
        off = rng.random(threads) < 0.2
        source = np.zeros(bytes_of_region, np.uint8)
        target = np.zeros(bytes_of_region, np.uint8)
        given = np.where(off, -1, places[0]).astype(np.int32)
        profile = profiled(
            body,
            given,
            places[1].astype(np.uint32),
            source,
            target,
            block=threads,
            races=False,
        )
        for opcode, counter, where in (
            ("ld.global.nc", "global_read", places[0]),
            ("st", "global_written", places[1]),
        ):
            line = only(profile, opcode)
            assert line[counter] == width * (~off).sum()
            sectors = [
                len({address // 32 for address, gone in zip(warp, skips, strict=True) if not gone})
                for warp, skips in zip(where.reshape(3, 32), off.reshape(3, 32), strict=True)
            ]
            assert line["sectors"] == sum(sectors)
            assert line["global_requests"] == sum(n > 0 for n in sectors)
        found = profile.memory["global"]["direct"]
        read, written = (len(set((p[~off] // 32).tolist())) for p in places)
        indices = 2 * threads * 4
        assert found["unique_read_bytes"] == 32 * read + indices
        assert found["unique_written_bytes"] == 32 * written
        assert found["unique_bytes"] == 32 * (read + written) + indices
        assert found["read_bytes"] == width * (~off).sum() + indices
        assert profile.memory["global"]["all"] == found


def test_one_sector_read_and_written_by_several_paths():
    data = np.zeros(64, np.uint32)
    body = """
        mul.wide.u32 %rd8, %r0, 4;
        add.u64 %rd9, %rd0, %rd8;
        ld.global.u32 %r1, [%rd9];
        red.global.add.u32 [%rd9], 1;
        atom.global.add.u32 %r2, [%rd9], 1;
        st.global.u32 [%rd9+128], %r1;
        bar.warp.sync -1;
        ld.global.u32 %r3, [%rd0];
        """
    memory = profiled(body, data).memory["global"]
    assert memory["direct"] == dict(
        requests=3,
        sectors=4 + 4 + 1,
        read_bytes=256,
        written_bytes=128,
        unique_read_bytes=128,
        unique_written_bytes=128,
        unique_bytes=256,
    )
    # red sends, atom sends and receives.
    assert memory["atomic"] == dict(
        requests=2,
        sectors=8,
        read_bytes=128,
        written_bytes=256,
        unique_read_bytes=128,
        unique_written_bytes=128,
        unique_bytes=128,
    )
    assert memory["all"]["unique_read_bytes"] == 128
    assert memory["all"]["unique_written_bytes"] == 256
    assert memory["all"]["unique_bytes"] == 256


def test_what_is_no_global_memory():
    """Parameters and constants have a cache of their own; local memory is told apart."""
    body = """
        .local .align 4 .b8 own[64];
        ld.const.u32 %r1, [table];
        st.local.u32 [own], %r1;
        ld.local.u32 %r2, [own];
        """
    profile = profiled(body, before=".const .align 4 .u32 table[4] = {1, 2, 3, 4};", block=40)
    memory = profile.memory
    assert memory["global"]["all"]["requests"] == memory["global"]["all"]["unique_bytes"] == 0
    assert memory["local_bytes"] == 2 * 4 * 40
    assert only(profile, "ld.const")["class"] == "other"


def test_a_copy_of_parameters_reads_no_global_memory():
    body = """
        mov.u32 %r0, %tid.x;
        setp.ne.u32 %p1, %r0, 0;
        @%p1 bra END;
        mov.u32 %r3, buffer;
        mov.u32 %r4, barrier;
        mbarrier.init.shared::cta.b64 [%r4], 1;
        mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r4], 64;
        mov.b64 %rd1, given;
        cvta.param.u64 %rd1, %rd1;
        cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%r3], [%rd1], 64, [%r4];
        WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r4], 0;
        @!%p2 bra WAIT;
        END: ret;
        """
    before = SHARED + "\n.shared .align 8 .b64 barrier;"
    module = Module(kernel(body, ".param .align 64 .b8 given[64]", before=before))
    memory = module.launch("k", 1, 32, [bytes(64)], profile=True).profile.memory
    assert memory["global"]["all"]["requests"] == memory["global"]["all"]["unique_bytes"] == 0
    assert memory["shared"] == {"bulk": {"written": 64}}


def test_generic_addresses_go_where_they_point():
    body = """
        mov.u32 %r3, buffer;
        cvt.u64.u32 %rd5, %r3;
        cvta.shared.u64 %rd5, %rd5;
        mul.wide.u32 %rd8, %r0, 8;
        add.u64 %rd5, %rd5, %rd8;
        add.u64 %rd6, %rd0, %rd8;
        setp.lt.u32 %p1, %r0, 8;
        selp.b64 %rd7, %rd5, %rd6, %p1;
        st.u32 [%rd7], %r0;
        """
    profile = profiled(body, np.zeros(64, np.uint32), before=SHARED)
    line = only(profile, "st.u32")
    assert line["shared_written"] == 32 and line["global_written"] == 96
    assert line["wavefronts"] == line["ideal_wavefronts"] == 1
    assert (line["global_requests"], line["sectors"]) == (1, 6)


def test_the_ring_gemm():
    """Tiles go in by tensor copies, out through shared memory; edges are filled with zeros."""
    m, n, k = 200, 136, 320
    made = test_gemm_ring.case(m, n, k)
    memory = profile_of(made).memory
    ctas, steps = 2 * 3, 5
    # A is read for each of three columns of tiles, B for each of two rows of tiles.
    read = 2 * k * (3 * m + 2 * n)
    assert memory["global"]["bulk"] == memory["global"]["all"]
    bulk = memory["global"]["bulk"]
    assert (bulk["read_bytes"], bulk["written_bytes"]) == (read, 4 * m * n)
    assert bulk["unique_read_bytes"] == 2 * k * (m + n)
    assert bulk["unique_written_bytes"] == 4 * m * n
    tiles = ctas * steps * (128 + 64) * 64 * 2
    assert memory["shared"]["bulk"] == {"written": tiles, "read": 4 * m * n}
    # Each of 2 warpgroups reads its 64 rows of A, and all of B.
    of_a = ctas * steps * 2 * 64 * 64 * 2
    assert memory["shared"]["wgmma A"] == memory["shared"]["wgmma B"] == {"read": of_a}
    assert memory["shared"]["st"] == {"written": ctas * 128 * 64 * 4}


def test_the_cp_async_gemm():
    m, n, k = 128, 64, 256
    memory = profile_of(test_gemm_cp_async.case(m, n, k)).memory
    copied = memory["global"]["copy"]
    assert copied["read_bytes"] == 2 * (m * k + 2 * k * n)
    assert copied["unique_read_bytes"] == copied["unique_bytes"] == 2 * (m * k + k * n)
    assert copied["sectors"] == copied["read_bytes"] // 32
    assert memory["shared"]["cp.async"] == {"written": copied["read_bytes"]}
    assert memory["global"]["direct"]["unique_written_bytes"] == 4 * m * n
    # Its swizzle keeps ldmatrix free of conflicts.
    assert memory["bank_conflicts"]["lines"] == []
    assert memory["bank_conflicts"]["wavefronts"] > 0


def test_cp_async_reads_what_it_does_not_fill():
    """At the edges copies write zeros and read nothing."""
    m, n, k = 70, 72, 200
    memory = profile_of(test_gemm_cp_async.case(m, n, k)).memory
    copied = memory["global"]["copy"]
    assert copied["read_bytes"] == 2 * (2 * m * k + 2 * k * n)
    assert memory["shared"]["cp.async"]["written"] == 2 * 2 * 7 * (64 * 32 + 32 * 64) * 2


def test_the_split_k_gemm():
    m, n, k, splits = 64, 64, 1024, 8
    profile = profile_of(test_split_k.case(m, n, k, splits, launches=1))
    memory = profile.memory["global"]
    tiles = 4
    assert memory["atomic"]["requests"] == tiles * splits
    assert memory["atomic"]["written_bytes"] == tiles * splits * 4
    partials = tiles * splits * 32 * 32 * 4
    # Partial tiles are written and read once, C and four flags written.
    assert memory["direct"]["unique_written_bytes"] == partials + 4 * m * n + 32
    assert memory["direct"]["read_bytes"] == 2 * 2 * 2 * m * k + partials
    assert not [line for line in by_opcode(profile, "ldmatrix") if line["wavefronts"] % 4]


def test_multicast_is_read_once():
    m, n, k = 256, 128, 448
    memory = profile_of(test_cluster.case(m, n, k)).memory
    bulk = memory["global"]["bulk"]
    # Either CTA of a pair reads its rows of A, and half of B's tile for both.
    assert bulk["read_bytes"] == 2 * k * (2 * m + 2 * n)
    assert bulk["unique_read_bytes"] == 2 * k * (m + n)
    ctas, steps = 2 * 2 * 2, 7
    assert memory["shared"]["bulk"] == {"written": ctas * steps * (64 + 64) * 64 * 2}
    # The second CTA's column sums.
    assert memory["shared"]["ld"]["remote_read"] == 4 * 64 * 4


def profile_of(made):
    return made.run(Module(made.ptx), profile=True).profile


def test_stores_to_another_cta():
    """Each CTA of a pair writes 128 bytes to the other by st, and 128 by st.async."""
    body = """
        mov.u32 %r4, %cluster_ctarank;
        xor.b32 %r4, %r4, 1;
        mov.u32 %r3, buffer;
        mapa.shared::cluster.u32 %r5, %r3, %r4;
        mad.lo.u32 %r5, %r0, 4, %r5;
        mov.u32 %r6, barrier;
        mapa.shared::cluster.u32 %r7, %r6, %r4;
        setp.eq.u32 %p1, %r0, 0;
        @%p1 mbarrier.init.shared::cta.b64 [%r6], 1;
        @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r6], 128;
        barrier.cluster.arrive;
        barrier.cluster.wait;
        st.shared::cluster.u32 [%r5], %r0;
        st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%r5+128], %r0, [%r7];
        WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r6], 0;
        @!%p2 bra WAIT;
        barrier.cluster.arrive;
        barrier.cluster.wait;
        """
    before = SHARED + "\n.shared .align 8 .b64 barrier;"
    profile = profiled(body, before=before, grid=2, cluster=2)
    assert profile.memory["shared"] == {
        "st": {"remote_written": 256},
        "st.async": {"remote_written": 256},
    }
    assert profile.memory["bank_conflicts"]["wavefronts"] == 0
