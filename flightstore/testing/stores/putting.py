"""Tests of a store: put, get, put_many, get_many, metadata."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flightstore.abc import AbstractStore
from flightstore.errors import NotStorable, ObjectExists, ObjectNotFound
from flightstore.testing.stores.backend import Backend, value_of
from flightstore.types import ObjectID, Ref

__all__ = ["Putting"]

VALUES: dict[str, Any] = {
    "bytes": b"abc",
    "no bytes": b"",
    "large bytes": bytes(range(256)) * 5000,
    "array": np.arange(12, dtype=np.int16).reshape(3, 4),
    "large array": np.arange(200_000),
    "table": pa.table({"n": [1, None, 3], "s": ["a", "b", None]}),
    "large table": pa.table({"n": np.arange(100_000), "x": np.linspace(0, 1, 100_000)}),
    "no rows": pa.table({"n": pa.array([], pa.int8())}),
    "text": "text",
    "none": None,
    "dict": {"a": [1, 2.5, "x"], "b": (None, True)},
}
METADATA: list[Any] = [
    None,
    0,
    -(2**63),
    2**64 - 1,
    math.inf,
    "text \N{SNOWMAN}",
    b"\0\xff",
    [],
    {"a": {"b": [None, b"c", 1.5, True]}},
    {1: "int keys", None: 2},
    "x" * 100_000,
]


def same(expected: Any, actual: Any) -> bool:
    """Whether a value is what was put."""
    if isinstance(expected, np.ndarray):
        return (
            type(actual) is np.ndarray and np.array_equal(expected, actual) and expected.dtype == actual.dtype
        )
    if isinstance(expected, pa.Table):
        return bool(expected.equals(actual, check_metadata=True))
    return type(expected) is type(actual) and expected == actual


class Putting(Backend):
    """put, get, put_many, get_many, metadata."""

    @pytest.mark.parametrize("kind", VALUES)
    def test_what_is_put_comes_back(self, store: AbstractStore, second: AbstractStore, kind: str) -> None:
        """By name and by id, through any handle, as often as is asked."""
        object_id = store.put(VALUES[kind], "value")
        assert type(object_id) is ObjectID
        for ref in ("value", object_id):
            for client in (store, second, store):
                obj = client.get(ref)
                assert same(VALUES[kind], value_of(obj))
                assert (obj.id, obj.name) == (object_id, "value")

    @pytest.mark.parametrize("nbytes", [800, 800_000])
    @pytest.mark.parametrize("kind", ["array", "buffer", "bytearray", "memoryview", "object", "table"])
    def test_changing_the_source_afterwards_changes_nothing(
        self, store: AbstractStore, kind: str, nbytes: int
    ) -> None:
        """Nothing in the store aliases the caller's memory."""
        source = np.arange(nbytes // 8)
        raw = bytearray(source.tobytes())
        original = source.copy()
        put: dict[str, Any] = {
            "array": source,
            "buffer": pa.py_buffer(source),
            "bytearray": raw,
            "memoryview": memoryview(source.data).cast("B"),
            "object": {"n": source},
            "table": pa.table({"n": source}),
        }
        store.put(put[kind], "value")
        source[:] = -1
        raw[:] = bytes(len(raw))
        got = value_of(store.get("value"))
        if kind == "object":
            got = got["n"]
        elif kind == "table":
            got = got["n"].to_numpy()
        found = got if isinstance(got, np.ndarray) else np.frombuffer(got, np.int64)
        assert np.array_equal(found, original)

    @pytest.mark.parametrize("nbytes", [10, 200_000])
    def test_putting_a_name_anew(self, store: AbstractStore, second: AbstractStore, nbytes: int) -> None:
        """Everybody gets the new object at once, whoever got the old one keeps it, and the old id is gone."""
        old_id = store.put(b"o" * nbytes, "name")
        readers = [store.get("name"), second.get(old_id)]
        views = [reader.value() for reader in readers]
        new_id = store.put(b"n" * nbytes, "name")
        assert new_id != old_id
        for client in (store, second):
            assert value_of(client.get("name")) == b"n" * nbytes
            assert client.get("name").id == new_id
            assert old_id not in client
            with pytest.raises(ObjectNotFound):
                client.get(old_id)
        assert len(store.list()) == 1
        for reader, view in zip(readers, views, strict=True):
            assert bytes(view) == value_of(reader) == b"o" * nbytes
            assert reader.id == old_id

    @pytest.mark.parametrize("ref", ["nothing", ObjectID(b"nothing")])
    def test_getting_what_is_not_there(self, store: AbstractStore, ref: Ref) -> None:
        """Is a KeyError that names it, and no timeout."""
        with pytest.raises(ObjectNotFound, match=r"nothing|6e6f7468696e67") as failure:
            store.get(ref)
        assert isinstance(failure.value, KeyError)
        assert not isinstance(failure.value, TimeoutError)

    @pytest.mark.parametrize("pickle", [True, False])
    def test_what_cannot_be_stored(self, store: AbstractStore, pickle: bool) -> None:
        """Is a TypeError, and nothing happens."""
        store.put(b"old", "name")
        with pytest.raises(NotStorable) as failure:
            store.put(lambda: None, "name", pickle=pickle)
        assert isinstance(failure.value, TypeError)
        assert value_of(store.get("name")) == b"old"
        assert len(store.list()) == 1

    def test_pickle_can_be_forbidden(self, store: AbstractStore) -> None:
        """What needs none is stored all the same."""
        for put in (store.put, lambda value, pickle: store.put_many([value], pickle=pickle)):
            with pytest.raises(NotStorable):
                put({"a": 1}, pickle=False)
            put(b"bytes", pickle=False)
            put(pa.table({"n": [1]}), pickle=False)

    @pytest.mark.parametrize("metadata", METADATA, ids=range(len(METADATA)))
    @pytest.mark.parametrize("kind", ["no bytes", "table"])
    def test_metadata(self, store: AbstractStore, metadata: Any, kind: str) -> None:
        """Apart from the value, and the same wherever it is asked for."""
        store.put(VALUES[kind], "name", metadata=metadata)
        found = [store.get("name").metadata, store.stat("name").metadata, store.list("name")[0].metadata]
        assert found == [metadata] * 3
        assert [type(one) for one in found] == [type(metadata)] * 3
        assert same(VALUES[kind], value_of(store.get("name")))

    @pytest.mark.parametrize("metadata", [object(), 2**64, 1j], ids=range(3))
    def test_metadata_that_cannot_be_stored(self, store: AbstractStore, metadata: Any) -> None:
        """Is refused, with the value."""
        with pytest.raises(NotStorable, match="metadata"):
            store.put(b"", "name", metadata=metadata)
        assert "name" not in store

    def test_put_many(self, store: AbstractStore, second: AbstractStore) -> None:
        """A mapping gives names; anything else is put without."""
        ids = store.put_many({"a": b"1", "b": VALUES["large array"], "c": {"x": 1}})
        assert [second.get(name).id for name in "abc"] == ids
        assert same(VALUES["large array"], value_of(second.get("b")))
        unnamed = store.put_many(iter([b"1", VALUES["large bytes"]]))
        assert [(store.get(one).name, value_of(store.get(one))) for one in unnamed] == [
            (None, b"1"),
            (None, VALUES["large bytes"]),
        ]
        assert store.put_many([]) == store.put_many({}) == []

    @pytest.mark.parametrize("nbytes", [3, 200_000])
    def test_put_many_stores_all_or_nothing(self, store: AbstractStore, nbytes: int) -> None:
        """One that is refused keeps the others out."""
        store.put(b"old", "a")
        with pytest.raises(NotStorable):
            store.put_many({"a": bytes(nbytes), "b": lambda: None})
        with pytest.raises(ValueError, match="name"):
            store.put_many({"a": bytes(nbytes), "{": b"bad name"})
        assert value_of(store.get("a")) == b"old"
        assert len(store.list()) == 1

    def test_get_many(self, store: AbstractStore) -> None:
        """In the order asked for, twice if asked for twice; all or none."""
        ids = store.put_many({"a": b"1", "b": b"2"})
        assert [value_of(obj) for obj in store.get_many(["b", ids[0], "b"])] == [b"2", b"1", b"2"]
        assert store.get_many(iter(["a"]))[0].id == ids[0]
        assert store.get_many([]) == []
        with pytest.raises(ObjectNotFound, match="'c'"):
            store.get_many(["a", "c", "b"])

    def test_an_id_of_ones_own(self, store: AbstractStore) -> None:
        """Is used, never overwritten, and free again after a delete."""
        mine = ObjectID(b"mine")
        assert store.put(b"first", object_id=mine) == mine
        for value in (b"second", VALUES["large bytes"]):
            with pytest.raises(ObjectExists, match=str(mine)) as failure:
                store.put(value, "other", object_id=mine)
            assert isinstance(failure.value, ValueError)
        assert "other" not in store
        assert value_of(store.get(mine)) == b"first"
        store.delete(mine)
        assert store.put(b"third", "named", object_id=mine) == mine
        assert value_of(store.get(mine)) == value_of(store.get("named")) == b"third"

    def test_an_object_put_again(self, store: AbstractStore) -> None:
        """Is another object with the same value."""
        first = store.put(VALUES["table"], "first")
        again = store.put(store.get("first"), "again")
        assert again != first
        store.delete("first")
        assert same(VALUES["table"], value_of(store.get("again")))

    def test_a_released_object(self, store: AbstractStore) -> None:
        """Cannot be used any more; what was taken from it can, and others are not touched."""
        store.put(b"abc", "a")
        other = store.get("a")
        with store.get("a") as obj:
            view = obj.value()
        obj.release()
        with pytest.raises(RuntimeError, match="released"):
            obj.value()
        assert bytes(view) == value_of(other) == b"abc"
