"""What the pages say can be run, and every relative link leads somewhere.

A page's blocks marked ``python`` are joined, in order, into one script that runs in a fresh process against a
store of its own (FLIGHTSTORE_DIR). Blocks with other marks, shell ones for instance, are not run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT, blocks, documents

LIMIT_S = 120


def script_of(page: Path) -> str:
    """The page's Python blocks as one script, each at its line on the page, for the tracebacks."""
    lines: list[str] = []
    for number, code in blocks(page.read_text(), "python"):
        lines += [""] * (number - 1 - len(lines))
        lines += code.splitlines()
    return "\n".join(lines) + "\n"


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


PAGES_WITH_CODE = [page for page in documents() if blocks(page.read_text(), "python")]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES_WITH_CODE, ids=named)
def test_code_of_a_page_runs(page: Path, store_dir: Path, tmp_path: Path) -> None:
    script = tmp_path / f"{page.stem}.py"
    script.write_text(script_of(page))
    environment = {
        **os.environ,
        "FLIGHTSTORE_DIR": str(store_dir),
        "FLIGHTSTORE_CAPACITY": "64MiB",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, f"{named(page)} (line numbers are the page's):\n{done.stderr}"


def without_code(text: str) -> str:
    """The page without fenced blocks and code in backticks, which hold no links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```[ \t]*$", "", text, flags=re.MULTILINE | re.DOTALL))


def relative_links(text: str) -> Iterator[str]:
    """Targets of the links on a page that lead to other files here, or to a heading."""
    for match in re.finditer(r"\[[^\]]*\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)", without_code(text)):
        if not re.match(r"[a-z][a-z0-9+.-]*:", match[1]):
            yield match[1]


def anchors(text: str) -> set[str]:
    """What headings of a page are called in links."""
    headings = re.findall(r"^#+ +(.+?) *$", re.sub(r"^```.*?^```[ \t]*$", "", text, flags=re.M | re.S), re.M)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def broken_links(page: Path) -> list[str]:
    """Links of a page that lead nowhere."""
    broken = []
    for link in relative_links(page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in anchors(target.read_text())
        ):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", documents(), ids=named)
def test_relative_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading, here\n[a](page.md) [b](page.md#a-heading-here) [c](#nowhere) [d](gone.md) "
        "[e](https://example.org/x.md) `[f](code.md)`\n```python\n[g](code.md)\n```\n"
    )
    assert broken_links(page) == ["#nowhere", "gone.md"]


def test_blocks_keep_their_lines(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n```python\na = 1\n```\n```console\n$ ls\n```\n```python\nb = 2\nc = 3\n```\n")
    assert script_of(page).splitlines() == ["", "", "a = 1", "", "", "", "", "", "b = 2", "c = 3"]


def test_pages_are_found() -> None:
    assert ROOT / "docs" / "format.md" in documents()
