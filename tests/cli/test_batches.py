"""`flightstore batches` and `flightstore batch`."""

from __future__ import annotations

import pytest

import flightstore

from .conftest import Run


@pytest.mark.req("BAT-8", "BAT-3", "BAT-4")
def test_batches_are_listed_ended_and_deleted(run: Run, store: flightstore.Store) -> None:
    assert run("batches", "--json").json == {"batches": []}
    with store.batch("job", timeout=1000):
        store.put(bytes(2048), "x")
        closed = store.new_batch("results", cleanup=False)
    closed.end()
    active = store.new_batch("active")
    with active.activate():
        store.put(b"y", "y")
    listed = run("batches")
    assert listed.code == 0, listed.err
    assert "active" in listed.out
    assert "closed" in listed.out
    found = {info["name"]: info for info in run("batches", "--json").json["batches"]}
    assert found["active"]["objects"] == 1
    assert run("batch", "end", str(active.number)).out == f"ended batch {active.number}\n"
    assert not store.contains("y")
    again = run("batch", "end", str(active.number), "--json")
    assert (again.code, again.error["error"]) == (1, "BatchEnded")
    assert run("--json", "batch", "delete", str(closed.number)).json == {"deleted": closed.number}
    assert run("batch", "end", "x").code == run("batch", "steal", "1").code == 2
