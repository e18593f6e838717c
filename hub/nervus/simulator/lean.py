"""Source of the firmware made ready for a small heap: the same program with fewer names in it.

A board keeps each name of a module in its heap, and the names' table grows by doubling. Constants
that only their own module reads are written into the code instead (MicroPython's `const`), and what
stands there for type checkers and for CPython is left out.
"""

import ast
from typing import Final

_TYPE_CHECKING: Final = "TYPE_CHECKING"
_MICROPYTHON: Final = "MICROPYTHON"


def lean(source: str, shared: frozenset[str] = frozenset()) -> str:
    """Return the source to compile.

    Args:
        source: A module of the firmware.
        shared: Private names that other modules import from one another, and so must stay.
    """
    tree = ast.parse(source)
    constants = _constants(tree) - shared
    # The compiler knows a constant only below the line that gives it, so they all go first.
    first = [
        node for node in tree.body if isinstance(node, ast.Assign) and _name(node) in constants
    ]
    rest = [node for node in tree.body if node not in first]
    for node in first:
        call = ast.Call(ast.Name("const", ast.Load()), [node.value], [])
        node.value = ast.copy_location(call, node.value)
    board = _OnBoard().visit(ast.Module([*first, *rest], []))
    return ast.unparse(ast.fix_missing_locations(board))


def private_imports(source: str) -> set[str]:
    """The private names that a module imports from another one."""
    return {
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name.startswith("_")
    }


def _constants(tree: ast.Module) -> set[str]:
    """Private names of a module that are given one constant value, once."""
    stored = [
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
    ]
    found: dict[str, bool] = {}
    for node in tree.body:
        if not isinstance(node, ast.Assign):
            continue
        name = _name(node)
        if name.startswith("_") and stored.count(name) == 1:
            integer = _is_integer(node.value, found)
            if integer or _is_literal(node.value):
                found[name] = integer
    return set(found)


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple):
        return all(_is_literal(each) for each in node.elts)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and _is_literal(node.operand)
    return isinstance(node, ast.Constant) and node.value is not None


def _is_integer(node: ast.expr, found: dict[str, bool]) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_integer(node.left, found) and _is_integer(node.right, found)
    if isinstance(node, ast.Name):
        return found.get(node.id, False)
    return isinstance(node, ast.Constant) and type(node.value) is int


class _OnBoard(ast.NodeTransformer):
    """Decides what is known of a board: it checks no types, and it is MicroPython."""

    def visit_Assign(self, node: ast.Assign) -> ast.Assign | None:
        return None if _name(node) == _TYPE_CHECKING else node

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        self.generic_visit(node)
        test, wanted = node.test, True
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            test, wanted = test.operand, False
        if not isinstance(test, ast.Name) or test.id not in {_TYPE_CHECKING, _MICROPYTHON}:
            return node
        return node.body if (test.id == _MICROPYTHON) == wanted else node.orelse


def _name(node: ast.Assign) -> str:
    target = node.targets[0]
    return target.id if len(node.targets) == 1 and isinstance(target, ast.Name) else ""
