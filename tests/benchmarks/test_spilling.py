"""The benchmark of spilling runs, and says what it measured. Nothing here asserts a duration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.req("INV-5")
def test_the_benchmark_runs_and_leaves_nothing(tmp_path: Path) -> None:
    disk, out = tmp_path / "disk", tmp_path / "out.json"
    disk.mkdir()
    command = [sys.executable, str(ROOT / "benchmarks" / "spilling.py"), "--quick", "--json", str(out)]
    done = subprocess.run(
        [*command, "--disk", str(disk)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert sum("get 1 MiB" in json.dumps(row) for row in content["rows"]) == 4
    assert list(disk.iterdir()) == []
