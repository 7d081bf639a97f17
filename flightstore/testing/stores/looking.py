"""Tests of a store: delete, contains, list, stat, stats, recover, close."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flightstore.abc import AbstractStore
from flightstore.errors import InvalidArgument, ObjectNotFound, StoreClosed
from flightstore.testing.stores.backend import CAPACITY_BYTES, Backend, Capability, needs, value_of
from flightstore.types import ObjectID, RecoverReport

__all__ = ["Looking"]


class Looking(Backend):
    """delete, contains, list, stat, stats, recover, close."""

    def test_delete(self, store: AbstractStore, second: AbstractStore) -> None:
        """One or several, by name and id; what is not there is not counted."""
        ids = store.put_many({"a": b"1", "b": b"2", "c": b"3", "d": b"4"})
        assert store.delete("a") == 1
        assert store.delete("a") == store.delete(ids[0]) == 0
        for client in (store, second):
            assert "a" not in client
            assert ids[0] not in client
            with pytest.raises(ObjectNotFound):
                client.get("a")
            with pytest.raises(ObjectNotFound):
                client.get(ids[0])
            with pytest.raises(ObjectNotFound):
                client.stat("a")
        assert [info.name for info in second.list()] == ["b", "c", "d"]
        assert second.delete([ids[1], "b", "nothing", ids[2]]) == 2
        assert store.delete([]) == store.delete(iter(())) == 0
        assert store.delete(iter(["d"])) == 1
        assert store.list() == second.list() == []

    @pytest.mark.parametrize("nbytes", [10, 1_000_000])
    def test_a_deleted_object_stays_with_its_readers(self, store: AbstractStore, nbytes: int) -> None:
        """Whatever is put meanwhile."""
        store.put(np.arange(nbytes // 8), "a")
        obj = store.get("a")
        view = obj.value()
        store.delete("a")
        for number in range(8):
            store.put(bytes([number]) * (2 << 20), "other")
        assert np.array_equal(view, np.arange(nbytes // 8))
        assert np.array_equal(obj.value(), np.arange(nbytes // 8))

    def test_contains(self, store: AbstractStore, second: AbstractStore) -> None:
        """Only refs can be in a store."""
        object_id = store.put(b"", "a")
        assert second.contains("a")
        assert second.contains(object_id)
        assert not second.contains("b")
        assert "a" in store
        assert object_id in store
        assert None not in store
        assert 5 not in store

    def test_list(self, store: AbstractStore) -> None:
        """By shell patterns, names in order; objects without a name match None alone."""
        for name in ("b", "a/2", "a/1", "A", "[x]"):
            store.put(b"", name)
        unnamed = store.put_many([b"", b""])
        names = ["A", "[x]", "a/1", "a/2", "b"]
        assert [info.name for info in store.list() if info.name] == names
        assert {info.id for info in store.list() if not info.name} == set(unnamed)
        assert [info.name for info in store.list("*")] == names
        assert [info.name for info in store.list("a*")] == ["a/1", "a/2"]
        assert [info.name for info in store.list("a/?")] == ["a/1", "a/2"]
        assert [info.name for info in store.list("[ab]")] == ["b"]
        assert [info.name for info in store.list("[[]x]")] == ["[x]"]
        assert store.list("") == store.list("nothing") == []

    def test_stat(self, store: AbstractStore, second: AbstractStore) -> None:
        """What is known about an object, by name, by id and in a list."""
        before = time.time_ns()
        table = pa.table({"a": [1, 2, 3]})
        object_id = store.put(table, "t", metadata={"x": 1})
        info = second.stat("t")
        assert info == second.stat(object_id) == second.list("t")[0]
        assert (info.id, info.name, info.kind, info.num_rows) == (object_id, "t", "table", 3)
        assert (info.metadata, info.state, info.pinned) == ({"x": 1}, "sealed", False)
        assert before - 10**9 <= info.created_ns <= time.time_ns() + 10**9
        assert info.nbytes >= table.nbytes
        with pytest.raises(ObjectNotFound, match="'nothing'") as failure:
            store.stat("nothing")
        assert isinstance(failure.value, KeyError)

    @pytest.mark.parametrize(
        ("value", "kind"),
        [(b"12345", "blob"), ("text", "object"), (np.zeros(3), "tensor"), (pa.table({"a": [1]}), "table")],
        ids=["blob", "object", "tensor", "table"],
    )
    def test_kinds(self, store: AbstractStore, value: Any, kind: str) -> None:
        """One of four, and nothing but tables has rows."""
        object_id = store.put(value)
        info = store.stat(object_id)
        assert info.kind == store.get(object_id).kind == kind
        assert (info.num_rows is not None) == (kind == "table")
        if kind == "blob":
            assert info.nbytes == store.get(object_id).nbytes == 5

    @needs(Capability.ACCOUNTING)
    def test_usage(self, store: AbstractStore, second: AbstractStore) -> None:
        """Grows with what is put, and comes back when it is deleted and nobody reads it."""
        empty = store.stats()
        assert (empty.objects, empty.pending, empty.capacity_bytes) == (0, 0, CAPACITY_BYTES)
        assert empty.used_bytes + empty.free_bytes == empty.capacity_bytes
        store.put(bytes(1000), "a")
        store.put(bytes(1 << 20), "b")
        full = second.stats()
        assert full.objects == 2
        assert full.used_bytes >= empty.used_bytes + 1000 + (1 << 20)
        assert full.used_bytes + full.free_bytes == full.capacity_bytes
        store.delete("b")
        assert store.stats().objects == 1
        store.recover()
        assert store.stats().used_bytes <= full.used_bytes - (1 << 20)
        store.delete("a")
        store.recover()
        assert store.stats().used_bytes == empty.used_bytes

    def test_recover(self, store: AbstractStore) -> None:
        """Costs nothing that is there."""
        store.put(b"abc", "a")
        held = store.get("a")
        assert isinstance(store.recover(), RecoverReport)
        assert value_of(held) == value_of(store.get("a")) == b"abc"

    def test_handles(self, store: AbstractStore) -> None:
        """Are closed by themselves or at the end of a block; what was got through them stays."""
        with self.another_client(store) as handle:
            handle.put(b"abc", "a")
            obj = handle.get("a")
            view = obj.value()
        handle.close()
        for call in (
            lambda: handle.get("a"),
            lambda: handle.put(b"", "b"),
            lambda: handle.contains("a"),
            lambda: handle.list(),
            lambda: handle.stats(),
            lambda: handle.delete("a"),
        ):
            with pytest.raises(StoreClosed) as failure:
                call()
            assert isinstance(failure.value, RuntimeError)
        assert bytes(view) == value_of(obj) == value_of(store.get("a")) == b"abc"

    @needs(Capability.REFERENCES)
    def test_references_are_counted(self, store: AbstractStore, second: AbstractStore) -> None:
        """One for each get; a view keeps that of the object it is from."""
        store.put(np.arange(1000), "a")
        assert store.stat("a").refs == 0
        first, other = store.get("a"), second.get("a")
        assert store.stat("a").refs == second.stat("a").refs == 2
        first.release()
        first.release()
        assert store.stat("a").refs == 1
        view = other.value()
        other.release()
        del other
        assert store.stat("a").refs == 1, "the view still needs it"
        del view
        assert store.stat("a").refs == 0

    @needs(Capability.REFERENCES)
    def test_delete_if_unused(self, store: AbstractStore, second: AbstractStore) -> None:
        """Does nothing to what somebody holds."""
        store.put_many({"used": b"1", "unused": b"2"})
        held = second.get("used")
        assert store.delete(["used", "unused", "nothing"], if_unused=True) == 1
        assert "used" in store
        assert "unused" not in store
        held.release()
        assert store.delete("used", if_unused=True) == 1

    def test_deleting_refuses_what_is_no_ref(self, store: AbstractStore) -> None:
        """Before anything is deleted."""
        store.put(b"", "a", object_id=ObjectID(b"a"))
        for refs in (["a", "{"], ["a", 5], "id:61"):
            with pytest.raises(InvalidArgument):
                store.delete(refs)  # type: ignore[arg-type]
            assert "a" in store

    @needs(Capability.ZERO_COPY)
    def test_what_is_got_is_the_stores_memory(self, store: AbstractStore, second: AbstractStore) -> None:
        """The same for everybody, and nobody can write to it."""
        store.put(np.arange(1000), "array")
        arrays = [client.get("array").value() for client in (store, second, store)]
        assert len({array.ctypes.data for array in arrays}) == 1
        assert not arrays[0].flags.writeable
        store.put(pa.table({"n": np.arange(1000)}), "table")
        tables = [client.get("table").to_arrow() for client in (store, second)]  # type: ignore[attr-defined]
        buffers = [table["n"].chunk(0).buffers()[1] for table in tables]
        assert len({buffer.address for buffer in buffers}) == 1
        assert not buffers[0].is_mutable
        store.put(b"abc", "blob")
        assert store.get("blob").value().readonly
