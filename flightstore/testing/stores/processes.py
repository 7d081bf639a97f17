"""Tests of a store: several processes, and several threads."""

from __future__ import annotations

import os
import threading

import numpy as np
import pyarrow as pa
import pytest

from flightstore.abc import AbstractStore
from flightstore.errors import ObjectNotFound
from flightstore.testing.stores.backend import Backend, Capability, needs, value_of
from flightstore.types import ObjectID, Ref

__all__ = ["Processes"]

ROUNDS = 60


def put_three(store: AbstractStore) -> tuple[int, ObjectID]:
    """A table, an array and bytes."""
    store.put(pa.table({"n": [1, 2, None]}), "table", metadata={"from": "afar"})
    store.put(np.arange(100_000), "array")
    return os.getpid(), store.put(b"bytes", "bytes")


def read(store: AbstractStore, ref: Ref) -> bytes:
    return bytes(store.get(ref, timeout=30).value())


def hold(store: AbstractStore, name: str) -> None:
    """Hold an object until killed."""
    held = store.get(name)
    store.put(b"", "held")
    store.wait(["never"], timeout=60)
    del held


def build(store: AbstractStore, name: str) -> None:
    """Build an object until killed."""
    builder = store.create(100_000, name)
    store.put(b"", "building")
    store.wait(["never"], timeout=60)
    builder.seal()


def read_rounds(store: AbstractStore, names: list[str]) -> int:
    """Get several names at one moment, until they are of the last round; how often they were got."""
    count = 0
    while True:
        rounds = {bytes(obj.value()) for obj in store.get_many(names)}
        assert len(rounds) == 1, "of different rounds"
        (content,) = rounds
        assert content == content[:1] * len(content), "torn"
        count += 1
        if count == 1:
            store.put(b"", "reading")
        if content[0] == ROUNDS - 1:
            return count


class Processes(Backend):
    """Several processes, and several threads."""

    @needs(Capability.PROCESSES)
    def test_what_another_process_puts(self, store: AbstractStore) -> None:
        """Is there when it is gone."""
        pid, object_id = self.run_in_client(store, put_three)
        assert value_of(store.get("table")).equals(pa.table({"n": [1, 2, None]}))
        assert store.get("table").metadata == {"from": "afar"}
        assert np.array_equal(value_of(store.get("array")), np.arange(100_000))
        assert value_of(store.get(object_id)) == value_of(store.get("bytes")) == b"bytes"
        assert pid != os.getpid()

    @needs(Capability.PROCESSES)
    @pytest.mark.parametrize("nbytes", [10, 500_000])
    def test_what_another_process_gets(self, store: AbstractStore, nbytes: int) -> None:
        """By name and id; what is not there raises there as here."""
        object_id = store.put(b"m" * nbytes, "mine")
        assert self.run_in_client(store, read, "mine") == b"m" * nbytes
        assert self.run_in_client(store, read, object_id) == b"m" * nbytes
        store.delete("mine")
        with pytest.raises(ObjectNotFound):
            self.run_in_client(store, get_now, "mine")

    @needs(Capability.PROCESSES, Capability.WAITING)
    def test_another_process_waits(self, store: AbstractStore) -> None:
        """For what is put here."""
        running = self.start_in_client(store, read, "later")
        try:
            store.put(b"here", "later")
            assert running.result() == b"here"
        finally:
            running.kill()

    @needs(Capability.PROCESSES, Capability.WAITING)
    @pytest.mark.parametrize("nbytes", [8, 100_000])
    def test_many_names_are_put_and_got_at_one_moment(self, store: AbstractStore, nbytes: int) -> None:
        """A reader never sees names of two rounds, nor half a value."""
        names = ["a", "b", "c"]
        store.put_many(dict.fromkeys(names, bytes([0]) * nbytes))
        running = self.start_in_client(store, read_rounds, names)
        try:
            store.get("reading", timeout=30)
            for number in range(1, ROUNDS):
                store.put_many(dict.fromkeys(names, bytes([number]) * nbytes))
            assert running.result() >= 1
        finally:
            running.kill()

    @needs(Capability.PROCESSES, Capability.WAITING, Capability.REFERENCES)
    def test_a_killed_process_holds_nothing(self, store: AbstractStore) -> None:
        """Its references are gone with it."""
        store.put(b"abc", "a")
        running = self.start_in_client(store, hold, "a")
        try:
            store.get("held", timeout=30)
            assert store.stat("a").refs == 1
            assert store.delete("a", if_unused=True) == 0
        finally:
            running.kill()
        assert store.stat("a").refs == 0
        assert store.delete("a", if_unused=True) == 1

    @needs(Capability.PROCESSES, Capability.WAITING, Capability.IN_PLACE)
    def test_what_a_killed_process_was_building(self, store: AbstractStore) -> None:
        """Has never been, after `recover`."""
        running = self.start_in_client(store, build, "a")
        try:
            store.get("building", timeout=30)
        finally:
            running.kill()
        store.recover()
        assert "a" not in store
        assert [info.name for info in store.list()] == ["building"]
        if Capability.ACCOUNTING in self.capabilities:
            assert store.stats().pending == 0

    def test_several_threads(self, store: AbstractStore, second: AbstractStore) -> None:
        """Put, get and delete at once, each its own names and one that all share."""
        failures: list[BaseException] = []

        def work(number: int) -> None:
            client = (store, second)[number % 2]
            try:
                for step in range(30):
                    mine = bytes([number]) * (step * 1000 + 1)
                    client.put(mine, f"mine-{number}")
                    client.put(bytes([number]) * 1000, "shared")
                    shared = value_of(client.get("shared"))
                    assert shared == shared[:1] * 1000
                    assert value_of(client.get(f"mine-{number}")) == mine
                    assert client.delete(f"mine-{number}") == 1
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert [info.name for info in store.list()] == ["shared"]


def get_now(store: AbstractStore, name: str) -> None:
    store.get(name)
