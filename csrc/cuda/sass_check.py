"""Holds the machine code of the CUDA kernels to csrc/cuda/sass.json.

    python -m csrc.cuda.sass_check [--update] [--code DIR]

Of every kernel for sm_90a (sm_90 where it has no code of its own): registers; shared memory, but
for what launches add (static_asserts hold that); how often each instruction that says what the
kernel is occurs (tensor cores, tensor copies, barriers); and how many instructions one iteration
of its main loops has: of products, of copies to shared memory, of plain memory accesses. Fails
where a kernel is missing, uses local memory, lost or gained such an instruction, or grew; --update
writes the file anew. Needs cuobjdump, of the CUDA toolkit or of the package triton.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from collections import Counter
from pathlib import Path

from csrc.cuda import toolkit

EXPECTED = Path(__file__).with_name("sass.json")
CODE = Path(__file__).resolve().parents[2] / "dsa_kernels" / "cuda"
TELLING = re.compile(
    r"HGMMA|QGMMA|HMMA|UTMALDG|UTMASTG|UBLKCP|LDGSTS|SYNCS|USETMAXREG|STSM|LDSM|STAS|UCGABAR_ARV"
)
LOOPS = {
    "products": re.compile(r"HGMMA|QGMMA|HMMA"),
    "copies": re.compile(r"UTMALDG|UBLKCP|LDGSTS|STAS"),
    "accesses": re.compile(r"LDG|STG"),
}
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);")
SLACK = 1.02  # other versions of ptxas move a few instructions


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def functions(text: str) -> dict[str, list[tuple[int, str, str]]]:
    """Kernel -> its instructions: address, opcode, operands."""
    found: dict[str, list] = {}
    for part in text.split("Function : ")[1:]:
        name, _, body = part.partition("\n")
        found[name.strip()] = [
            (int(address, 16), opcode, operands)
            for address, opcode, operands in INSTRUCTION.findall(body)
        ]
    return found


def loops(code: list[tuple[int, str, str]]) -> list[tuple[int, int]]:
    """Index ranges [first, last] that a backward branch closes, the smallest first."""
    index = {address: i for i, (address, _, _) in enumerate(code)}
    found = []
    for i, (address, opcode, operands) in enumerate(code):
        target = re.search(r"0x([0-9a-f]+)$", operands.strip())
        # BRA.U.ANY repeats an instruction for each of the lanes that are at it.
        if opcode == "BRA" and target and int(target[1], 16) < address:
            found.append((index[int(target[1], 16)], i))
    return sorted(found, key=lambda r: r[1] - r[0])


def main_loop(code, ranges, marker: re.Pattern) -> int | None:
    """Instructions of the innermost loop that has most of the marked ones."""
    most, size = 0, None
    inner: list[tuple[int, int]] = []
    for first, last in ranges:
        if any(first <= f and e <= last for f, e in inner):
            continue
        count = sum(bool(marker.match(code[i][1])) for i in range(first, last + 1))
        if count:
            inner.append((first, last))
        if count > most:
            most, size = count, last - first + 1
    return size


def measure(path: Path, cuobjdump: str) -> dict[str, dict]:
    arch = "sm_90a" if path.name.endswith(".sm90.fatbin") else "sm_90"
    usage = output_of(cuobjdump, "-res-usage", "-arch", arch, str(path))
    registers, local, shared = (
        dict(re.findall(rf"Function (\w+):\s+REG:{figures}", usage))
        for figures in (r"(\d+)", r"\d+ STACK:(\d+)", r"\d+ STACK:\d+ SHARED:(\d+)")
    )
    found = {}
    for name, code in functions(output_of(cuobjdump, "-sass", "-arch", arch, str(path))).items():
        opcodes = Counter(opcode.split(".")[0] for _, opcode, _ in code)
        ranges = loops(code)
        found[name] = {
            "registers": int(registers[name]),
            "shared": int(shared[name]),
            "local": int(local[name]) + opcodes["STL"] + opcodes["LDL"],
            "instructions": {o: n for o, n in sorted(opcodes.items()) if TELLING.fullmatch(o)},
            "loops": {
                kind: size
                for kind, marker in LOOPS.items()
                if (size := main_loop(code, ranges, marker)) is not None
            },
        }
    return found


def complaints(expected: dict, measured: dict) -> list[str]:
    bad = [f"{name}: there is no such kernel" for name in sorted(set(expected) - set(measured))]
    bad += [f"{name}: not in {EXPECTED.name}" for name in sorted(set(measured) - set(expected))]
    for name in sorted(set(expected) & set(measured)):
        old, new = expected[name], measured[name]
        if new["local"]:
            bad.append(f"{name}: local memory is used")
        if new["registers"] > old["registers"]:
            bad.append(f"{name}: {new['registers']} registers, expected {old['registers']}")
        if new["shared"] != old["shared"]:
            bad.append(f"{name}: {new['shared']} bytes of shared memory, expected {old['shared']}")
        if new["instructions"] != old["instructions"]:
            bad.append(f"{name}: {new['instructions']}, expected {old['instructions']}")
        for kind, size in old["loops"].items():
            now = new["loops"].get(kind)
            if now is None or now > SLACK * size:
                bad.append(f"{name}: loop of {kind}: {now} instructions, expected {size}")
    return bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write what there is as expected")
    parser.add_argument("--code", type=Path, default=CODE, help="directory of the fatbins")
    options = parser.parse_args()
    fatbins = sorted(options.code.glob("*.fatbin"))
    if not fatbins:
        raise SystemExit(f"no fatbins in {options.code}: run `make cuda`")
    cuobjdump = toolkit.find("cuobjdump")
    if cuobjdump is None:
        raise SystemExit("cuobjdump was not found: install the CUDA toolkit, or the package triton")
    measured: dict[str, dict] = {}
    for path in fatbins:
        measured |= measure(path, cuobjdump)
    for name, kernel in sorted(measured.items()):
        print(f"{name}: {kernel['registers']} registers, loops {kernel['loops']}")
    if options.update:
        rows = (f"{json.dumps(n)}: {json.dumps(measured[n])}" for n in sorted(measured))
        EXPECTED.write_text("{\n" + ",\n".join(rows) + "\n}\n")
        return
    if bad := complaints(json.loads(EXPECTED.read_text()), measured):
        raise SystemExit("\n".join(bad))
    print(f"{len(measured)} kernels are as {EXPECTED.name} has them")


if __name__ == "__main__":
    main()
