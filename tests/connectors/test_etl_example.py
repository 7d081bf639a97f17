"""The ETL example: by a store and by files it gives the same report, and the store is empty afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "examples" / "etl" / "run.py"), "--rows", "20000"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.req("O-1", "O-2", "O-4", "BAT-1", "BAT-5")
@pytest.mark.slow
def test_the_reports_are_equal_and_nothing_is_left(store_dir: str) -> None:
    parent = Path(store_dir).parent
    done = run("--dir", str(parent), "--partitions", "3", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["equal"]
    assert found["report_rows"] == 48
    assert found["objects_left"] == 0
    assert found["hand_over_ratio"] > 0
    assert found["store"]["all_s"] > 0
    assert list(parent.iterdir()) == []
    assert "Parquet files" in done.stderr
    assert "handing over by the store" in done.stderr
    assert "(48 rows) are equal" in done.stderr
