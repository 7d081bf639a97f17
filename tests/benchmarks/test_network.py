"""The benchmark of the gateway runs, and says what it measured. Nothing here asserts a duration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_it_runs_and_leaves_nothing(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    command = [sys.executable, str(ROOT / "benchmarks" / "network.py"), "--quick", "--dir", str(memory)]
    done = subprocess.run(
        [*command, "--json", "-"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert len(rows) == 12
    assert all(row["ours"]["median"] > 0 for row in rows.values())
    assert {"bare Flight", "sendfile", "send"} == set(rows["get, our client"]["baselines"])
    assert list(memory.iterdir()) == []
