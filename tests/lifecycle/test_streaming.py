"""Tables that are written batch by batch: what is seen of them, what they take, and how they end."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.catalog.records import FLAG_EVICTABLE, LISTED
from flightstore.lifecycle import sealing
from flightstore.lifecycle.streaming import GROUP_BYTES, TableWriter, stream_bytes
from flightstore.testing.children import child, start
from flightstore.testing.events import Barrier, Gate

pytestmark = pytest.mark.req("GW-2", "API-7")

MIB = 1 << 20
SCHEMA = pa.schema([("n", pa.int64())], {"of": "the table"})


@pytest.fixture
def store(store_dir: Path) -> Iterator[fs.Store]:
    """A store of 64 MiB; the test ends with a clean fsck."""
    store = fs.connect(store_dir, capacity="64MiB")
    yield store
    store.recover()
    findings, stats = store.fsck(), store.stats()
    store.destroy()
    assert findings == []
    assert stats.pending == 0


def rows(count: int, start: int = 0) -> pa.RecordBatch:
    return pa.record_batch([np.arange(start, start + count)], schema=SCHEMA)


def begin(store: fs.Store, name: str | None = "t", **options: Any) -> TableWriter:
    return TableWriter(store._conn, store._session, SCHEMA, name, **options)


def written(store: fs.Store, name: str, parts: int, **options: Any) -> pa.Table:
    """A table of so many parts, each of one batch."""
    with begin(store, name, group_bytes=1, **options) as writer:
        for number in range(parts):
            writer.write(rows(100, 100 * number))
    return pa.table([np.arange(100 * parts)], SCHEMA)


def extents(store: fs.Store, name: str) -> int:
    return len(store.get(name)._live.record.extents)


# --- what is stored ---


@pytest.mark.parametrize("parts", [1, 2, LISTED - 1, LISTED, LISTED + 1, 300])
def test_any_number_of_parts(store: fs.Store, parts: int) -> None:
    expected = written(store, "t", parts)
    table = store.get("t").to_arrow()
    assert table.equals(expected)
    assert table.schema.equals(SCHEMA, check_metadata=True)
    assert extents(store, "t") == (1 if parts == 1 else parts + 1)
    assert store.fsck() == []
    assert store.stat("t").num_rows == 100 * parts
    del table
    store.delete("t")
    store.recover()
    assert store.stats().used_bytes == 0


def test_hundreds_of_parts_are_spilled_and_come_back(store: fs.Store, tmp_path: Path) -> None:
    store.set_spill(str(tmp_path / "spilled"))
    expected = written(store, "t", 300)
    before = store.stats().used_bytes
    store.spill()
    assert store.stats().spilled_bytes == before
    assert store.fsck() == []
    assert store.get("t").to_arrow().equals(expected)
    assert store.fsck() == []
    store.delete("t")
    store.recover()
    assert (store.stats().used_bytes, store.stats().spilled_bytes) == (0, 0)
    assert list((tmp_path / "spilled").glob("*")) == []


def test_hundreds_of_parts_are_evicted(store: fs.Store) -> None:
    written(store, "t", 300, flags=FLAG_EVICTABLE)
    assert store.stat("t").evictable
    assert store.evict() > 0
    assert not store.contains("t")
    assert store.stats().used_bytes == 0


def test_columns_are_added_to_parts(store: fs.Store) -> None:
    expected = written(store, "t", 20)
    store.with_columns("t", {"m": np.arange(2000)}, "wide")
    store.concat(["t", "t"], "twice")
    store.delete("t")
    store.recover()
    assert store.get("wide").to_arrow()["n"].equals(expected["n"])
    assert store.get("twice").to_arrow().num_rows == 4000
    assert store.fsck() == []


def test_what_ends_before_the_first_group_is_put_like_any_table(store: fs.Store) -> None:
    with begin(store) as writer:
        for number in range(10):
            writer.write(rows(100, 100 * number))
    store.put(pa.table([np.arange(1000)], SCHEMA), "plain")
    one, other = store.get("t")._live.record, store.get("plain")._live.record
    assert (one.kind, one.layout, one.nbytes, one.num_rows) == (
        other.kind,
        other.layout,
        other.nbytes,
        other.num_rows,
    )


def test_one_large_batch_is_one_stream(store: fs.Store) -> None:
    """So it may be mapped in one piece, like any table that was put."""
    with begin(store, metadata={"k": 1}) as writer:
        writer.write(rows(2 * MIB))
    store.put(pa.table([np.arange(2 * MIB)], SCHEMA), "plain")
    one, other = store.get("t")._live.record, store.get("plain")._live.record
    assert (one.kind, one.layout, one.nbytes) == (other.kind, other.layout, other.nbytes)
    assert store.get("t").metadata == {"k": 1}


def test_groups_are_as_large_as_they_should_be(store: fs.Store) -> None:
    with begin(store) as writer:
        for number in range(40):
            writer.write(rows(MIB // 8, number))
    assert extents(store, "t") == 1 + -(-40 * MIB // GROUP_BYTES)


def test_nothing_at_all(store: fs.Store) -> None:
    with begin(store):
        pass
    assert store.get("t").to_arrow().equals(SCHEMA.empty_table())
    with begin(store) as writer:
        for _ in range(3):
            writer.write(rows(0))
    assert store.get("t").to_arrow().schema.equals(SCHEMA, check_metadata=True)


def test_rows_of_no_columns(store: fs.Store) -> None:
    schema = pa.schema([], {"of": "nothing"})
    batch = pa.record_batch({"n": range(1000)}).select([]).replace_schema_metadata(schema.metadata)
    with TableWriter(store._conn, 0, schema, "t") as writer:
        for _ in range(5):
            writer.write(batch)
    table = store.get("t").to_arrow()
    assert (table.num_rows, table.schema.metadata) == (5000, schema.metadata)


@pytest.mark.parametrize("group_bytes", [1, GROUP_BYTES])
def test_columns_of_one_name(store: fs.Store, group_bytes: int) -> None:
    schema = pa.schema([("x", pa.int64()), ("x", pa.string())])
    batches = [pa.record_batch([[i], [str(i)]], schema=schema) for i in range(3)]
    with TableWriter(store._conn, 0, schema, "t", group_bytes=group_bytes) as writer:
        for batch in batches:
            writer.write(batch)
    assert store.get("t").to_arrow().equals(pa.Table.from_batches(batches))


@pytest.mark.parametrize("length", [10, 5000])
@pytest.mark.parametrize("group_bytes", [1, GROUP_BYTES])
def test_metadata_name_and_id(store: fs.Store, length: int, group_bytes: int) -> None:
    object_id = fs.ObjectID(b"chosen")
    metadata = {"text": "m" * length}
    with begin(store, object_id=object_id, metadata=metadata, group_bytes=group_bytes) as writer:
        writer.write(rows(5))
        writer.write(rows(5, 5))
    obj = store.get(object_id)
    assert (obj.name, obj.metadata, writer.seal()) == ("t", metadata, object_id)
    assert obj.to_arrow().num_rows == 10


@pytest.mark.parametrize("shared", [True, False], ids=["one dictionary", "replaced ones"])
def test_large_dictionaries_are_not_stored_with_every_batch(store: fs.Store, shared: bool) -> None:
    """Groups grow with the dictionaries that they hold."""
    values = pa.array([f"{i:01000}" for i in range(2000)])
    other = values.take(pa.array(range(1999, -1, -1)))
    dictionaries = [values] * 60 if shared else [values, other] * 5
    indices = pa.array([*range(2000), None], pa.int32())
    kind = pa.dictionary(pa.int32(), pa.string())
    batches = [pa.record_batch({"d": pa.DictionaryArray.from_arrays(indices, one)}) for one in dictionaries]
    with TableWriter(store._conn, 0, pa.schema([("d", kind)]), "t", group_bytes=MIB) as writer:
        for batch in batches:
            writer.write(batch)
    table = store.get("t").to_arrow()
    assert table["d"].cast(pa.string()).equals(pa.Table.from_batches(batches)["d"].cast(pa.string()))
    if shared:
        assert store.stats().used_bytes < 3 * MIB


def test_batches_may_change_once_they_are_taken(store: fs.Store) -> None:
    """What was gathered is a copy, and so is what was written."""
    small, large = np.arange(1000), np.arange(2 * MIB)
    with begin(store) as writer:
        for values in (small, large):
            writer.write(pa.record_batch([pa.py_buffer(values) and values], schema=SCHEMA))
            values[:] = -1
    table = store.get("t").to_arrow()
    assert table["n"].to_numpy().min() == 0


# --- invisible until it is sealed ---


def test_nobody_sees_parts(store: fs.Store) -> None:
    writer = begin(store, group_bytes=1)
    writer.write(rows(100))
    writer.write(rows(100))
    assert store.list() == []
    assert not store.contains("t")
    assert store.stats().pending == 2
    assert store.stats().used_bytes > 0
    writer.seal()
    assert [info.name for info in store.list()] == ["t"]
    assert store.stats().pending == 0


def test_an_old_object_keeps_its_name_until_then(store: fs.Store) -> None:
    store.put(b"old", "t")
    with begin(store, group_bytes=1) as writer:
        writer.write(rows(100))
        assert bytes(store.get("t").value()) == b"old"
    assert store.get("t").kind == "table"
    writer = begin(store, group_bytes=1)
    writer.write(rows(1))
    writer.abort()
    assert store.get("t").to_arrow().num_rows == 100


def test_abort(store: fs.Store) -> None:
    writer = begin(store, group_bytes=1)
    writer.write(rows(100))
    writer.abort()
    writer.abort()
    assert (store.stats().pending, store.list()) == (0, [])
    for call in (lambda: writer.write(rows(1)), writer.seal):
        with pytest.raises(fs.StoreClosed):
            call()
    store.recover()
    assert store.stats().used_bytes == 0


def test_an_exception_in_the_block(store: fs.Store) -> None:
    with contextlib.suppress(ZeroDivisionError), begin(store, group_bytes=1) as writer:
        writer.write(rows(100))
        raise ZeroDivisionError
    assert (store.stats().pending, store.list()) == (0, [])


def test_a_writer_that_is_forgotten(store: fs.Store) -> None:
    writer = begin(store, group_bytes=1)
    writer.write(rows(100))
    del writer
    gc.collect()
    store.put(b"any write")
    assert store.stats().pending == 0
    store.recover()
    assert store.stats().objects == 1


def _stall(path: Path, there: Gate) -> None:
    store = fs.connect(path)
    writer = begin(store, group_bytes=1)
    writer.write(rows(1000))
    writer.write(rows(1000))
    there.open()
    Gate("never").wait(60)
    writer.abort()


def test_a_writer_that_dies(store: fs.Store, store_dir: Path) -> None:
    there = Gate()
    with start(_stall, store_dir, there) as process:
        there.wait()
        assert store.stats().pending == 2
        process.kill()
    store.recover()
    assert (store.stats().pending, store.stats().used_bytes) == (0, 0)


def test_a_writer_of_a_handle_that_is_closed(store: fs.Store, store_dir: Path) -> None:
    with fs.connect(store_dir) as other:
        writer = begin(other, group_bytes=1)
        writer.write(rows(100))
    store.recover()
    writer.write(rows(100, 100))
    writer.seal()
    assert store.get("t").to_arrow().num_rows == 200


def test_a_forked_child_does_not_go_on(store: fs.Store) -> None:
    writer = begin(store, group_bytes=1)
    writer.write(rows(100))

    def use() -> int:
        for call in (lambda: writer.write(rows(1)), writer.seal):
            with pytest.raises(fs.FlightStoreError, match="is being written by process"):
                call()
        writer.abort()
        return os.getpid()

    assert child(use) != os.getpid()
    assert store.stats().pending == 1
    writer.seal()
    assert store.get("t").to_arrow().num_rows == 100


# --- refusals ---


def test_batches_of_another_schema(store: fs.Store) -> None:
    with begin(store) as writer:
        writer.write(rows(10))
        for wrong in ({"n": ["text"]}, {"m": [1]}, {"n": [1], "m": [2]}):
            with pytest.raises(fs.InvalidArgument, match="all batches of a table"):
                writer.write(pa.record_batch(wrong))
        writer.write(rows(10))
    assert store.get("t").to_arrow().num_rows == 20


def test_an_id_that_is_taken(store: fs.Store) -> None:
    object_id = store.put(b"there")
    with pytest.raises(fs.ObjectExists):
        begin(store, object_id=object_id)
    chosen = fs.ObjectID(b"chosen")
    one = begin(store, "one", object_id=chosen, group_bytes=1)
    one.write(rows(100))
    with pytest.raises(fs.ObjectExists):
        begin(store, "two", object_id=chosen)
    one.abort()
    begin(store, "two", object_id=chosen).seal()
    assert store.get(chosen).name == "two"


def test_an_id_that_is_taken_meanwhile(store: fs.Store) -> None:
    chosen = fs.ObjectID(b"chosen")
    for group_bytes in (1, GROUP_BYTES):
        writer = begin(store, object_id=chosen, group_bytes=group_bytes)
        store.put(b"sooner", object_id=chosen)
        with pytest.raises(fs.ObjectExists), writer:
            writer.write(rows(1))
        assert bytes(store.get(chosen).value()) == b"sooner"
        store.delete(chosen)


def test_metadata_that_cannot_be_stored(store: fs.Store) -> None:
    with pytest.raises(fs.NotStorable):
        begin(store, metadata=object())


def test_a_schema_that_cannot_be_stored(store: fs.Store) -> None:
    kind = pa.dictionary(pa.int8(), pa.dictionary(pa.int8(), pa.string()))
    with pytest.raises(fs.NotStorable):
        TableWriter(store._conn, 0, pa.schema([("d", kind)]), "t")


def write_without_end(writer: TableWriter, batch: pa.RecordBatch) -> None:
    while True:
        writer.write(batch)


def test_no_room(store: fs.Store) -> None:
    writer = begin(store)
    with pytest.raises(fs.StoreFull):
        write_without_end(writer, rows(MIB))
    assert store.stats().pending == 0
    store.recover()
    assert store.stats().used_bytes == 0
    store.put(bytes(60 * MIB), "all of it", timeout=0)


@pytest.mark.req("ISO-3")
def test_parts_count_against_the_quota(store: fs.Store) -> None:
    session = store.session("job", quota=4 * MIB)
    writer = TableWriter(session._conn, session._session, SCHEMA, "t", group_bytes=1)
    with pytest.raises(fs.QuotaExceeded):
        write_without_end(writer, rows(MIB // 8))
    session.put(bytes(3 * MIB), "fits again")
    session.end()


def test_a_session_that_ends_meanwhile(store: fs.Store) -> None:
    session = store.session("job")
    writer = TableWriter(session._conn, session._session, SCHEMA, "t", group_bytes=1)
    writer.write(rows(100))
    store.session("job").end()
    with pytest.raises(fs.SessionEnded):
        writer.seal()
    store.recover()
    assert (store.stats().pending, store.stats().used_bytes) == (0, 0)


def test_a_batch(store: fs.Store) -> None:
    with store.batch() as batch:
        kept = batch.number
        with begin(store, "in batch", group_bytes=1, batch=kept) as writer:
            writer.write(rows(100))
        late = begin(store, "late", group_bytes=1, batch=kept)
        late.write(rows(100))
        assert store.contains("in batch")
    assert not store.contains("in batch")
    with pytest.raises(fs.BatchEnded):
        late.seal()
    store.recover()
    assert store.stats().used_bytes == 0


def test_sizes_that_are_foretold() -> None:
    batch = rows(1000)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_batch(batch)
        assert stream_bytes(SCHEMA, batch) == sink.tell()


# --- sections ---


def test_threads_write_sections_and_the_rows_are_in_the_order_of_their_numbers(store: fs.Store) -> None:
    """Large batches, small ones that are gathered, and sections that are begun last and come first."""
    barrier = Barrier(4)
    writer = begin(store, group_bytes=MIB)

    def write(number: int) -> None:
        barrier.wait()
        with writer.section(number) as section:
            for at in range(20):
                section.write(rows(1000, number * 1_000_000 + at * 1000))
            section.write(rows(200_000, number * 1_000_000 + 20_000))

    threads = [threading.Thread(target=write, args=(number,)) for number in (3, 1, 2, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.seal()
    expected = np.concatenate(
        [np.arange(number * 1_000_000, number * 1_000_000 + 220_000) for number in range(4)]
    )
    assert np.array_equal(store.get("t").to_arrow()["n"].to_numpy(), expected)
    assert writer.num_rows == 880_000


def test_what_another_thread_is_writing_is_aborted_by_that_thread(
    store: fs.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that somebody copies into is not given back: others would use it."""
    writing, go_on = threading.Event(), threading.Event()
    write_pending = sealing.write_pending

    def stopped(conn: Any, new: Any, *args: Any, **options: Any) -> Any:
        extent = write_pending(conn, new, *args, **options)
        writing.set()
        go_on.wait()
        return extent

    writer = begin(store, group_bytes=1)
    writer.write(rows(100_000))
    monkeypatch.setattr(sealing, "write_pending", stopped)
    failures: list[BaseException] = []

    def write() -> None:
        try:
            writer.section(1).write(rows(100_000))
        except fs.StoreClosed as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    writing.wait()
    with pytest.raises(fs.InvalidArgument, match="still being written"):
        writer.seal()
    writer.abort()
    store.recover()
    assert store.stats().pending == 1
    go_on.set()
    thread.join()
    assert len(failures) == 1
    store.recover()
    assert (store.stats().pending, store.stats().used_bytes) == (0, 0)


def test_a_section_that_is_closed_keeps_no_memory(store: fs.Store) -> None:
    with begin(store) as writer:
        for number in range(40):
            with writer.section(number) as section:
                section.write(rows(1000, 1000 * number))
            assert section._rows._memory is None
    assert store.get("t").to_arrow()["n"].to_pylist() == list(range(40_000))
