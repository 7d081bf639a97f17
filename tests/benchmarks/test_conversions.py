"""The benchmark of conversions runs, and says what it measured. Nothing here asserts a duration."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "benchmarks" / "conversions.py"), "--quick", "--size", "2MiB"]
LIBRARIES = {"pandas", "pandas-arrow", "polars", "duckdb", "dask", "numpy", "scan", "scan-sum", "jax"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_every_conversion_is_measured_beside_the_librarys_own(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    done = run("--dir", str(memory), "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert {row["group"] for row in found["rows"]} == LIBRARIES
    assert len(found["rows"]) == 2 * len(LIBRARIES)
    for row in found["rows"]:
        assert math.isfinite(row["ours"]["median"])
        assert set(row["baselines"]) == set(row["ratios"]) == {"own"}
    assert "polars scan, 1 % of the rows" in done.stdout
    assert not list(memory.iterdir())


def test_one_alone_as_json_on_standard_output(tmp_path: Path) -> None:
    done = run("--dir", str(tmp_path), "--only", "numpy", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert {row["group"] for row in json.loads(done.stdout)["rows"]} == {"numpy"}


def test_a_library_nobody_knows_is_a_usage_error() -> None:
    done = run("--only", "excel")
    assert done.returncode == 2
    assert "pandas" in done.stderr
