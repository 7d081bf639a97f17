"""The shape of the files: small, opened by a few words, functions that fit a screen; links that work."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60
"""Lines of code, the docstring not counted."""

LINKS = {"flightstore/connectors": "../connectors", "flightstore/adapters": "../adapters"}
FOLDERS = ("flightstore", "connectors", "adapters", "tests", "benchmarks", "examples", "scripts")


def python_files(*folders: str) -> list[Path]:
    """Every Python file below these folders once, links not followed."""
    found: list[Path] = []
    for folder in folders:
        for directory, _, names in os.walk(ROOT / folder):
            found += [Path(directory, name) for name in names if name.endswith(".py")]
    return sorted(found)


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, without the docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    docstring_lines = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring_lines


def long_functions(text: str) -> Iterator[str]:
    """Functions that are too long, with their lengths."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > MAX_FUNCTION_LINES:
            yield f"{node.name}: {code_lines(node)} lines"


def test_files_are_found() -> None:
    assert ROOT / "flightstore" / "errors.py" in python_files("flightstore")


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in python_files(*FOLDERS)}
    assert {str(path): length for path, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_every_module_has_a_docstring() -> None:
    files = python_files(*FOLDERS)
    assert [str(path) for path in files if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_no_function_is_too_long() -> None:
    files = python_files("flightstore", "connectors", "adapters")
    found = {str(path.relative_to(ROOT)): list(long_functions(path.read_text())) for path in files}
    assert {path: functions for path, functions in found.items() if functions} == {}


def test_long_functions_are_noticed() -> None:
    body = "    x = 1\n" * MAX_FUNCTION_LINES
    docstring = '    """' + "A long one.\n" * 100 + '    """\n'
    assert list(long_functions("def f():\n" + body)) == ["f: 61 lines"]
    assert list(long_functions("def f():\n" + docstring + body[10:])) == []


@pytest.mark.parametrize("link", LINKS)
def test_links_are_relative_and_right(link: str) -> None:
    assert os.readlink(ROOT / link) == LINKS[link]
    assert (ROOT / link / "__init__.py").is_file()


def test_there_are_no_other_links() -> None:
    found = {
        str(Path(directory, name).relative_to(ROOT))
        for folder in (*FOLDERS, "docs")
        for directory, folders, files in os.walk(ROOT / folder)
        for name in (*folders, *files)
        if Path(directory, name).is_symlink() and "node_modules" not in directory
    }
    assert found == set(LINKS)
