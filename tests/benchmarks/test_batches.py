"""The benchmark of batches runs, and says what it measured. Nothing here asserts a duration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.req("BAT-11")
def test_the_benchmark_runs_and_the_long_job_is_untouched(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "batches.py"), "--quick", "--jobs", "3"]
    done = subprocess.run(
        [*command, "--dir", str(tmp_path), "--json", str(out)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "end of a batch of 300" in done.stdout
    content = json.loads(out.read_text())
    assert content["long_job_untouched"]
    assert all(row["low"] <= row["median"] <= row["high"] for row in content["rows"])
    assert {row["name"] for row in content["rows"] if row["target"]} == {
        "end of a batch of 300",
        "reclaiming, per 100 objects",
    }
