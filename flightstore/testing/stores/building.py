"""Tests of a store: create, create_now, create_table, seal, abort."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flightstore.abc import AbstractStore
from flightstore.errors import InvalidArgument, ObjectExists, ObjectNotFound, StoreClosed
from flightstore.testing.stores.backend import Backend, Capability, needs, value_of
from flightstore.types import ObjectID

__all__ = ["Building"]

SCHEMA = pa.schema([("n", pa.int64()), ("x", pa.float64()), ("s", pa.string())], {"made": "in place"})


class Building(Backend):
    """create, create_now, create_table, seal, abort."""

    @needs(Capability.IN_PLACE)
    @pytest.mark.parametrize("nbytes", [0, 1, 4096, 100_001])
    @pytest.mark.parametrize("make", ["create", "create_now"])
    def test_bytes_built_in_place(
        self, store: AbstractStore, second: AbstractStore, make: str, nbytes: int
    ) -> None:
        """Zeros at first; then what was written."""
        builder = getattr(store, make)(nbytes, "a", metadata={"x": 1})
        assert len(builder.buffer) == nbytes
        assert not any(builder.buffer)
        content = bytes(number % 251 for number in range(nbytes))
        builder.buffer[:] = content
        object_id = builder.seal()
        assert object_id == builder.id == second.get("a").id
        assert value_of(second.get("a")) == content
        assert second.get(object_id).metadata == {"x": 1}
        assert second.stat("a").nbytes == nbytes
        assert builder.seal() == object_id, "idempotent"
        builder.abort()
        assert "a" in store, "abort does nothing once sealed"

    @needs(Capability.IN_PLACE)
    def test_nobody_sees_what_is_not_sealed(self, store: AbstractStore, second: AbstractStore) -> None:
        """By name or id, in lists, through any handle."""
        with store.create(10, "a") as builder:
            for client in (store, second):
                for ref in ("a", builder.id):
                    assert ref not in client
                    assert client.delete(ref) == 0
                    with pytest.raises(ObjectNotFound):
                        client.get(ref)
                    with pytest.raises(ObjectNotFound):
                        client.stat(ref)
                assert client.list() == []
        for client in (store, second):
            assert "a" in client
            assert builder.id in client
            assert len(client.list()) == 1

    @needs(Capability.IN_PLACE)
    def test_a_name_is_put_anew_by_the_seal(self, store: AbstractStore) -> None:
        """Not before."""
        store.put(b"old", "name")
        with store.create(3, "name") as builder:
            builder.buffer[:] = b"new"
            assert value_of(store.get("name")) == b"old"
        assert value_of(store.get("name")) == b"new"

    @needs(Capability.IN_PLACE)
    def test_an_exception_in_the_block_aborts(self, store: AbstractStore) -> None:
        """And the object has never been."""
        store.put(b"old", "a")
        with pytest.raises(ZeroDivisionError), store.create(3, "a") as builder:
            builder.buffer[0] = 1 // 0
        builder.abort()
        with pytest.raises(StoreClosed):
            builder.seal()
        assert value_of(store.get("a")) == b"old"
        self._never_been(store, builder.id)

    @needs(Capability.IN_PLACE)
    def test_abort(self, store: AbstractStore) -> None:
        """By the builder, by id, and when the builder is forgotten."""
        builder = store.create(3, "a")
        assert store.abort(builder.id) is True
        assert store.abort(builder.id) is False
        with pytest.raises(StoreClosed):
            builder.seal()
        self._never_been(store, builder.id)
        sealed = store.put(b"", "sealed")
        assert store.abort(sealed) is False
        assert "sealed" in store
        forgotten = store.create(3, "b").id
        gc.collect()
        self._never_been(store, forgotten)

    def _never_been(self, store: AbstractStore, object_id: ObjectID) -> None:
        assert object_id not in store
        assert object_id not in {info.id for info in store.list()}
        assert store.put(b"", object_id=object_id) == object_id, "its id is free"
        store.delete(object_id)

    @needs(Capability.IN_PLACE)
    def test_writes_after_the_seal_reach_nobody(self, store: AbstractStore, second: AbstractStore) -> None:
        """However the builder's memory is kept."""
        with store.create(10_000, "a") as builder:
            view = builder.buffer
            view[:] = b"x" * 10_000
        with contextlib.suppress(TypeError, ValueError):  # refused: so much the better
            view[:] = b"y" * 10_000
        assert value_of(second.get("a")) == value_of(store.get("a")) == b"x" * 10_000

    @needs(Capability.IN_PLACE)
    def test_a_taken_id_is_refused(self, store: AbstractStore) -> None:
        """Whether its object is sealed or being built."""
        sealed, pending = ObjectID(b"sealed"), ObjectID(b"pending")
        store.put(b"first", object_id=sealed)
        with store.create(10, object_id=pending):
            for object_id in (sealed, pending):
                with pytest.raises(ObjectExists):
                    store.create(10, object_id=object_id)
                with pytest.raises(ObjectExists):
                    store.put(b"second", object_id=object_id)
        assert value_of(store.get(pending)) == bytes(10)

    @needs(Capability.IN_PLACE)
    @pytest.mark.parametrize("nbytes", [-1, 1.5, "1", None])
    def test_a_size_is_a_number_of_bytes(self, store: AbstractStore, nbytes: Any) -> None:
        """Nothing else."""
        with pytest.raises(InvalidArgument):
            store.create(nbytes)
        with pytest.raises(InvalidArgument):
            store.create(1, "{")

    @needs(Capability.IN_PLACE)
    def test_a_table_built_in_place(self, store: AbstractStore, second: AbstractStore) -> None:
        """Columns of fixed width are views, with a mask for nulls; others are given whole."""
        with store.create_table(SCHEMA, 1000, "t", metadata="notes") as builder:
            assert builder.schema.equals(SCHEMA, check_metadata=True)
            assert builder.num_rows == 1000
            assert "t" not in second
            builder["n"][:] = np.arange(1000)
            builder["x"] = np.linspace(0, 1, 1000)
            builder.mask("x")[::2] = True
            builder["s"] = [f"row {number}" for number in range(1000)]
        obj = second.get("t")
        table = obj.to_arrow()  # type: ignore[attr-defined]
        table.validate(full=True)
        assert table.schema.equals(SCHEMA, check_metadata=True)
        assert table["n"].to_pylist() == list(range(1000))
        assert table["x"].null_count == 500
        assert table["x"].to_pylist()[1] == 1 / 999
        assert table["s"].to_pylist()[-1] == "row 999"
        assert (obj.metadata, obj.kind, second.stat("t").num_rows) == ("notes", "table", 1000)

    @needs(Capability.IN_PLACE)
    def test_a_table_written_batch_by_batch(self, store: AbstractStore, second: AbstractStore) -> None:
        """Its rows are in the order of the sections, whichever was written first."""
        schema = pa.schema([("n", pa.int64())], {"of": "the table"})
        with store.create_stream(schema, "t", metadata="notes") as writer:
            with writer.section(2) as last:
                last.write(pa.record_batch([range(3000, 4000)], schema=schema))
            writer.write(pa.record_batch([range(1000)], schema=schema))
            with pytest.raises(InvalidArgument):
                writer.write(pa.record_batch([["x"]], ["n"]))
            with pytest.raises(InvalidArgument):
                writer.section(-1)
            with writer.section(1) as between:
                between.write(pa.table([range(1000, 2000)], schema=schema))
                between.write(pa.table([range(2000, 3000)], schema=schema))
            writer.write(pa.record_batch([[]], schema=schema))
            assert "t" not in second
            assert writer.num_rows == 4000
        obj = second.get("t")
        table = obj.to_arrow()  # type: ignore[attr-defined]
        table.validate(full=True)
        assert table.schema.equals(schema, check_metadata=True)
        assert table["n"].to_pylist() == list(range(4000))
        assert (obj.metadata, obj.kind, obj.id) == ("notes", "table", writer.id)
        with pytest.raises(StoreClosed):
            writer.section(0)

    @needs(Capability.IN_PLACE)
    def test_a_table_that_is_given_up(self, store: AbstractStore) -> None:
        """Leaves nothing, whichever way it ends."""
        schema = pa.schema([("n", pa.int64())])
        rows = pa.record_batch([range(1000)], schema=schema)

        def fail(writer: Any) -> None:
            with writer:
                writer.write(rows)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail(store.create_stream(schema, "t"))
        writer = store.create_stream(schema, "t")
        with pytest.raises(ZeroDivisionError):
            fail(writer.section(1))
        with pytest.raises(StoreClosed):
            writer.write(rows)
        writer.abort()
        assert store.list() == []

    @needs(Capability.IN_PLACE)
    def test_a_table_that_is_not_finished(self, store: AbstractStore) -> None:
        """Is refused by the seal, and an exception in the block aborts it."""
        with pytest.raises(InvalidArgument, match="'s'"):
            store.create_table(SCHEMA, 3, "t").seal()
        with pytest.raises(ZeroDivisionError), store.create_table(SCHEMA, 3, "t") as builder:
            builder["n"][0] = 1 // 0
        with store.create_table(SCHEMA, 3, "u") as builder:
            with pytest.raises(InvalidArgument, match="'z'"):
                builder["z"]
            with pytest.raises(InvalidArgument, match="'s'"):
                builder["s"]
            with pytest.raises(InvalidArgument):
                builder["s"] = ["too", "few"]
            builder["s"] = ["a", "b", None]
        gc.collect()
        assert [info.name for info in store.list()] == ["u"]
        assert store.get("u").to_arrow()["n"].to_pylist() == [0, 0, 0]  # type: ignore[attr-defined]
