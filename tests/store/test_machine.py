"""Random histories of four clients, two of them killed at will, against a dictionary."""

from __future__ import annotations

from pathlib import Path

import pytest

import flightstore as fs
from flightstore.errors import StoreFull
from flightstore.testing.machine import explore, machine_for
from flightstore.testing.machine_clients import Executor
from flightstore.testing.machine_room import Room
from flightstore.testing.model import Model


@pytest.mark.slow
@pytest.mark.req(
    "API-2", "API-3", "API-4", "API-5", "API-6", "API-8", "API-11", "API-12", "API-13"
)  # fmt: skip
@pytest.mark.req("INV-1", "INV-2", "INV-9", "FAIL-3", "O-1")
def test_histories_of_several_clients(store_dir: str) -> None:
    Path(store_dir).mkdir()
    machine = machine_for(lambda name, capacity: fs.connect(f"{store_dir}/{name}", capacity=capacity))
    assert explore(machine, seconds=35, least=20) >= 20


class Forgetful(fs.Store):
    """A store that says it deleted, and does not: the machine must notice."""

    def delete(self, refs: object, *, if_unused: bool = False) -> int:
        several = [refs] if isinstance(refs, str | bytes) else list(refs)  # type: ignore[call-overload]
        return sum(ref in self for ref in set(several))


@pytest.mark.slow
def test_the_machine_notices_a_broken_store(store_dir: str) -> None:
    Path(store_dir).mkdir()

    def connect(name: str, capacity: int) -> fs.Store:
        store = fs.connect(f"{store_dir}/{name}", capacity=capacity)
        store.__class__ = Forgetful
        return store

    with pytest.raises((AssertionError, BaseExceptionGroup)):
        explore(machine_for(connect), seconds=60, steps=20, shrink=False)


def test_the_machine_refuses_a_false_full(store: fs.Store) -> None:
    executor = Executor(lambda: store)
    room = Room(store.capacity_bytes, Model(), executor)
    error = StoreFull("no room")
    error.asked_bytes, error.capacity_bytes, error.free_bytes = (
        4096,
        store.capacity_bytes,
        store.capacity_bytes,
    )
    with pytest.raises(AssertionError, match="false StoreFull"):
        room.check_full(error, 4096)
    with pytest.raises(AssertionError, match="false StoreFull"):
        room.check_full_for_many([4096])
