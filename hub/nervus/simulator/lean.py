"""Source of the firmware made ready for a small heap: the same program with fewer names in it.

A board keeps each name of a module in its heap, and the names' table grows by doubling. Constants
that only their own module reads are written into the code instead (MicroPython's `const`), what
only the methods of one class use goes by a name that all classes share, and what stands there for
type checkers and for CPython is left out. Functions keep their names: tracebacks show them.
"""

import ast
from collections.abc import Iterator
from typing import Final

_TYPE_CHECKING: Final = "TYPE_CHECKING"
_MICROPYTHON: Final = "MICROPYTHON"


def lean(source: str, shared: frozenset[str] = frozenset()) -> str:
    """Return the source to compile.

    Args:
        source: A module of the firmware.
        shared: Private names that are used elsewhere, too, and so must stay; see `shared_names`.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            _shorten(node, shared)
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


def shared_names(source: str) -> set[str]:
    """The private names that a module imports from another one, or asks other objects for."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and not _is_of_self(node):
            found.add(node.attr)
        elif isinstance(node, ast.ClassDef) and node.bases:
            # What it inherits is not seen here.
            found.update(each.attr for each in _of_self(node))
    return {name for name in found if name.startswith("_")}


def _shorten(found: ast.ClassDef, shared: frozenset[str]) -> None:
    """Number the private attributes of a class: `_0`, `_1` …, as in all other classes."""
    functions = {node.name for node in ast.walk(found) if isinstance(node, ast.FunctionDef)}
    attributes = {
        each.attr: ""
        for each in _of_self(found)
        if each.attr.startswith("_") and each.attr not in functions | shared
    }
    short = {name: f"_{number}" for number, name in enumerate(attributes)}
    for each in _of_self(found):
        each.attr = short.get(each.attr, each.attr)
    for node in found.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name):
            target.id = short.get(target.id, target.id)


def _of_self(found: ast.ClassDef) -> Iterator[ast.Attribute]:
    return (
        node for node in ast.walk(found) if isinstance(node, ast.Attribute) and _is_of_self(node)
    )


def _is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"


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
