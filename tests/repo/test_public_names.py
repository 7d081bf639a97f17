"""The public names: documented, visible to static tools, and cheap to import."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import flightstore

ROOT = Path(__file__).parents[2]
PUBLIC = list(getattr(flightstore, "__all__", ()))
HEAVY = ("duckdb", "lmdb", "numpy", "pandas", "polars", "pyarrow", "ray", "rich")


def bound_names(tree: ast.Module) -> set[str]:
    """Names that a type checker sees at the top of a module, ``if TYPE_CHECKING`` blocks included."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def test_there_are_public_names() -> None:
    assert PUBLIC
    assert len(PUBLIC) == len(set(PUBLIC))


def test_static_tools_see_every_public_name() -> None:
    tree = ast.parse((ROOT / "flightstore" / "__init__.py").read_text())
    assert set(PUBLIC) - bound_names(tree) == set()


def test_dir_lists_every_public_name() -> None:
    assert set(PUBLIC) - set(dir(flightstore)) == set()


def lacks_docstring(name: str) -> bool:
    """Whether a public class or function says nothing of its own (dataclasses generate a signature)."""
    value = getattr(flightstore, name)
    if not callable(value):
        return False
    text = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return not text or text.startswith(f"{name}(")


def undocumented_methods(name: str) -> list[str]:
    """Public methods and properties, of our own, that have no docstring."""
    value = getattr(flightstore, name)
    members = inspect.getmembers(value) if inspect.isclass(value) else []
    return [
        f"{name}.{member}"
        for member, found in members
        if not member.startswith("_")
        and (inspect.isfunction(found) or isinstance(found, property | classmethod | staticmethod))
        and not inspect.getdoc(found)
    ]


def test_every_public_name_exists_and_is_documented() -> None:
    assert [name for name in PUBLIC if lacks_docstring(name)] == []


def test_every_public_method_is_documented() -> None:
    assert [method for name in PUBLIC for method in undocumented_methods(name)] == []


def test_import_is_light() -> None:
    code = f"import sys, flightstore; print(sorted(set(sys.modules) & set({HEAVY})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
