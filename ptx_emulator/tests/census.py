"""Counts the distinct instruction forms (opcode, modifiers, operand kinds) of PTX files.

python -m ptx_emulator.tests.census module.ptx ...
"""

import re
import sys
from collections import Counter, defaultdict
from pathlib import Path

COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
SECTION = re.compile(r"\.section\s+\S+\s*\{.*?\n\s*\}", re.DOTALL)
LABEL = re.compile(r"^\s*[$\w%]+:(?!:)\s*")
GUARD = re.compile(r"^\s*@!?%?[$\w]+\s+")
OPCODE = re.compile(r"^[a-z][\w.:]*$")
SPECIAL = re.compile(
    r"%(?:tid|ntid|ctaid|nctaid|laneid|warpid|nwarpid|smid|nsmid|gridid|clock\w*|globaltimer\w*"
    r"|cluster_\w+|clusterid|nclusterid|is_explicit_cluster|lanemask_\w+|dynamic_smem_size"
    r"|total_smem_size|envreg\d+|pm\d+)(?:\.[xyz])?\b"
)


def statements(text):
    text = COMMENT.sub(" ", text)
    text = SECTION.sub(" ", text)
    text = re.sub(r"^\s*\.(loc|file|version|target|address_size)\b[^\n]*", "", text, flags=re.M)
    depth = 0
    piece = ""
    for char in text:
        # Operand vectors keep their braces, blocks lose them: a block's brace opens a statement.
        if char == "{" and piece.strip() and not piece.strip().startswith("."):
            depth += 1
        elif char == "{" or (char == "}" and depth == 0):
            piece = ""
            continue
        elif char == "}":
            depth -= 1
        if char == ";":
            yield piece.strip()
            piece = ""
        else:
            piece += char


def split_operands(text):
    parts, depth, current = [], 0, ""
    for char in text:
        depth += (char in "{[(") - (char in "}])")
        if char == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += char
    return [*parts, current.strip()] if current.strip() else parts


def operand_kind(operand):
    if operand.startswith("{"):
        return f"v{operand.count(',') + 1}"
    if operand.startswith("["):
        return "[" + ",".join(operand_kind(part) for part in split_operands(operand[1:-1])) + "]"
    if operand.startswith("("):
        return "()"
    if "|" in operand:
        return "r|p"
    if SPECIAL.fullmatch(operand):
        return operand
    if "+" in operand[1:]:
        return operand_kind(operand.split("+")[0].strip()) + "+i"
    if re.match(r"^-?\d|^0[xXfFdD]", operand):
        return "i"
    return "!r" if operand.startswith("!") else "-r" if operand.startswith("-") else "r"


def forms(text):
    """Yields (opcode with modifiers, operand kinds) of every instruction."""
    for statement in statements(text):
        while label := LABEL.match(statement):
            statement = statement[label.end() :]
        statement = GUARD.sub("", statement).strip()
        opcode, _, rest = statement.partition(" ") if " " in statement else (statement, "", "")
        if "\t" in opcode:
            opcode, _, more = opcode.partition("\t")
            rest = more + " " + rest
        if OPCODE.match(opcode):
            yield opcode, " ".join(operand_kind(part) for part in split_operands(rest))


def census(paths):
    """{opcode: (count, files, {operand kinds: count})}"""
    counts, files, kinds = Counter(), defaultdict(set), defaultdict(Counter)
    for path in map(Path, paths):
        for opcode, operands in forms(path.read_text()):
            counts[opcode] += 1
            files[opcode].add(path.stem)
            kinds[opcode][operands] += 1
    return {opcode: (counts[opcode], files[opcode], kinds[opcode]) for opcode in sorted(counts)}


def main(paths):
    for opcode, (count, files, kinds) in census(paths).items():
        where = f"{len(files)} files" if len(files) > 2 else " ".join(sorted(files))
        print(f"{opcode:72} {count:6} {where:40} {'; '.join(k for k, _ in kinds.most_common(6))}")


if __name__ == "__main__":
    main(sys.argv[1:])
