"""Expressions that select rows of a table: names of columns, comparisons, and, or, not, in."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from sweep.errors import InputError
from sweep.fit.table.numbers import is_missing, number

Value = Callable[[str, int], Any]  # the cell of a column in a row
Row = Callable[[int], Any]

COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
EXAMPLE = """'experiment == "x" and n_params > 1e8'"""
_QUOTED = re.compile(r"`([^`]*)`")


def selected_rows(expression: str, names: Sequence[str], value: Value, n_rows: int) -> list[int]:
    """Return the rows for which `expression` is true, out of `n_rows`.

    `names` are the columns; one that is not an identifier is written in backticks, as `Model Size`. Two
    numbers are compared as numbers, else both sides as texts in lower case; a missing cell compares false.

    Raises:
        InputError: the expression is not of this form, or a column is unknown.
    """
    quoted: dict[str, str] = {}

    def placeholder(match: re.Match[str]) -> str:
        quoted[key := f"column_in_backticks_{len(quoted)}"] = match[1]
        return key

    try:
        tree = ast.parse(_QUOTED.sub(placeholder, expression.strip()), mode="eval").body
        test = _Compiler(expression, names, quoted, value).condition(tree)
    except (SyntaxError, ValueError, RecursionError):
        raise _invalid(expression, "it is no expression") from None
    return [row for row in range(n_rows) if test(row)]


def _invalid(expression: str, reason: str) -> InputError:
    return InputError(
        f"--where {expression!r} is invalid, {reason}: compare columns with values by == != < <= > >= or in "
        f"[...], joined by and, or, not, such as {EXAMPLE}"
    )


class _Compiler:
    """Turns the permitted nodes of a syntax tree into functions of a row; every other node is refused."""

    def __init__(self, expression: str, names: Sequence[str], quoted: dict[str, str], value: Value) -> None:
        self.expression, self.names, self.quoted, self.value = expression, names, quoted, value

    def condition(self, node: ast.expr) -> Row:
        if isinstance(node, ast.BoolOp):
            parts = [self.condition(part) for part in node.values]
            every = isinstance(node.op, ast.And)
            return lambda row: (all if every else any)(part(row) for part in parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.condition(node.operand)
            return lambda row: not inner(row)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = [
                self.comparison(left, kind, right)
                for left, kind, right in zip(sides, node.ops, sides[1:], strict=False)
            ]
            return lambda row: all(pair(row) for pair in pairs)
        raise _invalid(self.expression, f"{ast.unparse(node)!r} is no comparison")

    def comparison(self, left: ast.expr, kind: ast.cmpop, right: ast.expr) -> Row:
        if isinstance(kind, (ast.In, ast.NotIn)):
            if not isinstance(right, (ast.List, ast.Tuple, ast.Set)):
                raise _invalid(self.expression, "in needs a list such as [1, 2]")
            matches = [self.comparison(left, ast.Eq(), item) for item in right.elts]
            cell = self.operand(left)
            if isinstance(kind, ast.In):
                return lambda row: any(match(row) for match in matches)
            return lambda row: not is_missing(cell(row)) and not any(match(row) for match in matches)
        if type(kind) not in COMPARISONS:
            raise _invalid(self.expression, "is is no comparison")
        compare, one, other = COMPARISONS[type(kind)], self.operand(left), self.operand(right)
        return lambda row: _compare(compare, one(row), other(row))

    def operand(self, node: ast.expr) -> Row:
        if isinstance(node, ast.Name):
            name = self.quoted.get(node.id, node.id)
            if name not in self.names:
                raise InputError(
                    f"--where {self.expression!r}: column {name!r} not found among {', '.join(self.names)}; "
                    f"write texts in quotes and names with blanks in backticks"
                )
            return lambda row: self.value(name, row)
        sign = -1 if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else 1
        inner = node.operand if isinstance(node, ast.UnaryOp) and sign < 0 else node
        if isinstance(inner, ast.Constant) and isinstance(inner.value, (str, int, float)):
            constant = -inner.value if sign < 0 and not isinstance(inner.value, str) else inner.value
            return lambda row: constant
        raise _invalid(self.expression, f"{ast.unparse(node)!r} is neither a column nor a value")


def _compare(compare: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    """Compare two numbers as numbers, else both sides as texts; false for a missing cell."""
    if is_missing(left) or is_missing(right):
        return False
    numbers = number(left), number(right)
    if numbers[0] is not None and numbers[1] is not None:
        return compare(*numbers)
    return compare(str(left).strip().lower(), str(right).strip().lower())
