"""Gates and barriers across fork."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from flightstore.testing.children import start
from flightstore.testing.events import Barrier, Gate, wait_for_file


def test_a_gate_opens_across_a_fork_and_stays_open() -> None:
    with Gate("start") as gate:
        assert not gate.is_open
        with start(gate.open) as opener:
            gate.wait()
            opener.result()
        gate.wait(0)
        gate.wait(0)


def test_a_closed_gate_times_out_by_name() -> None:
    with Gate("the start") as gate, pytest.raises(TimeoutError, match="the start was not opened"):
        gate.wait(0.01)


def test_a_barrier_holds_until_all_have_come() -> None:
    with Barrier(3) as barrier, start(barrier.wait) as first:
        while barrier.arrived < 1:
            os.sched_yield()
        thread = threading.Thread(target=barrier.wait)
        thread.start()
        barrier.wait()
        first.result()
        thread.join(60)
        assert not thread.is_alive()
        assert barrier.arrived == 3


def test_a_barrier_that_somebody_misses_times_out() -> None:
    with Barrier(2, "both") as barrier, pytest.raises(TimeoutError, match="both"):
        barrier.wait(0.01)


def test_a_file_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "made"
    with start(path.touch):
        assert wait_for_file(path) == path
    with pytest.raises(TimeoutError, match="never appears"):
        wait_for_file(tmp_path / "never", timeout_s=0.01)
