"""What is made of a run's JSON: the tables of the page, and the plots."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
SVG = "{http://www.w3.org/2000/svg}"
STORES = {"flightstore", "LMDB", "LMDB, IPC stream", "file"}
MARKS = "<!-- results: begin -->", "<!-- results: end -->"


def call(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("run")
    path = parent / "out.json"
    size = ("--quick", "--size", "1MiB", "--only", "row16", "--only", "table", "--only", "cold")
    call("local.py", *size, "--dir", str(parent), "--json", str(path))
    return path


def test_the_tables_go_between_the_marks_of_a_page_and_nowhere_else(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{MARKS[0]}\nprevious figures\n{MARKS[1]}\n\nafter\n")
    for _ in range(2):
        call("markdown.py", str(results), "--into", str(page))
    text = page.read_text()
    assert text.startswith(f"before\n\n{MARKS[0]}\n")
    assert text.endswith(f"{MARKS[1]}\n\nafter\n")
    assert "previous figures" not in text
    assert text.count("### Against the targets") == 1
    rows = [line for line in text.splitlines() if line.startswith("| put: 1-row table, 16 columns |")]
    assert ["<= 1.5 x LMDB, IPC stream" in row for row in rows] == [True, False]
    (titles,) = (line for line in text.splitlines() if line.startswith("| work | unit |"))
    assert set(titles.strip("| ").split(" | ")) == {"work", "unit"} | STORES
    assert "fresh pwrite 2" in text


def test_a_page_without_marks_is_left_alone(results: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing to replace\n")
    with pytest.raises(subprocess.CalledProcessError):
        call("markdown.py", str(results), "--into", str(page))
    assert page.read_text() == "nothing to replace\n"


def test_the_page_of_results_has_the_marks() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    assert [text.count(mark) for mark in MARKS] == [1, 1]


@pytest.mark.parametrize(("plot", "groups"), [("put", 1), ("get", 2)])
def test_plots_show_every_store(results: Path, tmp_path: Path, plot: str, groups: int) -> None:
    call("plots.py", str(results), str(tmp_path))
    root = ElementTree.parse(tmp_path / f"{plot}.svg").getroot()
    texts = [text.text for text in root.iter(f"{SVG}text")]
    bars = list(root.iter(f"{SVG}rect"))
    ours = [bar for bar in bars if bar.get("class") == "ours"]
    assert len(ours) == groups
    assert STORES - {"LMDB, IPC stream"} <= set(texts)
    assert ("LMDB, IPC stream" in texts) == (plot == "get")
    width = float((root.get("viewBox") or "").split()[2])
    assert all(0 < float(bar.get("x") or 0) + float(bar.get("width") or -1) <= width for bar in bars)


def test_longer_bars_mean_more(results: Path, tmp_path: Path) -> None:
    call("plots.py", str(results), str(tmp_path))
    root = ElementTree.parse(tmp_path / "put.svg").getroot()
    rows = json.loads(results.read_text())["rows"]
    (row,) = (row for row in rows if (row["group"], row["measure"]) == ("table", "put"))
    stores = [label for label in row["of_memcpy"] if label in STORES]
    widths = [float(bar.get("width") or 0) for bar in root.iter(f"{SVG}rect")]
    shares = [row["of_memcpy"][store]["median"] for store in stores]
    assert sorted(widths) == [width for _, width in sorted(zip(shares, widths, strict=True))]
