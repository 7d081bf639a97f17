"""Payloads from outside: true ones are taken, all others refused, whatever is wrong with them."""

from __future__ import annotations

import collections
import random
import struct
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from flightstore.errors import InvalidArgument
from flightstore.objects import blob, composition, ipc, pyobject, schemas, tensor
from flightstore.objects.base import (
    KIND_BLOB,
    KIND_COMPOSED,
    KIND_PYOBJECT,
    KIND_TABLE,
    KIND_TENSOR,
    Payload,
)
from flightstore.objects.foreign import check_batch, check_origin, check_payload
from flightstore.objects.registry import encode
from flightstore.testing.children import start
from flightstore.testing.mutations import mutated
from flightstore.testing.types.equality import assert_same

from .conftest import open_payload, place

pytestmark = pytest.mark.req("GW-2", "FAIL-1")

NESTED = pa.chunked_array([pa.array([[1, 2], None]), pa.array([[], [3]], pa.list_(pa.int64()))])
"""Chunks that cannot be joined: a table that holds them is composed of streams of its own."""
VALUES: dict[str, Callable[[], Any]] = {
    "table": lambda: pa.table({"n": [1, 2, None], "s": ["a", None, "ccc"], "b": [True, None, False]}),
    "table of many types": lambda: pa.table(
        {
            "list": [[1], [], None],
            "struct": [{"x": 1, "y": "a"}, None, {"x": 3, "y": "c"}],
            "map": pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int8())),
            "view": pa.array(["short", "longer than twelve bytes", None], pa.string_view()),
            "list view": pa.array([[1], None, [2, 3]], pa.list_view(pa.int32())),
            "run end": pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]),
            "union": pa.UnionArray.from_dense(
                pa.array([0, 1, 0], pa.int8()),
                pa.array([0, 0, 1], pa.int32()),
                [pa.array([1, 2]), pa.array(["x"])],
            ),
            "fixed": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int16(), 2)),
            "decimal": pa.array([1, None, 3], pa.decimal128(10, 2)),
        }
    ),
    "dictionaries": lambda: pa.table({"d": pa.array(["a", "b", "a"]).dictionary_encode()}),
    "batches": lambda: pa.table({"l": NESTED}),
    "composed": lambda: pa.table({"n": pa.chunked_array([[1, 2], [3, 4]]), "l": NESTED, "n2": range(4)}),
    "composed, of a schema of its own": lambda: pa.table(
        {"a": pa.chunked_array([[1, 2], [3, 4]]), "l": NESTED},
        pa.schema([pa.field("a", pa.int64()), pa.field("l", NESTED.type)], {"of": "the table"}),
    ),
    "batch": lambda: pa.record_batch({"n": [1, 2]}),
    "array": lambda: pa.array(["a", None]),
    "chunked array": lambda: NESTED,
    "scalar": lambda: pa.scalar(2.5),
    "tensor": lambda: np.arange(24.0).reshape(2, 3, 4),
    "tensor in Fortran order": lambda: np.asfortranarray(np.arange(6).reshape(2, 3)),
    "structures": lambda: np.zeros(3, [("a", "i4"), ("b", "f8", (2,))]),
    "structures of many fields": lambda: np.zeros(2, [(f"field {i}", "i4") for i in range(60)]),
    "records": lambda: np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "masked": lambda: np.ma.masked_array([1.5, 2.5], [True, False], fill_value=9),
    "arrow tensor": lambda: pa.Tensor.from_numpy(np.arange(6.0).reshape(2, 3), dim_names=["x", "y"]),
    "blob": lambda: b"some bytes",
    "blob of nothing": lambda: b"",
    "shaped blob": lambda: memoryview(np.arange(6, dtype="i4").reshape(2, 3)),
    "pickle": lambda: {"a": 1, "b": [1, 2, 3]},
    "pickle with buffers": lambda: {"a": np.arange(3000), "b": np.arange(5)},
}


def check(payload: Payload, **changes: Any) -> None:
    changed = msgspec.structs.replace(payload, **changes)
    check_payload(changed.kind, changed.layout, place(payload).buffer, changed.num_rows)


@pytest.mark.parametrize("name", VALUES)
def test_true_ones(name: str) -> None:
    value = VALUES[name]()
    payload = encode(value)
    check(payload)
    assert_same(value, open_payload(payload).value())


def refused(payload: Payload, match: str = "", **changes: Any) -> None:
    with pytest.raises(InvalidArgument, match=match or None):
        check(payload, **changes)


@pytest.mark.parametrize("name", VALUES)
def test_of_another_kind(name: str) -> None:
    payload = encode(VALUES[name]())
    for kind in (0, 6, -1, 1000, 1 << 40):
        refused(payload, "not taken from outside", kind=kind)
    for kind in {KIND_TABLE, KIND_COMPOSED, KIND_TENSOR, KIND_PYOBJECT} - {payload.kind}:
        refused(payload, "not what its layout says", kind=kind)


@pytest.mark.parametrize("name", VALUES)
def test_rows_that_are_not_there(name: str) -> None:
    payload = encode(VALUES[name]())
    for rows in (0, 1 << 40, -1, None):
        if rows != payload.num_rows:
            refused(payload, "rows were announced", num_rows=rows)


@pytest.mark.parametrize("name", [name for name in VALUES if encode(VALUES[name]()).size_bytes])
def test_shorter_and_longer_ones(name: str) -> None:
    payload = encode(VALUES[name]())
    whole = place(payload).buffer
    for length in {0, 8, len(whole) // 2, len(whole) - 8} - {len(whole)}:
        if payload.kind != KIND_BLOB or payload.layout:
            with pytest.raises(InvalidArgument):
                check_payload(payload.kind, payload.layout, whole.slice(0, length), payload.num_rows)


# --- tables ---


def table_layout(payload: Payload, **changes: Any) -> bytes:
    return ipc.encode_layout(msgspec.structs.replace(ipc.decode_layout(payload.layout), **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"fingerprint": b"forged forged 16"},
        {"fingerprint": b""},
        {"schema_bytes": 0},
        {"schema_bytes": 128},
        {"stream_bytes": 64},
        {"stream_bytes": 1 << 50},
        {"num_batches": 2},
        {"num_batches": 0, "batches": ()},
        {"batches": ()},
        {"batches": ((0, 64, 3),)},
        {"batches": ((1 << 40, 64, 3),)},
        {"batches": ((-64, 64, 3),)},
        {"flags": 1},
        {"flags": 1 << 30},
        {"container": 5},
        {"container": -1},
        {"container": ipc.CONTAINER_ARRAY},
        {"container": ipc.CONTAINER_SCALAR},
    ],
    ids=str,
)
def test_tables_of_another_layout(changes: dict[str, Any]) -> None:
    payload = encode(VALUES["table"]())
    refused(payload, layout=table_layout(payload, **changes))


def test_a_forged_fingerprint_reaches_no_cache() -> None:
    """The next reader of a schema must not be given another one under its fingerprint."""
    value = pa.table({"honest": [1]})
    forged = encode(pa.table({"forged": ["x"]}))
    fingerprint = ipc.decode_layout(encode(value).layout).fingerprint
    schemas._by_fingerprint.pop(fingerprint, None)
    refused(forged, "fingerprint is wrong", layout=table_layout(forged, fingerprint=fingerprint))
    assert fingerprint not in schemas._by_fingerprint
    assert open_payload(encode(value)).value().equals(value)


def stream_payload(written: pa.Buffer, rows: int) -> tuple[bytes, pa.Buffer]:
    """A stream that somebody else wrote, with a layout as true as can be."""
    with pa.ipc.open_stream(written) as reader:
        schema_bytes = 8 + struct.unpack_from("<I", written, 4)[0]
        batches = len(list(reader))
    fingerprint = schemas.fingerprint_of(bytes(written.slice(0, schema_bytes)))
    layout = ipc.TableLayout(1, fingerprint, schema_bytes, written.size, batches)
    return ipc.encode_layout(layout), written


@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_streams_that_are_not_laid_out_like_ours(compression: str | None) -> None:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    table = pa.table({"n": range(1000)})
    with pa.ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    layout, stream = stream_payload(sink.getvalue(), 1000)
    with pytest.raises(InvalidArgument):
        check_payload(KIND_TABLE, layout, stream, 1000)


def test_values_that_arrow_refuses() -> None:
    payload = encode(pa.table({"s": ["abc", "def"]}))
    true = bytes(place(payload).buffer)
    for wrong in (b"\xff\xfe\xfd", b"\xc3"):
        whole = true.replace(b"abcdef"[: len(wrong)], wrong)
        with pytest.raises(InvalidArgument, match="UTF8"):
            check_payload(payload.kind, payload.layout, pa.py_buffer(whole), 2)


@pytest.mark.parametrize("offset", [-1, 7, 1 << 30, -(1 << 31)])
def test_offsets_of_strings_that_lead_outside(offset: int) -> None:
    payload = encode(pa.table({"s": ["abc", "def"]}))
    whole = bytearray(place(payload).buffer)
    at = whole.index(struct.pack("<3i", 0, 3, 6))
    for place_at in (at, at + 4, at + 8):
        changed = whole.copy()
        changed[place_at : place_at + 4] = struct.pack("<i", offset)
        with pytest.raises(InvalidArgument):
            check_payload(payload.kind, payload.layout, pa.py_buffer(bytes(changed)), 2)


def composed_payload(**changes: Any) -> tuple[Payload, bytes]:
    payload = encode(VALUES["composed"]())
    assert payload.kind == KIND_COMPOSED
    layout = composition.decode_composed(payload.layout)
    assert layout.at is None
    return payload, msgspec.msgpack.encode(msgspec.structs.replace(layout, **changes))


def run(count: int, *pieces: tuple[int, int]) -> composition.ColumnRun:
    return composition.ColumnRun(count, pieces)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 0},
        {"segments": ()},
        {"columns": ()},
        {"columns": (run(1 << 60, (0, 0)),)},
        {"columns": (run(-1, (0, 0)),)},
        {"columns": (run(0, (0, 0)),)},
        {"columns": (run(1),)},
        {"columns": (run(1, (9, 0)),)},
        {"columns": (run(1, (-1, 0)),)},
        {"columns": (run(1, (0, 9)),)},
        {"columns": (run(1, (0, -1)),)},
        {"columns": (run(1, (0, 0)),) * 2},
        {"columns": (run(1, (0, 0), (0, 0)),)},
        {"columns": (run(1, (0, 0), (1, 0)),)},
        {"shared": 1},
        {"shared": -1},
        {"schema_at": (0, 64)},
        {"schema_at": (0, 1 << 60)},
        {"schema_at": (-64, 64)},
        {"at": (0, 64)},
        {"at": (1 << 60, 64)},
        {"at": (0, -1)},
    ],
    ids=str,
)
def test_composed_ones_of_another_layout(changes: dict[str, Any]) -> None:
    payload, layout = composed_payload(**changes)
    refused(payload, layout=layout)


@pytest.mark.parametrize(
    "changes",
    [
        {"extent": 1},
        {"extent": -1},
        {"offset": -64},
        {"offset": 1 << 60},
        {"offset": 8},
        {"source": b"x" * 16},
    ],
    ids=str,
)
def test_segments_that_lie_elsewhere(changes: dict[str, Any]) -> None:
    payload, _ = composed_payload()
    first, *others = composition.decode_composed(payload.layout).segments
    segments = (msgspec.structs.replace(first, **changes), *others)
    refused(payload, layout=composed_payload(segments=segments)[1])
    refused(payload, layout=composed_payload(segments=(first, first, *others))[1])


def test_a_schema_of_its_own_that_is_forged() -> None:
    payload = encode(VALUES["composed, of a schema of its own"]())
    layout = composition.decode_composed(payload.layout)
    if layout.at is None and layout.schema_at is not None:
        forged = msgspec.structs.replace(layout, schema_fingerprint=b"forged forged 16")
        refused(payload, "fingerprint is wrong", layout=msgspec.msgpack.encode(forged))


# --- all else ---


def tensor_layout(**changes: Any) -> bytes:
    layout = tensor.decode_layout(encode(np.arange(6.0).reshape(2, 3)).layout)
    return msgspec.msgpack.encode(msgspec.structs.replace(layout, **changes))


def described(what: Any) -> bytes:
    return msgspec.msgpack.encode(what)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 9},
        {"shape": (2, 4)},
        {"shape": (-2, -3)},
        {"shape": (1 << 40, 1 << 40)},
        {"shape": (0, -1)},
        {"shape": (1,) * 100},
        {"order": "A"},
        {"dtype": b""},
        {"dtype": described("|O")},
        {"dtype": described([["a", "|O"]])},
        {"dtype": described({"array": "|O", "shape": [1]})},
        {"dtype": described({"fields": [["a", "<f8", 40]], "itemsize": 8, "aligned": False})},
        {"dtype": described("no dtype")},
        {"dtype": described("<M8[no unit]")},
        {"dtype": described(7)},
        {"dtype": described({"array": "<f8", "shape": [1 << 40, 1 << 40]})},
        {"dtype_at": (0, 1 << 50)},
        {"dtype_at": (-8, 8)},
        {"dtype_at": (0, 8)},
        {"container": 9},
        {"container": -1},
        {"container": 4},
        {"container": 4, "details": described([False, None, 48])},
        {"container": 4, "details": described([False, None, -8])},
        {"container": 4, "details": described([False, b"x", None])},
        {"container": 2, "details": b"x"},
        {"container": 1, "details": described([1, 2])},
        {"container": 1, "details": described(["x"])},
    ],
    ids=str,
)
def test_tensors_of_another_layout(changes: dict[str, Any]) -> None:
    refused(encode(np.arange(6.0).reshape(2, 3)), layout=tensor_layout(**changes))


def test_matrices_have_two_dimensions() -> None:
    refused(encode(np.arange(6.0)), layout=tensor_layout(shape=(1, 2, 3), container=3))


@pytest.mark.parametrize(
    "layout",
    [
        blob.BlobLayout(2, "i", (6,)),
        blob.BlobLayout(1, "O", (3,)),
        blob.BlobLayout(1, "P", (4,)),
        blob.BlobLayout(1, "i", (-6,)),
        blob.BlobLayout(1, "i", (1 << 62, 4)),
        blob.BlobLayout(1, "", ()),
        blob.BlobLayout(1, "i" * 100, ()),
    ],
    ids=str,
)
def test_blobs_of_another_layout(layout: blob.BlobLayout) -> None:
    refused(encode(bytes(24)), layout=msgspec.msgpack.encode(layout))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"pickle_bytes": -1},
        {"pickle_bytes": 1 << 50},
        {"num_buffers": -1},
        {"num_buffers": 1 << 50},
        {"num_buffers": 10_000},
        {"index_at": -16},
        {"index_at": 1 << 50},
        {"index_at": 0},
    ],
    ids=str,
)
def test_pickles_of_another_layout(changes: dict[str, Any]) -> None:
    payload = encode(VALUES["pickle with buffers"]())
    layout = msgspec.structs.replace(pyobject.decode_layout(payload.layout), **changes)
    refused(payload, layout=msgspec.msgpack.encode(layout))


class Trap:
    """Whoever unpickles it fails."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("it was unpickled",)


def test_nothing_is_unpickled() -> None:
    payload = encode(Trap())
    assert payload.kind == KIND_PYOBJECT
    check(payload)


@pytest.mark.parametrize("layout", [b"", b"\xc1", b"\x90", b"\x91\x01", b"x" * 2000, b"\xdf" + b"\xff" * 8])
def test_layouts_that_are_none(layout: bytes) -> None:
    for name in ("table", "composed", "tensor", "shaped blob", "pickle"):
        payload = encode(VALUES[name]())
        if layout or payload.kind != KIND_BLOB:
            refused(payload, layout=layout)


@pytest.mark.parametrize("origin", ["x" * 101, "pan\0das", "a\nb", "\x1b[31m"])
def test_origins_that_name_no_connector(origin: str) -> None:
    with pytest.raises(InvalidArgument):
        check_origin(origin)
    check_origin("pandas")
    check_origin("")


def test_batches() -> None:
    good = pa.array(["abc"])
    bad = pa.Array.from_buffers(pa.string(), 1, [None, good.buffers()[1], pa.py_buffer(b"\xff\xff\xff")])
    check_batch(pa.record_batch({"s": good}))
    with pytest.raises(InvalidArgument, match="UTF8"):
        check_batch(pa.record_batch({"s": bad}))


# --- mutations ---


def touch(value: Any) -> None:
    """Read all of a value."""
    if isinstance(value, pa.Table | pa.RecordBatch | pa.Array | pa.ChunkedArray):
        value.validate(full=True)
        value.to_string() if not isinstance(value, pa.Table) else value.to_pylist()
    elif isinstance(value, np.ndarray):
        value.tobytes()
    else:
        bytes(memoryview(value)) if isinstance(value, memoryview) else repr(value)


def attack(seed: int, rounds: int, names: list[str]) -> dict[str, int]:
    """Check mutated payloads; whatever is taken must be readable."""
    rng = random.Random(seed)
    payloads = [(name, encode(VALUES[name]())) for name in names]
    raws = {name: bytes(place(payload).buffer) for name, payload in payloads}
    outcomes: collections.Counter[str] = collections.Counter()
    for _ in range(rounds):
        name, payload = rng.choice(payloads)
        raw, layout = bytearray(raws[name]), bytearray(payload.layout)
        chosen = rng.randrange(8)
        if chosen:
            # Arrow's own numbers lie at the beginning of a message: most of the mutations go there.
            mutated(rng, raw)
        if not chosen or rng.randrange(8) == 0:
            mutated(rng, layout)
        if rng.randrange(20) == 0:
            del raw[rng.randrange(len(raw) + 1) :]
        whole = msgspec.structs.replace(
            payload, layout=bytes(layout), size_bytes=len(raw), pieces=((0, bytes(raw)),)
        )
        try:
            check_payload(whole.kind, whole.layout, place(whole).buffer, whole.num_rows)
        except InvalidArgument:
            outcomes["refused"] += 1
            continue
        outcomes["taken"] += 1
        if whole.kind != KIND_PYOBJECT:
            touch(open_payload(whole).value())
    return dict(outcomes)


@pytest.mark.parametrize(
    "names", [["table"], ["table of many types"], ["dictionaries", "composed"], list(VALUES)]
)
def test_mutated_ones(names: list[str]) -> None:
    """In a process of its own: a crash would be seen as its death."""
    with start(attack, len(names[0]), 1000, names) as process:
        outcomes = process.result(deadline_s=60)
    assert outcomes["refused"] > 100
    assert sum(outcomes.values()) == 1000
