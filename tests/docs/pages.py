"""What the tests of the pages share: tables, code blocks and links of a page, scripts that make pages."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def documents() -> list[Path]:
    """Every page of the repository that people read: at the top, and in docs/."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")])


def load_script(name: str) -> ModuleType:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named(page: Path) -> str:
    """The page's path in the repository."""
    return str(page.relative_to(ROOT))


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


def fences(text: str) -> list[tuple[int, str, str]]:
    """(line number of the code, info string, code) of the fenced blocks of a page, in order."""
    return [
        (text.count("\n", 0, match.start(2)) + 1, match[1].strip(), match[2])
        for match in re.finditer(r"^```(.*)\n((?:.*\n)*?)```[ \t]*$", text, re.MULTILINE)
    ]


def blocks(text: str, info: str) -> list[tuple[int, str]]:
    """(line number, code) of the fenced blocks of a page whose info string is `info`."""
    return [(number, code) for number, found, code in fences(text) if found == info]


def without_fences(text: str) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```(?:.*\n)(?:.*\n)*?```[ \t]*$", "", text, flags=re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ +(.+?) *$", without_fences(text), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def relative_links(text: str) -> list[str]:
    """Targets of the links on a page that lead to other files here, or to a heading."""
    prose = re.sub(r"`[^`\n]*`", "", without_fences(text))
    found = re.findall(r"\[[^\]]*\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)", prose)
    return [link for link in found if not re.match(r"[a-z][a-z0-9+.-]*:", link)]
