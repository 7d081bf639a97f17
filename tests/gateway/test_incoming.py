"""Uploads: what arrives becomes what a local put would have made of it, or nothing at all."""

from __future__ import annotations

import collections
import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.gateway.incoming import FrameUpload, TableUpload
from flightstore.gateway.outgoing import frame_of
from flightstore.memory.copying import copy_pieces
from flightstore.objects import ipc
from flightstore.objects.registry import encode
from flightstore.objects.schemas import fingerprint_of
from flightstore.testing.children import start
from flightstore.testing.mutations import mutated
from flightstore.testing.types.arrow import CATALOGUE
from flightstore.testing.types.equality import assert_same
from flightstore.wire.frames import PREFIX_BYTES, FrameHeader, header_bytes, unpacked
from flightstore.wire.messages import PutCommand

pytestmark = pytest.mark.req("GW-2", "FAIL-1")

MIB = 1 << 20


@pytest.fixture
def store(store_dir: Path) -> Iterator[fs.Store]:
    """A store of 64 MiB; the test ends with a clean fsck and nothing pending."""
    store = fs.connect(store_dir, capacity="64MiB")
    yield store
    store.recover()
    findings, stats = store.fsck(), store.stats()
    store.destroy()
    assert findings == []
    assert stats.pending == 0


def is_empty(store: fs.Store) -> bool:
    store.recover()
    stats = store.stats()
    return (stats.objects, stats.pending, stats.used_bytes) == (0, 0, 0)


# --- tables ---

SCHEMA = pa.schema([("n", pa.int64()), ("s", pa.string())], {"of": "the table"})


def batch_of(count: int, start: int = 0) -> pa.RecordBatch:
    numbers = range(start, start + count)
    return pa.record_batch([list(numbers), [f"row {i}" for i in numbers]], schema=SCHEMA)


def arrived(batches: list[pa.RecordBatch]) -> pa.RecordBatchReader:
    """Batches as a network hands them over: all columns of each in one buffer."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return pa.ipc.open_stream(sink.getvalue())


def test_a_table(store: fs.Store) -> None:
    batches = [batch_of(1000, at) for at in range(0, 5000, 1000)]
    reader = arrived(batches)
    command = PutCommand(name="t", metadata={"k": 1}, evictable=True, id="id:" + "ab" * 16)
    with TableUpload(store, command, reader.schema) as upload:
        for number, batch in enumerate(reader, 1):
            upload.write(batch)
            assert upload.num_rows == 1000 * number
            assert store.list() == []
        assert upload.nbytes >= sum(pa.ipc.get_record_batch_size(batch) for batch in batches)
        assert upload.finish() == upload.finish() == upload.id
    obj = store.get("t")
    assert str(obj.id) == command.id
    assert obj.metadata == {"k": 1}
    assert store.stat("t").evictable
    assert_same(pa.Table.from_batches(batches).combine_chunks(), obj.value())


def test_metadata_that_json_cannot_say(store: fs.Store) -> None:
    raw = msgspec.msgpack.encode({1: b"\xff"})
    with TableUpload(store, PutCommand(name="t", metadata_raw=raw), SCHEMA) as upload:
        upload.finish()
    assert store.get("t").metadata == {1: b"\xff"}


def test_what_is_not_finished_never_was(store: fs.Store) -> None:
    with TableUpload(store, PutCommand(name="t"), SCHEMA) as upload:
        upload.write(batch_of(300_000))
        upload.write(batch_of(600_000))
    assert is_empty(store)
    with pytest.raises(fs.StoreClosed):
        upload.finish()
    with contextlib.suppress(ZeroDivisionError), TableUpload(store, PutCommand(name="t"), SCHEMA) as upload:
        upload.write(batch_of(300_000))
        raise ZeroDivisionError
    assert is_empty(store)


def test_in_a_session_and_a_batch(store: fs.Store) -> None:
    session = store.session("job")
    batch = session.batch()
    for command, given in (
        (PutCommand(name="a", batch=batch.number), None),
        (PutCommand(name="b"), batch.number),
    ):
        with TableUpload(session, command, SCHEMA, batch=given) as upload:
            upload.write(batch_of(10))
            upload.finish()
    assert {info.name for info in session.list()} == {"a", "b"}
    assert store.list() == []
    batch.delete()
    assert session.list() == []
    session.end()


def invalid_utf8() -> pa.RecordBatch:
    good = pa.array(["abc"])
    bad = pa.Array.from_buffers(pa.string(), 1, [None, good.buffers()[1], pa.py_buffer(b"\xff\xfe\xff")])
    return pa.record_batch([[1], bad], schema=SCHEMA)


def wild_offsets() -> pa.RecordBatch:
    """Offsets that lead outside in the middle, and not at the ends."""
    offsets = pa.py_buffer(np.array([0, 1 << 30, 3], np.int32))
    bad = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"abc")])
    return pa.record_batch([[1, 2], bad], schema=SCHEMA)


def another_schema() -> pa.RecordBatch:
    return pa.record_batch({"n": ["text"], "s": ["text"]})


@pytest.mark.parametrize("make", [invalid_utf8, wild_offsets, another_schema])
def test_batches_that_are_refused(store: fs.Store, make: Callable[[], pa.RecordBatch]) -> None:
    with TableUpload(store, PutCommand(name="t"), SCHEMA) as upload:
        upload.write(batch_of(1000))
        with pytest.raises(fs.InvalidArgument):
            upload.write(make())
        with pytest.raises(fs.StoreClosed):
            upload.write(batch_of(1))
    assert is_empty(store)


def test_list_views_that_lead_outside(store: fs.Store) -> None:
    kind = pa.list_view(pa.int32())
    buffers = [None, pa.py_buffer(np.array([0, 1 << 29], "i4")), pa.py_buffer(np.array([1, 5], "i4"))]
    values = pa.array([1, 2], pa.int32())
    with TableUpload(store, PutCommand(name="t"), pa.schema([("l", kind)])) as upload:
        bad = pa.Array.from_buffers(kind, 2, buffers, children=[values])
        with pytest.raises(fs.InvalidArgument):
            upload.write(pa.record_batch({"l": bad}))
    assert is_empty(store)


@pytest.mark.parametrize("nested", [False, True])
def test_names_that_are_no_text(store: fs.Store, nested: bool) -> None:
    table = pa.table({"outer": [{"inner": 1}]})
    raw = bytes(sent(table)).replace(b"inner" if nested else b"outer", b"\xff\xfe\xfd\xfc\xfb")
    reader = pa.ipc.open_stream(pa.py_buffer(raw))
    with pytest.raises(fs.InvalidArgument, match="UTF-8"):
        TableUpload(store, PutCommand(name="t"), reader.schema)
    header, payload = header_and_bytes(table)
    layout = ipc.decode_layout(header.layout)
    changed = payload.replace(b"inner" if nested else b"outer", b"\xff\xfe\xfd\xfc\xfb")
    fingerprint = fingerprint_of(changed[: layout.schema_bytes])
    header.layout = ipc.encode_layout(msgspec.structs.replace(layout, fingerprint=fingerprint))
    with pytest.raises(fs.InvalidArgument, match=r"UTF-8|not what its layout says"):
        send(store, header, changed)
    assert is_empty(store)


def write_without_end(upload: TableUpload, batch: pa.RecordBatch) -> None:
    while True:
        upload.write(batch)


@pytest.mark.parametrize("nested", [False, True])
def test_null_rows_of_views_that_lead_outside(store: fs.Store, nested: bool) -> None:
    """Arrow's casts follow them, and end the process."""
    text = pa.array(["a text longer than twelve bytes", None] * 20 + ["x" * 5000], pa.string_view())
    validity, views, *data = text.buffers()
    wild = np.frombuffer(views, np.int32).reshape(-1, 4).copy()
    wild[1::2] = -(1 << 31), 0, 77, 1 << 30
    bad = pa.Array.from_buffers(pa.string_view(), len(text), [validity, pa.py_buffer(wild), *data])
    bad.validate(full=True)
    column = pa.StructArray.from_arrays([bad], ["s"]) if nested else bad
    batch = pa.record_batch({"s": column})
    with TableUpload(store, PutCommand(name="t"), batch.schema) as upload:
        with pytest.raises(fs.InvalidArgument, match="Arrow refuses"):
            upload.write(batch)
    assert is_empty(store)
    store.put(batch.slice(0, 30), "by somebody local")
    assert store.get("by somebody local").value().equals(batch.slice(0, 30))


def test_limits(store: fs.Store) -> None:
    with TableUpload(store, PutCommand(name="t"), SCHEMA, max_object_bytes=MIB) as upload:
        with pytest.raises(fs.InvalidArgument, match="an object of"):
            write_without_end(upload, batch_of(1000))
    with TableUpload(store, PutCommand(name="t"), SCHEMA, max_batch_bytes=10_000) as upload:
        upload.write(batch_of(100))
        with pytest.raises(fs.InvalidArgument, match="a batch of"):
            upload.write(batch_of(1000))
    assert is_empty(store)


def test_a_short_message_that_says_a_long_batch(store: fs.Store) -> None:
    """Columns whose buffers are all the same memory."""
    column = pa.array(np.zeros(MIB // 8))
    many = pa.record_batch([column] * 1000, names=[str(i) for i in range(1000)])
    with TableUpload(store, PutCommand(name="t"), many.schema) as upload:
        with pytest.raises(fs.InvalidArgument, match="a batch of"):
            upload.write(many)
    assert is_empty(store)


def test_a_dictionary_that_is_too_long(store: fs.Store) -> None:
    values = pa.array([f"{i:01000}" for i in range(1000)])
    one = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), values)
    batch = pa.record_batch([one] * 5, names=list("abcde"))
    with TableUpload(store, PutCommand(name="t"), batch.schema, max_batch_bytes=2 * MIB) as upload:
        with pytest.raises(fs.InvalidArgument, match="a batch of"):
            upload.write(batch)
    assert is_empty(store)


def test_more_rows_than_a_batch_has(store: fs.Store) -> None:
    schema = pa.schema([("n", pa.null())])
    batch = pa.record_batch([pa.nulls(1 << 33)], schema=schema)
    with TableUpload(store, PutCommand(name="t"), schema) as upload:
        with pytest.raises(fs.InvalidArgument, match="rows"):
            upload.write(batch)
    assert is_empty(store)


def test_no_room(store: fs.Store) -> None:
    with TableUpload(store, PutCommand(name="t"), SCHEMA) as upload:
        batch = batch_of(200_000)
        with pytest.raises(fs.StoreFull):
            write_without_end(upload, batch)
    assert is_empty(store)


@pytest.mark.parametrize(
    "command",
    [
        PutCommand(name=""),
        PutCommand(name="id:abc"),
        PutCommand(id="nonsense"),
        PutCommand(metadata_raw=b"\xc1"),
        PutCommand(timeout_s=-1),
        PutCommand(timeout_s=float("nan")),
    ],
    ids=str,
)
def test_commands_that_are_none(store: fs.Store, command: PutCommand) -> None:
    with pytest.raises(fs.InvalidArgument):
        TableUpload(store, command, SCHEMA)
    assert is_empty(store)


def test_nothing_of_the_messages_but_values(store: fs.Store) -> None:
    """Padding and what lies between the buffers of a message do not reach the store; nor does our memory."""
    batch = pa.record_batch([[1, None, 3], ["a", None, "ccc"]], schema=SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_batch(batch)
    raw = bytearray(sink.getvalue())
    at = raw.index(b"accc") + 4
    raw[at : at + 4] = b"LEAK"  # the padding behind the text
    (received,) = list(pa.ipc.open_stream(pa.py_buffer(bytes(raw))))
    for large in (False, True):
        with TableUpload(store, PutCommand(name="t"), SCHEMA) as upload:
            upload.write(received)
            if large:
                upload.write(batch_of(1_000_000))
            upload.finish()
        obj = store.get("t")
        handle = obj._live
        assert all(b"LEAK" not in bytes(handle.extent(i)) for i in range(len(handle.record.extents)))
        assert obj.to_arrow().slice(0, 3).to_pylist() == batch.to_pylist()
        obj.release()
        del handle


SAMPLES = [make for name, make in CATALOGUE.items() if name.endswith(": in chunks") or "layout" in name]


def attack(path: str, seed: int, rounds: int) -> dict[str, int]:
    """Upload streams that were changed on the way; whatever is taken must be readable."""
    rng = random.Random(seed)
    outcomes: collections.Counter[str] = collections.Counter()
    with fs.connect(path) as store:
        for _ in range(rounds):
            value = rng.choice(SAMPLES)()
            if not isinstance(value, pa.Table) or value.num_rows > 10_000:
                continue
            raw = bytearray(sent(value))
            mutated(rng, raw)
            try:
                reader = pa.ipc.open_stream(pa.py_buffer(bytes(raw)))
                schema, batches = reader.schema, list(reader)
            except (pa.ArrowException, OSError, ValueError, OverflowError, NotImplementedError, TypeError):
                outcomes["unreadable"] += 1
                continue
            try:
                with TableUpload(store, PutCommand(name="t"), schema) as upload:
                    for batch in batches:
                        upload.write(batch)
                    upload.finish()
            except (fs.InvalidArgument, fs.NotStorable):
                outcomes["refused"] += 1
            else:
                outcomes["taken"] += 1
                table = store.get("t").to_arrow()
                table.validate(full=True)
                del table
                store.delete("t")
        store.recover()
        assert store.stats().objects == store.stats().pending == 0
    return dict(outcomes)


def sent(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def test_mutated_streams(store: fs.Store, store_dir: Path) -> None:
    """In a process of its own: a crash would be seen as its death."""
    with start(attack, str(store_dir), 7, 2000) as process:
        outcomes = process.result(deadline_s=120)
    assert outcomes["refused"] > 20
    assert outcomes["taken"] > 20
    assert is_empty(store)


# --- frames ---

VALUES: dict[str, Callable[[], Any]] = {
    "table": lambda: pa.table({"n": [1, 2, None], "s": ["x", "yy", None]}),
    "composed table": lambda: pa.table(
        {"n": pa.chunked_array([[1], [2, 3]]), "l": pa.chunked_array([[[1]], pa.array([[2], None])])}
    ),
    "frame": lambda: pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=["i", "j"]),
    "series": lambda: pd.Series([1.5, 2.5], name="values"),
    "batch": lambda: pa.record_batch({"n": [1, 2]}),
    "array": lambda: pa.array([1, None]),
    "scalar": lambda: pa.scalar("x"),
    "tensor": lambda: np.arange(12.0).reshape(3, 4),
    "masked": lambda: np.ma.masked_array([1, 2, 3], [0, 1, 0]),
    "bytes": lambda: b"12345",
    "nothing": lambda: b"",
    "object": lambda: {"a": np.arange(10_000), "b": {1, 2}},
    "large": lambda: pa.table({"x": np.random.default_rng(1).random(MIB)}),
}


def header_and_bytes(value: Any, **options: Any) -> tuple[FrameHeader, bytes]:
    """A value as our own client sends it."""
    payload = encode(value)
    memory = np.zeros(payload.size_bytes + 1, np.uint8)
    copy_pieces(memory.ctypes.data, payload.size_bytes, payload.pieces)
    header = FrameHeader(
        kind=payload.kind,
        size_bytes=payload.size_bytes,
        layout=payload.layout,
        num_rows=payload.num_rows,
        origin=payload.origin,
        **options,
    )
    return header, memory[: payload.size_bytes].tobytes()


def send(store: fs.Store, header: FrameHeader, raw: bytes) -> None:
    with FrameUpload(store, header) as upload:
        upload.target[:] = raw
        upload.finish()


@pytest.mark.parametrize("long", [False, True], ids=["short metadata", "long metadata"])
@pytest.mark.parametrize("name", VALUES)
def test_a_frame(store: fs.Store, name: str, long: bool) -> None:
    """The object equals what a local put of the same value makes."""
    value = VALUES[name]()
    metadata = {"text": "m" * (5000 if long else 5)}
    header, raw = header_and_bytes(
        value, name="there", metadata_raw=msgspec.msgpack.encode(metadata), evictable=True
    )
    with FrameUpload(store, header) as upload:
        assert len(upload.target) == header.size_bytes
        upload.target[:] = raw
        assert store.list() == []
        upload.finish()
        assert upload.finish() == upload.id
    store.put(value, "here", metadata=metadata, evictable=True)
    there, here = store.get("there"), store.get("here")
    assert_same(here.value(), there.value())
    assert there.metadata == here.metadata == metadata
    for field in ("kind", "layout", "nbytes", "num_rows", "origin", "flags", "metadata", "metadata_at"):
        assert getattr(there._live.record, field) == getattr(here._live.record, field), field


def test_a_view_that_is_written_to_after_the_check(store: fs.Store) -> None:
    header, raw = header_and_bytes(b"a" * 100_000, name="t")
    with FrameUpload(store, header) as upload:
        kept = upload.target
        kept[:] = raw
        upload.check()
        kept[:] = b"b" * 100_000
        upload.finish()
    kept[:] = bytes(100_000)
    assert bytes(store.get("t").value()) == raw


@pytest.mark.parametrize("name", VALUES)
def test_a_frame_that_a_gateway_sent(store: fs.Store, name: str) -> None:
    value = VALUES[name]()
    store.put(value, "source", metadata=[1, 2])
    frame = frame_of(store, "source")
    assert header_bytes(frame.head[:PREFIX_BYTES]) == len(frame.head) - PREFIX_BYTES
    header = unpacked(frame.head[PREFIX_BYTES:])
    header.name, header.id = "copy", None
    with FrameUpload(store, header) as upload:
        target = np.frombuffer(upload.target, np.uint8) if header.size_bytes else np.zeros(1, np.uint8)
        copy_pieces(target.ctypes.data, header.size_bytes, frame.pieces)
        del target
        upload.finish()
    assert_same(store.get("source").value(), store.get("copy").value())
    assert store.get("copy").metadata == [1, 2]


@pytest.mark.parametrize("name", [name for name in VALUES if name not in ("bytes", "nothing", "object")])
def test_a_frame_that_is_not_whole(store: fs.Store, name: str) -> None:
    header, raw = header_and_bytes(VALUES[name](), name="t")
    with FrameUpload(store, header) as upload:
        upload.target[: len(raw) // 3] = raw[: len(raw) // 3]
        if name not in ("tensor", "masked"):  # zeros are numbers, too
            with pytest.raises(fs.InvalidArgument, match="not what its layout says"):
                upload.finish()
            with pytest.raises(fs.StoreClosed):
                upload.target  # noqa: B018
    assert is_empty(store)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": 99},
        {"kind": 5},
        {"layout": b""},
        {"layout": b"x" * 2000},
        {"num_rows": 7},
        {"num_rows": None},
        {"origin": "x" * 200},
        {"origin": "a\0b"},
        {"name": ""},
        {"id": "nonsense"},
        {"metadata_raw": b"\xc1"},
        {"timeout_s": -1.0},
        {"size_bytes": 64},
    ],
    ids=str,
)
def test_frames_that_are_refused(store: fs.Store, changes: dict[str, Any]) -> None:
    header, raw = header_and_bytes(VALUES["table"]())
    header = msgspec.structs.replace(header, **changes)
    with pytest.raises(fs.InvalidArgument):
        send(store, header, raw[: header.size_bytes])
    assert is_empty(store)


def test_frames_that_do_not_fit(store: fs.Store) -> None:
    header, _ = header_and_bytes(b"")
    for size in (65 * MIB, 1 << 60):
        with pytest.raises(fs.StoreFull):
            FrameUpload(store, msgspec.structs.replace(header, size_bytes=size))
    with pytest.raises(fs.InvalidArgument, match="at most"):
        FrameUpload(store, msgspec.structs.replace(header, size_bytes=MIB), max_object_bytes=MIB - 1)
    assert is_empty(store)


def test_an_id_that_is_taken(store: fs.Store) -> None:
    object_id = store.put(b"there")
    header, _ = header_and_bytes(b"other", id=str(object_id))
    with pytest.raises(fs.ObjectExists):
        FrameUpload(store, header)
    with pytest.raises(fs.ObjectExists):
        TableUpload(store, PutCommand(id=str(object_id)), SCHEMA)
    assert bytes(store.get(object_id).value()) == b"there"
