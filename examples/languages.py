"""A table of languages x operations: builds the programs in this folder, runs each of them against a gateway,
and says what was seen to work.

    python examples/languages.py [LANGUAGE...]

Builds and downloads go to .cache/languages in the clone, and nowhere else. A language whose tools this
machine lacks is named as left out. The exit status is 0 when nothing failed. The tests of the languages
(tests/languages) run the same checks, one by one.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from language_checks.building import LANGUAGES, Language
from language_checks.gateway import Gateway
from language_checks.operations import OPERATIONS, Run
from rich.console import Console
from rich.table import Table


def _outcome(check: Callable[[Run], str], run: Run) -> str:
    """What the table says of one cell."""
    try:
        return check(run)
    except Exception as error:
        print(f"{run.language}: {check.__name__}: {error}", file=sys.stderr)
        return "FAILED"


def row_of(language: Language, open_gateway: Gateway, closed_gateway: Gateway, place: Path) -> list[str]:
    """One language's outcomes: what it took to build, and each operation."""
    if language.missing():
        return [f"left out: {language.remedy}"] + ["-"] * len(OPERATIONS)
    try:
        seconds = language.built()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return ["FAILED"] + ["-"] * len(OPERATIONS)
    run = Run(language.name, language.command, open_gateway, closed_gateway, place)
    cells = [f"{seconds:.1f} s"]
    for name, check in OPERATIONS.items():
        cells.append("-" if name == "in place" and not language.maps else _outcome(check, run))
    return cells


def main(names: list[str]) -> int:
    """Print the table."""
    columns: dict[str, list[str]] = {}
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flightstore-languages-")))
        open_gateway = stack.enter_context(Gateway(place / "open", secure=False))
        closed_gateway = stack.enter_context(Gateway(place / "closed", secure=True))
        for name in names or LANGUAGES:
            columns[name] = row_of(LANGUAGES[name], open_gateway, closed_gateway, place)
    table = Table("", *columns)
    for label, cells in zip(["build", *OPERATIONS], zip(*columns.values(), strict=True), strict=True):
        table.add_row(label, *cells)
    Console(width=max(110, Console().width)).print(table)
    return int(any("FAILED" in cells for cells in columns.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
