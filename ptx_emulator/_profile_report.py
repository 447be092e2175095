"""A profile as text."""

from ._instructions import CLASSES


def table(profile: dict) -> str:
    roles = profile["roles"]
    kinds = [kind for kind in CLASSES if kind in profile["classes"]]
    rows = [["role (warps)", *kinds, "total"]]
    for role in roles:
        per_class = [str(role["classes"].get(kind, 0)) for kind in kinds]
        rows.append(
            [f"{role['name']} ({ranges(role['warps'])})", *per_class, str(role["instructions"])]
        )
    return _aligned(rows)


def report(profile: dict, lines: int) -> str:
    launch = profile["launch"]
    parts = [
        f"{launch['kernel']}, {launch['target']}, grid {launch['grid']}, block {launch['block']}, "
        f"mode {launch['mode']}, seed {launch['seed']}\n"
        f"{profile['instructions']} warp instructions of PTX (not SASS), "
        f"{profile['failed_polls']} of them in polls that failed",
        table(profile),
        _loops(profile),
        _tensor(profile["tensor"]),
    ]
    if profile["memory"]:
        conflicts = profile["memory"]["bank_conflicts"]
        parts += [_memory(profile["memory"]), _conflicts(conflicts, lines)]
    parts += [_bounds(profile), _hot(profile, lines)]
    return "\n\n".join(part for part in parts if part) + "\n"


def ranges(numbers: list[int]) -> str:
    """1,3-5"""
    out, start = [], None
    for i, n in enumerate(numbers):
        if start is None:
            start = n
        if i + 1 == len(numbers) or numbers[i + 1] != n + 1:
            out.append(str(start) if start == n else f"{start}-{n}")
            start = None
    return ",".join(out)


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _loops(profile: dict) -> str:
    out = []
    for role in profile["roles"]:
        for loop in sorted(role["loops"], key=lambda loop: -loop["instructions"])[:3]:
            classes = ", ".join(f"{kind} {n:g}" for kind, n in loop["per_iteration"].items())
            where = f"lines {loop['line']}-{loop['last_line']}"
            where += f" ({loop['source']})" if loop["source"] else ""
            main = "main loop" if loop["is_main"] else "loop"
            turns = f"{loop['iterations_per_warp']:g}"
            if loop["remainder_per_warp"]:
                turns += f" + {loop['remainder_per_warp']:g}"
            out.append(
                f"  {role['name']}: {main} at {where}, {turns} iterations a warp\n"
                f"    each: {classes}"
            )
    return "Loops, warp instructions of a warp and iteration\n" + "\n".join(out) if out else ""


def _tensor(tensor: dict) -> str:
    if not tensor["operations"]:
        return ""
    rows = [["tensor operations", "count", "flops"]]
    rows += [[k, str(v["count"]), str(v["flops"])] for k, v in tensor["operations"].items()]
    return _aligned(rows)


def _memory(memory: dict) -> str:
    names = ("read_bytes", "written_bytes", "unique_read_bytes", "unique_written_bytes")
    rows = [
        ["global memory", "read", "written", "unique read", "unique written", "sectors/request"]
    ]
    for path, of in memory["global"].items():
        if of["requests"]:
            each = f"{of['sectors'] / of['requests']:.2f}" if path != "bulk" else "-"
            rows.append([path, *(str(of[name]) for name in names), each])
    parts = [rows]
    rows = [["shared memory", "read", "written", "remote read", "remote written"]]
    for path, of in memory["shared"].items():
        counters = ("read", "written", "remote_read", "remote_written")
        rows.append([path, *(str(of.get(name, 0)) for name in counters)])
    parts.append(rows)
    texts = [_aligned(rows) for rows in parts if len(rows) > 1]
    if memory["local_bytes"]:
        texts.append(f"local memory: {memory['local_bytes']} bytes")
    return "\n\n".join(texts)


def _conflicts(conflicts: dict, count: int) -> str:
    if not conflicts["wavefronts"]:
        return ""
    head = (
        f"bank conflicts: {conflicts['wavefronts']} wavefronts, {conflicts['ideal']} without "
        "conflicts"
    )
    worst = sorted(conflicts["lines"], key=lambda line: line["ideal"] - line["wavefronts"])[:count]
    return "\n".join([head, *(f"  {_place(x)}: {x['wavefronts']}/{x['ideal']}" for x in worst)])


def _bounds(profile: dict) -> str:
    bounds = profile["bounds"]
    if not bounds:
        return ""
    parts = [("a CTA, all of it", bounds["cta"])]
    if bounds["loops"]:
        parts.append(("main loops, by " + bounds["loops"]["unit"], bounds["loops"]))
    parts += [
        (f"main loop of {role['name']} alone, by iteration", loop["bound"])
        for role in profile["roles"]
        for loop in role["loops"]
        if loop["bound"]
    ]
    units = [unit for unit, n in bounds["cta"]["cycles"].items() if n]
    guesses = [name for name, n in bounds["cta"]["estimates"].items() if n]
    rows = [["cycles", *units, "binds", *(f"({name})" for name in guesses)]]
    for name, bound in parts:
        row = [name, *(f"{bound['cycles'][unit]:g}" for unit in units), str(bound["binds"])]
        rows.append([*row, *(f"{bound['estimates'][guess]:g}" for guess in guesses)])
    return f"Bounds for {bounds['machine']} ({bounds['label']})\n{_aligned(rows)}"


def _hot(profile: dict, count: int) -> str:
    hottest = sorted(profile["lines"], key=lambda line: (-line["count"], line["line"]))[:count]
    rows = "\n".join(f"  {line['count']:>10}  {_place(line)}" for line in hottest)
    sources = "\n".join(
        f"  {n:>10}  {name}" for name, n in list(profile["sources"].items())[:count]
    )
    out = f"Hottest instructions\n{rows}"
    return out + (f"\n\nHottest source lines\n{sources}" if sources else "")


def _place(line: dict) -> str:
    source = f" ({line['source']})" if line["source"] else ""
    return f"line {line['line']} {line['opcode']}{source}"
