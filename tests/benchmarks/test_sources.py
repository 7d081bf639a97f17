"""The benchmark of reading files runs, and says what it measured. Nothing here asserts a duration."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.req("O-4")
@pytest.mark.parametrize("size", ["16MiB"])
def test_the_benchmark_runs(tmp_path: Path, size: str) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "sources.py"), "--quick", "--size", size]
    done = subprocess.run(
        [*command, "--json", str(out)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(out.read_text())
    assert [row["reader"] for row in content["rows"]] == ["sources.read", "pq.read_table", "pl.read_parquet"]
    assert content["decoded_bytes"] >= 16 << 20
