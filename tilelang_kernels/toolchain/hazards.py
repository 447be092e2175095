"""What TileLang 0.1.15 lowers wrongly without a word, found in the program before it does."""

from __future__ import annotations

from collections.abc import Iterator

from tilelang import tvm


@tvm.instrument.pass_instrument
class Hazards:
    """An instrument of the compiler's passes; `found` says what they would make wrong.

    `for i: if c(i): A, else: if d: B` is made `if d: for i: if c(i): A, else: B`, and where d is
    false, A is lost; so it is with the inner `if` before the `else`. With an `else` of its own, or
    with other statements beside it, it is not.
    """

    def __init__(self):
        self.found: list[str] = []

    def run_before_pass(self, module, info):
        if info.name != "s_tir.InsertHoistIfThenElse":
            return

        def visit(node):
            if isinstance(node, tvm.tirx.For):
                for condition in _hoisted(node.body, node.loop_var, False):
                    self.found.append(
                        f"{condition} would be hoisted out of the loop over {node.loop_var}, and "
                        "what another branch does be lost: give its `if` an else"
                    )

        for function in module.functions.values():
            tvm.tirx.stmt_functor.post_order_visit(function.body, visit)


def _hoisted(statement, loop_var, has_else: bool) -> Iterator:
    """Conditions that do not change in the loop, of an `if` without an else inside one with."""
    if isinstance(statement, tvm.tirx.IfThenElse):
        if has_else and statement.else_case is None and not _uses(statement.condition, loop_var):
            yield statement.condition
        has_else = has_else or statement.else_case is not None
        yield from _hoisted(statement.then_case, loop_var, has_else)
        if statement.else_case is not None:
            yield from _hoisted(statement.else_case, loop_var, has_else)
    elif hasattr(statement, "body"):
        yield from _hoisted(statement.body, loop_var, has_else)


def _uses(expression, variable) -> bool:
    found = False

    def visit(node):
        nonlocal found
        found = found or (isinstance(node, tvm.tirx.Var) and node.same_as(variable))

    tvm.tirx.stmt_functor.post_order_visit(expression, visit)
    return found
