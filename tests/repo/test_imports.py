"""Dependencies between the rooms of the package point one way, and the connectors use the public API alone.

Read from the source, so an import inside a function counts too. Imports under ``if TYPE_CHECKING`` do not:
they are gone at run time. The checker itself is tried on small trees that break each rule.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What each room may import, beside itself. A room is a module or folder of the package; "" is its top.
SHARED = {"errors", "types", "config", "version"}
STORE = SHARED | {"memory", "catalog", "objects", "abc", "lifecycle"}
PUBLIC = {"", "abc", "errors", "types", "objects"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": SHARED,
    "types": SHARED,
    "config": SHARED,
    "version": SHARED,
    "memory": SHARED,
    "catalog": SHARED,
    "objects": SHARED | {"memory", "catalog"},
    "abc": SHARED | {"objects"},
    "lifecycle": SHARED | {"memory", "catalog", "objects", "abc"},
    "store": STORE,
    "": STORE | {"store", "wire", "remote", "connecting"},
    "connecting": STORE | {"store", "remote"},
    "wire": SHARED,
    "gateway": STORE | {"store", "", "wire"},
    "remote": STORE | {"store", "wire"},
    "cluster": STORE | {"store", "", "wire", "gateway", "remote"},
    "connectors": PUBLIC,
    "adapters": PUBLIC | {"connectors"},
    "testing": STORE | {"store", "", "wire", "gateway", "remote", "cluster", "connectors", "adapters"},
    "cli": STORE | {"store", "", "wire", "gateway", "remote", "cluster", "connectors", "adapters", "testing"},
}


def is_type_checking(node: ast.If) -> bool:
    """Whether this is ``if TYPE_CHECKING:``, in either spelling."""
    return ast.unparse(node.test).removeprefix("typing.") == "TYPE_CHECKING"


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below `node`, except what runs only in type checkers."""
    hidden = set(node.body) if isinstance(node, ast.If) and is_type_checking(node) else set()
    for child in set(ast.iter_child_nodes(node)) - hidden:
        yield child
        yield from runtime_nodes(child)


def package_of(module: str, path: Path) -> list[str]:
    """The package that relative imports in a module start from."""
    parts = module.split(".")
    return parts if path.name == "__init__.py" else parts[:-1]


def imported_modules(path: Path, module: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of each import of ours; ``from a import b`` gives ``a.b``: it may be a module."""
    for node in runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package_of(module, path)
            start = start[: len(start) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "flightstore")


def room_of(module: str, rooms: set[str]) -> str:
    """The room a dotted name belongs to; names that the package exports itself belong to ""."""
    second = module.partition(".")[2].partition(".")[0]
    return second if second in rooms else ""


def find_violations(root: Path) -> list[str]:
    """Every import in ``root/flightstore`` that points the wrong way."""
    package = root / "flightstore"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    rooms -= {"__init__", "__main__", "__pycache__"}
    found = [f"{room} is not in the table of rooms" for room in sorted(rooms - MAY_IMPORT.keys())]
    for path in itertools.chain(package.glob("*.py"), *(package.glob(f"{room}/**/*.py") for room in rooms)):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        room = room_of(module, rooms)
        allowed = MAY_IMPORT.get(room, set()) | {room}
        for line, name in imported_modules(path, module):
            if room_of(name, rooms | MAY_IMPORT.keys()) not in allowed:
                where = f"{path.relative_to(root)}:{line}"
                found.append(f"{where}: {room or 'flightstore'} must not import {name}")
    return sorted(found)


def test_dependencies_point_one_way() -> None:
    assert find_violations(ROOT) == []


def test_the_table_has_no_cycle() -> None:
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        left = MAY_IMPORT.keys() - set(order)
        free = [room for room in left if MAY_IMPORT[room] - SHARED <= {*order, room}]
        assert free, f"a cycle among {left}"
        order += free


def make_tree(root: Path, files: dict[str, str]) -> None:
    """A small package: its rooms, and the files given."""
    for room in ("memory", "catalog", "objects", "store", "connectors", "cli"):
        (root / "flightstore" / room).mkdir(parents=True)
        (root / "flightstore" / room / "__init__.py").write_text("")
    (root / "flightstore" / "__init__.py").write_text("")
    for name, text in files.items():
        (root / "flightstore" / name).write_text(text)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("memory/a.py", "import flightstore.catalog"),
        ("memory/a.py", "from flightstore import catalog"),
        ("memory/a.py", "from .. import catalog"),
        ("memory/a.py", "from ..catalog.records import Record"),
        ("memory/__init__.py", "from ..catalog import records"),
        ("catalog/a.py", "def f():\n    from flightstore.memory.arena import Arena"),
        ("catalog/a.py", "try:\n    import flightstore.objects as o\nexcept ImportError:\n    pass"),
        ("catalog/a.py", "from flightstore import Store"),
        ("objects/a.py", "from flightstore.store import Store"),
        ("objects/a.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import flightstore.store"),
        ("connectors/a.py", "from flightstore.catalog import records"),
        ("connectors/a.py", "from flightstore.store import Store"),
        ("store/a.py", "import flightstore.cli"),
        ("unheard_of.py", ""),
    ],
)
def test_a_violation_is_found(tmp_path: Path, file: str, text: str) -> None:
    make_tree(tmp_path, {file: text})
    assert len(find_violations(tmp_path)) == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("memory/a.py", "from flightstore.memory import b\nfrom . import c\nimport os, lmdb"),
        ("memory/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import flightstore.store"),
        ("objects/a.py", "from flightstore.catalog.records import Record"),
        ("connectors/a.py", "from flightstore import Store\nimport flightstore.objects.base"),
        ("cli/a.py", "from flightstore.store import Store"),
    ],
)
def test_what_is_allowed_is_not_reported(tmp_path: Path, file: str, text: str) -> None:
    make_tree(tmp_path, {file: text})
    assert find_violations(tmp_path) == []
