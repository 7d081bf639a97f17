"""Write docs/promises.md: which promise is proved by which tests.

The promises are in docs/promises.toml, the proofs are the ``pytest.mark.req`` marks in tests/, read from the
source without importing it. `make promises` runs this; a test fails when the page is older than the marks.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "promises.md"

INTRODUCTION = """\
# Promises, and the tests that prove them

<!-- Made by `make promises` from promises.toml and the marks on the tests. Do not edit. -->

{proved} of {total} promises have tests. The others are planned, and say so here.
"""

Promises = dict[str, dict[str, str]]
"""Title of a group -> id -> the promise."""
Proofs = dict[str, list[tuple[str, str]]]
"""Id -> (file, test) of each proof, in the order found."""


def load_promises(path: Path = ROOT / "docs" / "promises.toml") -> Promises:
    """The promises, in the order of the file."""
    return tomllib.loads(path.read_text())


def required_ids(node: ast.AST) -> Iterator[str]:
    """Ids in every ``pytest.mark.req(...)`` within an expression.

    Raises:
        ValueError: an id is not a literal.
    """
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("pytest.mark.req", "mark.req"):
            for argument in call.args:
                if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
                    raise ValueError(f"line {call.lineno}: ids of promises must be written out")
                yield argument.value


def marks_of(body: list[ast.stmt]) -> list[str]:
    """Ids in the ``pytestmark`` of a module or class: they hold for every test in it."""
    ids: list[str] = []
    for statement in body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "pytestmark":
            ids += required_ids(statement.value)
    return ids


def proofs_in(body: list[ast.stmt], inherited: list[str], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(id, test) for each test in the body of a module or class."""
    inherited = inherited + marks_of(body)
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own = inherited + [name for mark in statement.decorator_list for name in required_ids(mark)]
            if isinstance(statement, ast.ClassDef):
                found = list(proofs_in(statement.body, own, f"{prefix}{statement.name}::"))
                yield from found
                if not found and statement.name.startswith("Test") and statement.bases:
                    # Its tests are those of a suite that it derives from.
                    ids = [*own, *marks_of(statement.body)]
                    yield from ((name, prefix + statement.name) for name in ids)
            elif statement.name.startswith("test"):
                yield from ((name, prefix + statement.name) for name in own)
        elif isinstance(statement, ast.Assign):
            # TestModel = pytest.mark.req("X-1")(Model.TestCase), the form of stateful tests.
            target = ast.unparse(statement.targets[0])
            if target.startswith("Test"):
                ids = [*inherited, *required_ids(statement.value)]
                yield from ((name, prefix + target) for name in ids)


def collect_proofs(tests: Path) -> Proofs:
    """Every mark below a folder of tests."""
    found: Proofs = {}
    for path in sorted(tests.rglob("test_*.py")):
        file = path.relative_to(tests.parent).as_posix()
        tree = ast.parse(path.read_text(), filename=str(path))
        proofs = list(proofs_in(tree.body, []))
        if lost := set(required_ids(tree)) - {name for name, _ in proofs}:
            raise ValueError(f"{file}: the marks {sorted(lost)} belong to no test")
        for name, test in dict.fromkeys(proofs):
            found.setdefault(name, []).append((file, test))
    return found


def render_proofs(proofs: list[tuple[str, str]]) -> str:
    """The tests of one promise, a line for each file."""
    if not proofs:
        return "- not yet proved\n"
    files: dict[str, list[str]] = {}
    for file, test in proofs:
        files.setdefault(file, []).append(f"`{test}`")
    return "".join(f"- [{file}](../{file}): {', '.join(tests)}\n" for file, tests in files.items())


def render(promises: Promises, proofs: Proofs) -> str:
    """The page.

    Raises:
        ValueError: a test names a promise that does not exist.
    """
    known = {name for group in promises.values() for name in group}
    if unknown := proofs.keys() - known:
        raise ValueError(f"tests name promises that are not in docs/promises.toml: {sorted(unknown)}")
    parts = [INTRODUCTION.format(proved=len(proofs), total=len(known))]
    for title, group in promises.items():
        parts.append(f"## {title}\n")
        parts += [
            f"**{name}** {text}\n\n{render_proofs(proofs.get(name, []))}" for name, text in group.items()
        ]
    return "\n".join(parts)


def main() -> int:
    """Write the page."""
    try:
        PAGE.write_text(render(load_promises(), collect_proofs(ROOT / "tests")))
    except ValueError as error:
        print(f"promises: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
