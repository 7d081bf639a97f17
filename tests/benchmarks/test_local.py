"""The benchmark of one machine runs, and says what it measured. Nothing here asserts a duration."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "benchmarks" / "local.py"), "--quick", "--size", "4MiB"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def memory_dir(tmp_path: Path) -> Path:
    """Where the benchmark keeps its stores; any file system will do for a run that asserts no time."""
    path = tmp_path / "memory"
    path.mkdir()
    return path


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import harness

    yield harness
    sys.modules.pop("harness")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False
    )


def assert_sound(row: dict[str, Any], *, ours: bool) -> None:
    figures = [*row["baselines"].values(), *([row["ours"]] if ours else [])]
    assert all(math.isfinite(figure["median"]) for figure in figures)
    assert all(figure["low"] <= figure["median"] <= figure["high"] for figure in figures)
    assert (row["ours"] is not None) is ours
    assert set(row["ratios"]) == (set(row["baselines"]) if ours else set())
    assert (row["met"] is not None) is (ours and row["target"] is not None)


@pytest.mark.slow
def test_every_group_runs_and_leaves_nothing(memory_dir: Path, tmp_path: Path) -> None:
    done = run("--dir", str(memory_dir), "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert {row["group"] for row in found["rows"]} == {
        "bytes",
        "numpy",
        "row16",
        "row1",
        "warm",
        "cold",
        "many",
    }
    for row in found["rows"]:
        assert_sound(row, ours=True)
    assert "pyarrow" in found["machine"]["libraries"]
    assert "LMDB" in done.stdout
    assert not list(memory_dir.iterdir())


def test_baselines_alone_as_json_on_standard_output(memory_dir: Path) -> None:
    done = run("--dir", str(memory_dir), "--only", "bytes", "--baselines-only", "--json", "-")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["group"] for row in rows] == ["bytes"] * 4
    for row in rows:
        assert_sound(row, ours=False)
        assert set(row["baselines"]) == {"LMDB", "memcpy 1", "memcpy 2"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(memory_dir: Path, number: signal.Signals) -> None:
    command = [*COMMAND, "--dir", str(memory_dir), "--baselines-only"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()
        assert list(memory_dir.iterdir())
        process.send_signal(number)
        process.stderr.read()
        assert process.wait(60) != 0
    assert not list(memory_dir.iterdir())


def test_a_wrong_size_is_a_usage_error() -> None:
    done = run("--size", "plenty")
    assert done.returncode == 2
    assert "64MiB" in done.stderr


def test_ratios_are_taken_within_a_repetition(harness: ModuleType) -> None:
    ours, theirs = iter([9.0, 1.0, 2.0, 30.0]), iter([9.0, 4.0, 4.0, 30.0])
    samples = harness.interleave(
        {harness.OURS: lambda: {"x": next(ours)}, "other": lambda: {"x": next(theirs)}}, 3, warmups=1
    )
    target = harness.Target(0.5, at_most=True, against="other")
    row = harness.make_row("g", "n", "us", samples, "x", {"other": ("other", "x")}, target=target)
    assert row.ratios["other"] == harness.Spread(0.5, 0.25, 1.0)
    assert row.ours == harness.Spread(2.0, 1.0, 30.0)
    assert row.met is True


@pytest.mark.parametrize(("limit", "at_most", "met"), [(5, True, True), (5, False, False), (3, True, False)])
def test_targets_bound_the_median(harness: ModuleType, limit: float, at_most: bool, met: bool) -> None:
    row = harness.make_row(
        "g", "n", "us", {harness.OURS: {"x": [1.0, 4.0, 9.0]}}, "x", {}, target=harness.Target(limit, at_most)
    )
    assert row.met is met
