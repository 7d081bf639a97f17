"""A writer can die between its commit and the bell: whoever waits looks again within about a second."""

from __future__ import annotations

import time

import pytest

from flightstore.memory import kernel
from flightstore.store import Store
from flightstore.testing.children import start
from flightstore.testing.crashscenes import close_scene, open_scene, plain
from flightstore.testing.events import Gate, wait_until
from flightstore.testing.killpoints import kill_points, run_killed


def wait_for_it(store: Store, begun: Gate) -> bytes:
    begun.open()
    value: bytes = plain(store.get("late", timeout=None))
    return value


@pytest.mark.req("FAIL-2", "API-12")
def test_waiters_outlive_a_writer_that_dies_before_it_rings() -> None:
    scene = open_scene(hold=False)
    store = scene.survivor
    assert store is not None

    def put() -> None:
        store.put(b"here", "late")

    try:
        # Recorded before anybody waits: the recorded run puts it too.
        point = next(at for at in kill_points(put) if at.at.function == "Control.ring")
        assert store.delete("late") == 1
        with Gate("waiting") as begun, start(wait_for_it, store, begun) as waiter:
            begun.wait()
            wait_until(lambda: kernel.process_state(waiter.pid) == "S", what="the waiter sleeps")
            assert run_killed(put, point).kind == "killed"
            committed = time.monotonic()
            assert store.contains("late"), "it died after its commit"
            assert waiter.result(deadline_s=60) == b"here"
            assert time.monotonic() - committed < 30  # one second, and the noise of the machine
    finally:
        close_scene(scene)
