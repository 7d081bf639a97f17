"""The benchmark of from_ray runs, in a network of its own, and says what it measured. Asserts no duration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIZE = 16 << 20


@pytest.mark.slow
@pytest.mark.needs("root", "network")
@pytest.mark.req("O-5")
def test_it_runs_and_leaves_nothing(store_dir: Path) -> None:
    memory = store_dir.parent
    command = [sys.executable, str(ROOT / "benchmarks" / "from_ray.py"), "--quick", "--dir", str(memory)]
    done = subprocess.run(
        [*command, "--size", str(SIZE), "--json", "-"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {row["group"].partition(", ")[2] for row in rows} == {"Arrow table", "NumPy array"}
    assert all(row["ours"]["median"] > 0 for row in rows if row["name"] == "from_ray")
    assert list(memory.iterdir()) == []
