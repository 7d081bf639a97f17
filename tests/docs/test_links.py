"""Every relative link leads somewhere, and every page is found from docs/index.md."""

from __future__ import annotations

from pathlib import Path

import pytest
from pages import ROOT, anchors, documents, named, relative_links, table_after

INDEX = ROOT / "docs" / "index.md"


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


def reachable(start: Path) -> set[Path]:
    """The pages that links lead to, from one page on."""
    found, waiting = {start}, [start]
    while waiting:
        page = waiting.pop()
        for link in relative_links(page.read_text()):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target not in found:
                found.add(target)
                waiting.append(target)
    return found


@pytest.mark.parametrize("page", documents(), ids=named)
def test_relative_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading, here\n[a](page.md) [b](page.md#a-heading-here) [c](#nowhere) [d](gone.md) "
        "[e](https://example.org/x.md) `[f](code.md)` [`h`](away.md)\n```python\n[g](code.md)\n```\n"
    )
    assert broken_links(page) == ["#nowhere", "gone.md", "away.md"]


def test_every_page_is_reachable_from_the_index() -> None:
    missed = {page.resolve() for page in (ROOT / "docs").rglob("*.md")} - reachable(INDEX)
    assert {named(page) for page in missed} == set()


def test_the_index_is_linked_from_the_readme() -> None:
    assert "docs/index.md" in relative_links((ROOT / "README.md").read_text())


def test_a_page_without_links_to_it_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text("[a](a.md)\n")
    (tmp_path / "a.md").write_text("[back](index.md#x)\n")
    (tmp_path / "b.md").write_text("alone\n")
    assert reachable(tmp_path / "index.md") == {tmp_path / "index.md", tmp_path / "a.md"}


def test_pages_are_found() -> None:
    assert ROOT / "docs" / "format.md" in documents()


def test_the_architecture_names_every_module_of_the_objects() -> None:
    rows = table_after((ROOT / "ARCHITECTURE.md").read_text(), "Inside `objects/`")
    named_there = {name.strip(" `") for row in rows for name in row["file"].split(",")}
    modules = {path.stem for path in (ROOT / "flightstore" / "objects").glob("*.py")}
    assert named_there == modules - {"__init__"}
