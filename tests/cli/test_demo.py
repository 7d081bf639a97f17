"""The demo proves what it says, and cleans up however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flightstore.cli import demo, demo_data, demo_steps
from flightstore.testing.events import wait_until

from .conftest import Run

Start = Callable[..., "subprocess.Popen[bytes]"]
TRIES = 5


@pytest.mark.slow
@pytest.mark.req("O-1", "API-7", "FAIL-2")
def test_every_step_is_proved(start: Start, store_path: str) -> None:
    process = start("demo", "--rows", "200000", "--json")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err.decode()
    document = json.loads(out)
    assert document["ok"]
    steps = {step["what"].split(" by ")[0].split(" process")[0]: step for step in document["steps"]}
    assert {
        "put",
        "get + to_arrow",
        "get + to_pandas",
        "get + to_polars",
        "added a column",
        "killed",
        "recover",
    } <= set(steps)
    facts = [steps[f"get + to_{library}"]["facts"] for library in ("arrow", "pandas", "polars")]
    assert len({fact["pid"] for fact in facts}) == 3
    assert len({(fact["quantity"], fact["revenue_cents"]) for fact in facts}) == 1
    assert facts[0]["copied"] == []
    assert facts[0]["shared_bytes"] == facts[0]["total_bytes"]
    assert facts[0]["write_signal"] == "SIGSEGV"
    assert not Path(store_path).exists(), "the demo leaves the default store alone"


def processes_on(place: Path) -> list[str]:
    """Command lines of the processes that were given a path as an argument."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes()
        except OSError:
            continue
        if os.fsencode(place) in line.split(b"\0"):
            found.append(line.replace(b"\0", b" ").decode())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_cleans_up(start: Start, store_path: str, number: int) -> None:
    for _ in range(TRIES):
        process = start("demo", "--rows", "300000")
        assert process.stdout is not None
        head = b""
        while b"\n2. " not in head:
            piece = process.stdout.readline()
            assert piece, "the demo ended by itself"
            head += piece
        match = re.search(r"The store: (\S+),", head.decode())
        assert match
        place = Path(match[1])
        there = place.exists()
        process.send_signal(number)
        _out, err = process.communicate(timeout=60)
        if process.returncode != 0 and there:
            break  # else it was over, or nearly so, before the signal came
    assert there
    assert process.returncode == (130 if number == signal.SIGINT else 143)
    assert b"Traceback" not in err
    # A step that outlived the demo could make the store again. What a step had forked was killed with it,
    # and may take a moment to be gone.
    wait_until(lambda: processes_on(place) == [], what="no process of the demo is left")
    assert not place.parent.exists()


@pytest.mark.slow
def test_without_shared_memory_the_demo_runs_on_a_disk(
    tmp_path: Path, store_path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = demo._memory_directory(20_000, shm=str(tmp_path / "absent"))
    assert place == str(tmp_path)
    assert "warning" in capsys.readouterr().err
    steps: list[demo.Step] = []
    demo.run(20_000, str(tmp_path / "store"), str(tmp_path / "orders.parquet"), steps.append)
    assert [step.what for step in steps if not step.ok] == []
    assert not (tmp_path / "store").exists()


def test_the_data_are_the_same_on_every_run() -> None:
    first = demo_data.orders(1000)
    assert first.equals(demo_data.orders(1000))
    assert first.num_rows == 1000
    assert first["note"].null_count > 500
    assert len(first["category"].unique()) > 10


def test_the_mapping_is_read_from_the_kernels_list() -> None:
    maps = (
        "7f0000000000-7f0000001000 rw-s 00000000 00:1 1 /dev/shm/a b/arena\n"
        "7f1000000000-7f1000100000 r--s 00000000 00:1 1                 /dev/shm/a b/arena\n"
        "7f2000000000-7f2000000000 r--p 00000000 00:0 0 \n"
    )
    assert demo_steps.read_only_mapping("/dev/shm/a b/arena", maps) == (
        0x7F1000000000,
        0x7F1000100000,
        "r--s",
    )
    assert demo_steps.read_only_mapping("/dev/shm/other", maps) is None


def test_a_copy_is_not_taken_for_shared() -> None:
    mapping = (1000, 2000, "r--s")
    seen = demo_steps.sharing({"in": [(1000, 500)], "out": [(3000, 8)], "across": [(1500, 501)]}, mapping)
    assert (seen["shared"], seen["copied"], seen["shared_bytes"]) == (["in"], ["out", "across"], 500)
    assert demo_steps.refused_write(np.zeros(3)) == "", "a writable array is not taken for a read-only one"


def test_too_few_rows_are_refused(run: Run) -> None:
    assert run("demo", "--rows", "10").code == 2
