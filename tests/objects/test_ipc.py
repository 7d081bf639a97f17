"""Tables: the stored bytes are a stream that stock readers take, aligned, zero-padded, and exactly equal."""

from __future__ import annotations

import io
import struct
from datetime import date, datetime
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightstore.objects import capture, schemas
from flightstore.objects.base import KIND_COMPOSED
from flightstore.objects.composition import layout_of
from flightstore.objects.flatmessage import body_length, realign
from flightstore.objects.registry import encode
from flightstore.objects.table import Table

from .conftest import open_payload, place


def buffers_of(array: pa.Array) -> list[pa.Buffer]:
    found = [buffer for buffer in array.buffers() if buffer is not None and buffer.size]
    if pa.types.is_dictionary(array.type):
        found += buffers_of(array.dictionary)
    return found


def roundtrip(table: pa.Table, *, value: object = None) -> pa.Table:
    """Store, check every promise about the bytes, and return what a reader gets."""
    payload = encode(table if value is None else value)
    assert len(payload.layout) < 1000
    extent = place(payload)
    obj = open_payload(payload, extent)
    assert isinstance(obj, Table)
    got = obj.to_arrow()
    got.validate(full=True)
    assert got.schema.equals(table.schema, check_metadata=True)
    assert got.equals(table, check_metadata=True)
    assert obj.num_rows == got.num_rows == table.num_rows
    if payload.kind == KIND_COMPOSED:
        streams = [
            extent.buffer.slice(segment.offset, segment.layout.stream_bytes)
            for segment in layout_of(obj._live).segments
        ]
    else:
        streams = [extent.buffer]
        with pa.ipc.open_stream(extent.buffer) as reader:
            stock = reader.read_all()
        stock.validate(full=True)
        assert stock.equals(table, check_metadata=True)
    begin, end = extent.address, extent.address + payload.size_bytes
    for column in got.columns:
        for chunk in column.chunks:
            for buffer in buffers_of(chunk):
                assert buffer.address % 64 == 0
                assert begin <= buffer.address < end
                assert not buffer.is_mutable
    for stream in streams:
        assert_padding_is_zero(stream)
    return got


def assert_padding_is_zero(stream: pa.Buffer) -> None:
    """Walk the stream: what no buffer covers is zero, bodies begin at multiples of 64, and it ends where it
    should.
    """
    data = stream.to_pybytes()
    at = 0
    while True:
        marker, length = struct.unpack_from("<Ii", data, at)
        assert marker == 0xFFFFFFFF
        if length == 0:
            assert at + 8 == len(data)
            return
        metadata = bytearray(data[at + 8 : at + 8 + length])
        kind, body_bytes = body_length(metadata)
        body = at + 8 + length
        assert body % 64 == 0
        if kind != 1:
            before = bytes(metadata)
            moves, again = realign(metadata)
            assert (bytes(metadata), again) == (before, body_bytes), "not aligned yet"
            covered = 0
            for old, _, nbytes in moves:
                assert not any(data[body + covered : body + old])
                covered = old + nbytes
            assert not any(data[body + covered : body + body_bytes])
        at = body + body_bytes


EXACT = {
    "ints": pa.table({"a": pa.array([1, None, 3], pa.int32()), "b": pa.array([1.5, 2.5, None])}),
    "bools and nulls": pa.table({"a": [True, None, False], "n": pa.nulls(3)}),
    "text": pa.table({"s": ["x", None, "zzz"], "l": pa.array(["x", "y", None], pa.large_string())}),
    "binary": pa.table({"b": [b"", b"12", None], "f": pa.array([b"ab", None, b"cd"], pa.binary(2))}),
    "views": pa.table({"v": pa.array(["short", "long enough to be out of line", None], pa.string_view())}),
    "times": pa.table(
        {"d": [date(2020, 1, 1)], "t": pa.array([datetime(2020, 1, 1)], pa.timestamp("ns", "UTC"))}
    ),
    "decimals": pa.table({"d": pa.array([Decimal("1.10"), None], pa.decimal128(5, 2))}),
    "nested": pa.table({"l": [[1, 2], None, []], "s": [{"x": 1, "y": ["a"]}, None, {"x": 2, "y": None}]}),
    "map": pa.table({"m": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64()))}),
    "list view": pa.table({"l": pa.array([[1, 2], None, [3]], pa.list_view(pa.int8()))}),
    "run ends": pa.table({"r": pc.run_end_encode(pa.array([1, 1, 2, 2, 2]))}),
    "dense union": pa.table(
        {
            "u": pa.UnionArray.from_dense(
                pa.array([0, 1, 0], pa.int8()),
                pa.array([0, 0, 1], pa.int32()),
                [pa.array([5, 6]), pa.array(["t"])],
            )
        }
    ),
    "dictionary": pa.table({"d": pa.array(["p", "q", None, "p"]).dictionary_encode()}),
    "nested dictionary": pa.table(
        {"d": pa.StructArray.from_arrays([pa.array(["p", "q"]).dictionary_encode()], names=["x"])}
    ),
    "zero rows": pa.schema({"a": pa.int8(), "s": pa.string()}).empty_table(),
    "zero rows, one chunk": pa.Table.from_batches([pa.record_batch({"a": pa.array([], pa.int8())})]),
    "zero columns": pa.table({}),
    "zero columns with rows": pa.table({"a": [1, 2, 3]}).select([]),
    "duplicate names": pa.Table.from_arrays([pa.array([1]), pa.array(["x"])], names=["a", "a"]),
    "metadata": pa.table(
        [pa.array([1]), pa.array([2])],
        schema=pa.schema(
            [pa.field("a", pa.int64(), nullable=False, metadata={"unit": "m"}), pa.field("b", pa.int64())],
            metadata={b"k": b"\x00\xff", b"origin": b"test"},
        ),
    ),
    "extension": pa.table(
        {"u": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16)))}
    ),
    "two chunks": pa.table(
        {"a": pa.chunked_array([[1, 2], [3]]), "s": pa.chunked_array([["x"], ["y", "z"]])}
    ),
    "many chunks": pa.table({"a": pa.chunked_array([[i] for i in range(100)])}),
    "large": pa.table({"a": range(20_000), "s": [str(i) for i in range(20_000)], "n": [None, 1] * 10_000}),
    "slice": pa.table({"a": range(50_000), "s": [str(i) for i in range(50_000)]}).slice(123, 7),
    "slice of bits": pa.table({"b": [True, False, None] * 100}).slice(5, 44),
}  # fmt: skip


@pytest.mark.req("TYP-1")
@pytest.mark.parametrize("name", EXACT)
def test_exact(name: str) -> None:
    roundtrip(EXACT[name])


@pytest.mark.req("TYP-1")
def test_a_slice_stores_its_own_rows() -> None:
    table = pa.table({"a": range(100_000), "s": [str(i) for i in range(100_000)]})
    assert encode(table.slice(50_000, 10)).size_bytes < 2000


@pytest.mark.req("TYP-1")
def test_dictionaries_that_are_replaced_and_grow() -> None:
    kind = pa.dictionary(pa.int8(), pa.string())
    chunks = [
        pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), pa.array(words)).cast(kind)
        for indices, words in [([0, 1], ["a", "b"]), ([1, 0], ["b", "c"]), ([2, 0], ["b", "c", "d"])]
    ]
    got = roundtrip(
        pa.table({"d": pa.chunked_array(chunks), "n": pa.chunked_array([[1, 2], [3, 4], [5, 6]])})
    )
    assert got["d"].to_pylist() == ["a", "b", "c", "b", "d", "b"]


@pytest.mark.req("TYP-1")
def test_an_extension_type_registered_later_is_seen() -> None:
    class Celsius(pa.ExtensionType):
        def __init__(self) -> None:
            super().__init__(pa.float64(), "flightstore.test.celsius")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> Celsius:
            return cls()

    payload = encode(pa.table({"t": pa.ExtensionArray.from_storage(Celsius(), pa.array([20.5]))}))
    assert open_payload(payload).schema.field("t").type == pa.float64()
    pa.register_extension_type(Celsius())
    try:
        assert open_payload(payload).schema.field("t").type == Celsius()
    finally:
        pa.unregister_extension_type("flightstore.test.celsius")
    assert open_payload(payload).schema.field("t").type == pa.float64()


def test_schemas_that_differ_only_in_metadata_or_inner_names_are_kept_apart() -> None:
    for _ in range(2):
        for metadata in ({"k": "1"}, {"k": "2"}, None):
            roundtrip(pa.table({"meta": [1]}).replace_schema_metadata(metadata))
        for item in ("item", "element"):
            for inner in ({"m": "1"}, None):
                kind = pa.list_(pa.field(item, pa.int64(), metadata=inner))
                roundtrip(pa.table({"l": pa.array([[1]], kind)}))


def test_more_schemas_than_are_remembered() -> None:
    for _ in range(2):
        for columns in range(schemas.CACHED_COLUMN_COUNTS + 10):
            roundtrip(pa.table({f"c{i}": [i] for i in range(columns)}))
        for name in range(schemas.CACHED_SCHEMAS + 10):
            roundtrip(pa.table({f"n{name}": [name]}))
    assert len(schemas._by_columns) <= schemas.CACHED_COLUMN_COUNTS
    assert len(schemas._by_fingerprint) <= schemas.CACHED_SCHEMAS


def test_small_batches_alike_and_not() -> None:
    """The layout kept for batches that look alike serves those only."""
    shapes = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [None, 1, 2], [None, 3, None], [1], [2], [3], [], [], [4]]
    for values in shapes:
        for text in ("a", "b", "cc"):
            roundtrip(
                pa.table(
                    {"n": pa.array(values, pa.int64()), "s": pa.array([text] * len(values), pa.string())}
                )
            )


@pytest.mark.parametrize("name", ["ints", "text", "nested", "dictionary", "two chunks", "large", "times"])
def test_another_implementation_reads_the_raw_bytes(name: str) -> None:
    table = EXACT[name]
    payload = encode(table)
    frame = pl.read_ipc_stream(io.BytesIO(place(payload).buffer), use_pyarrow=False)
    assert frame.to_dict(as_series=False) == table.to_pydict()


def test_a_writer_that_cuts_and_joins_differently_is_still_read_right() -> None:
    table = EXACT["large"]
    sink = capture._Sink()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), table.schema) as writer:
        writer.write_table(table)
    parts = {at: bytes(memoryview(data)) for at, data in sink.messages[1][1]}
    whole = b"".join(parts.values())
    cut = {at: whole[at : at + 1000] for at in range(0, len(whole), 1000)}
    for at, data in parts.items():
        assert capture._slice(cut, at, len(data)) == data


words = st.text(max_size=12)
columns = st.sampled_from(
    [
        (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
        (pa.float64(), st.floats(allow_nan=False)),
        (pa.bool_(), st.booleans()),
        (pa.string(), words),
        (pa.large_binary(), st.binary(max_size=9)),
        (pa.list_(pa.int8()), st.lists(st.integers(-128, 127), max_size=4)),
        (pa.dictionary(pa.int32(), pa.string()), words),
    ]
)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    kinds = draw(st.lists(columns, max_size=5))
    fields = [
        pa.field(draw(words), kind, metadata=draw(st.none() | st.just({"k": "v"}))) for kind, _ in kinds
    ]
    schema = pa.schema(fields, metadata=draw(st.none() | st.dictionaries(words, words, max_size=2)))
    chunks = []
    for rows in draw(st.lists(st.integers(0, 20), max_size=3)):
        values = [draw(st.lists(st.none() | cell, min_size=rows, max_size=rows)) for _, cell in kinds]
        chunks.append(
            pa.table([pa.array(v, k) for v, (k, _) in zip(values, kinds, strict=True)], schema=schema)
        )
    return pa.concat_tables(chunks) if chunks else schema.empty_table()


@pytest.mark.req("TYP-1")
@settings(max_examples=80, deadline=None)
@given(tables(), st.integers(0, 10), st.integers(0, 20))
def test_any_simple_table(table: pa.Table, offset: int, length: int) -> None:
    roundtrip(table)
    roundtrip(table.slice(offset, length))
