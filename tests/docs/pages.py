"""What the tests of the pages share: a page's tables and code blocks, as Markdown has them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def documents() -> list[Path]:
    """Every page of the repository that people read: at the top, and in docs/."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])


def tables(text: str) -> list[list[dict[str, str]]]:
    """The tables of a page: rows by the column titles; backticks around a whole cell are dropped."""
    found: list[list[dict[str, str]]] = []
    titles: list[str] | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            titles = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if titles is None:
            titles = cells
            found.append([])
        elif not set(line) <= set("|-: "):
            assert len(cells) == len(titles), (
                f"a row of {len(cells)} cells under {len(titles)} titles: {line}"
            )
            plain = (re.sub(r"^`([^`]*)`$", r"\1", cell) for cell in cells)
            found[-1].append(dict(zip(titles, plain, strict=True)))
    return found


def table_after(text: str, marker: str) -> list[dict[str, str]]:
    """The first table behind the line that begins with `marker`."""
    _, found, rest = f"\n{text}".partition(f"\n{marker}")
    assert found, f"the page has no line that begins with {marker!r}"
    return tables(rest.partition("\n")[2])[0]


def blocks(text: str, language: str) -> list[tuple[int, str]]:
    """(line number, code) of the fenced blocks of a page that are marked with `language`."""
    found = []
    pattern = rf"^```{language}[ \t]*\n(.*?)^```[ \t]*$"
    for match in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
        found.append((text.count("\n", 0, match.start(1)) + 1, match[1]))
    return found
