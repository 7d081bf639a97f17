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

import flightstore

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
        [*COMMAND, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=480, check=False
    )


def assert_sound(row: dict[str, Any], *, ours: bool) -> None:
    figures = [*row["baselines"].values(), *([row["ours"]] if ours else [])]
    assert all(math.isfinite(figure["median"]) for figure in figures)
    assert all(figure["low"] <= figure["median"] <= figure["high"] for figure in figures)
    assert (row["ours"] is not None) is ours
    compared = row["unit"] not in ("KiB", "bytes")
    assert set(row["ratios"]) == (set(row["baselines"]) if ours and compared else set())
    assert (row["met"] is not None) is (ours and row["target"] is not None)


@pytest.mark.slow
def test_every_workload_runs_and_leaves_nothing(memory_dir: Path, tmp_path: Path) -> None:
    done = run("--dir", str(memory_dir), "--json", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    composes = hasattr(flightstore.Store, "with_columns")
    for row in found["rows"]:
        assert_sound(row, ours=composes or row["group"] != "add")
    groups = {row["group"] for row in found["rows"]}
    assert groups == {"bytes", "array", "table1", "row16", "row1", "table", "table16", "cold", "cold16"} | {
        "add",
        "pandas",
        "mixed",
        "polars",
        "wide",
        "many",
    }
    assert len(found["left_out"]) == (not composes)
    assert "pyarrow" in found["machine"]["libraries"]
    assert all(label in done.stdout for label in ("LMDB", "LMDB, IPC stream", "file", "memcpy 2"))
    assert not list(memory_dir.iterdir())


def test_baselines_alone_as_json_on_standard_output(memory_dir: Path) -> None:
    done = run("--dir", str(memory_dir), "--only", "bytes", "--baselines-only", "--json", "-")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["group"] for row in rows] == ["bytes"] * 4
    for row in rows:
        assert_sound(row, ours=False)
        assert set(row["baselines"]) == {"LMDB", "file", "memcpy 1", "memcpy 2"}
        assert set(row["of_memcpy"]) == {"LMDB", "file", "memcpy 2"}


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


def test_an_unknown_peer_is_a_usage_error() -> None:
    done = run("--peers", "redis")
    assert done.returncode == 2
    assert "plasma" in done.stderr


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
    row = harness.make_row("g", "n", "us", [samples], "x", {"other": ("other", "x")}, target=target)
    assert row.ratios["other"] == harness.Spread(0.5, 0.25, 1.0)
    assert row.ours == harness.Spread(2.0, 1.0, 30.0)
    assert row.met is True


def test_a_ratio_never_crosses_runs_and_leaves_out_what_was_not_measured(harness: ModuleType) -> None:
    here = {harness.OURS: {"x": [1.0, 2.0]}, "memcpy": {"x": [2.0, 2.0]}}
    there = {harness.OURS: {"x": [10.0, 30.0]}, "peer": {"x": [None, 60.0]}, "memcpy": {"x": [5.0, 5.0]}}
    beside = {name: (name, "x") for name in ("peer", "memcpy", "absent")}
    row = harness.make_row("g", "n", "us", [here, there], "x", beside, memcpy="memcpy")
    assert row.ours == harness.Spread(1.5, 1.0, 2.0)
    assert row.ratios == {"peer": harness.Spread(0.5, 0.5, 0.5), "memcpy": harness.Spread(0.75, 0.5, 1.0)}
    assert row.baselines["peer"] == harness.Spread(60.0, 60.0, 60.0)
    assert row.of_memcpy["peer"].median == 12.0
    assert row.of_memcpy[harness.OURS].median == 0.75


def test_what_was_not_measured_in_a_repetition_is_none(harness: ModuleType) -> None:
    turns = iter([{"x": 1.0}, {"x": 2.0, "rare": 7.0}, {"x": 3.0}])
    samples = harness.interleave({"one": lambda: next(turns)}, 3, warmups=0)
    assert samples == {"one": {"x": [1.0, 2.0, 3.0], "rare": [None, 7.0, None]}}


@pytest.mark.parametrize(("limit", "at_most", "met"), [(5, True, True), (5, False, False), (3, True, False)])
def test_targets_bound_the_median(harness: ModuleType, limit: float, at_most: bool, met: bool) -> None:
    row = harness.make_row(
        "g",
        "n",
        "us",
        [{harness.OURS: {"x": [1.0, 4.0, 9.0]}}],
        "x",
        {},
        target=harness.Target(limit, at_most),
    )
    assert row.met is met
