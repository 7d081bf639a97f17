"""Tables built in place: views of their own memory, null masks, columns given whole."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.testing.children import child

pytestmark = pytest.mark.req("O-3", "API-7")

ROWS = 1000


def sealed(
    store: fs.Store, field: pa.Field, fill: Callable[[Any], object], rows: int = ROWS
) -> pa.ChunkedArray:
    schema = pa.schema([field], {"made": "in place"})
    with store.create_table(schema, rows, "built") as builder:
        fill(builder)
    table = store.get("built").to_arrow()
    table.validate(full=True)
    assert table.schema.equals(schema, check_metadata=True)
    assert all(buffer.address % 64 == 0 for buffer in table.column(0).chunk(0).buffers() if buffer)
    assert store.fsck() == []
    return table.column(0)


NUMBERS = np.arange(ROWS)
VIEWS: dict[str, tuple[pa.DataType, np.ndarray[Any, Any], list[Any]]] = {
    "int8": (pa.int8(), NUMBERS.astype(np.int8), NUMBERS.astype(np.int8).tolist()),
    "uint64": (pa.uint64(), NUMBERS.astype(np.uint64), NUMBERS.tolist()),
    "float16": (pa.float16(), NUMBERS.astype(np.float16), NUMBERS.astype(np.float16).tolist()),
    "float64": (pa.float64(), NUMBERS / 7, (NUMBERS / 7).tolist()),
    "bool": (pa.bool_(), NUMBERS % 3 == 0, (NUMBERS % 3 == 0).tolist()),
    "timestamp": (
        pa.timestamp("ms", "Europe/Berlin"),
        NUMBERS.astype("M8[ms]"),
        pa.array(NUMBERS).cast(pa.timestamp("ms", "Europe/Berlin")).to_pylist(),
    ),
    "duration": (
        pa.duration("ns"),
        NUMBERS.astype("m8[ns]"),
        pa.array(NUMBERS).cast(pa.duration("ns")).to_pylist(),
    ),
    "date32": (
        pa.date32(),
        NUMBERS.astype(np.int32),
        pa.array(NUMBERS.astype(np.int32)).cast(pa.date32()).to_pylist(),
    ),
    "date64": (
        pa.date64(),
        NUMBERS.astype("M8[D]").astype("M8[ms]"),
        pa.array(NUMBERS.astype(np.int32)).cast(pa.date32()).to_pylist(),
    ),
    "time64": (pa.time64("us"), NUMBERS, pa.array(NUMBERS).cast(pa.time64("us")).to_pylist()),
    "decimal64": (pa.decimal64(10, 2), NUMBERS, [Decimal(i).scaleb(-2) for i in range(ROWS)]),
    "decimal128": (
        pa.decimal128(20, 2),
        np.stack([NUMBERS, 0 * NUMBERS], 1).astype(np.uint64),
        [Decimal(i).scaleb(-2) for i in range(ROWS)],
    ),
    "binary": (pa.binary(2), np.full(ROWS, np.void(b"ab")), [b"ab"] * ROWS),
    "embedding": (
        pa.list_(pa.float32(), 3),
        np.arange(3 * ROWS, dtype=np.float32).reshape(ROWS, 3),
        np.arange(3 * ROWS).reshape(ROWS, 3).tolist(),
    ),
    "uuid": (
        pa.uuid(),
        np.full(ROWS, np.void(bytes(16))),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)] * ROWS, pa.binary(16))).to_pylist(),
    ),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("nullable", [True, False], ids=["nullable", "not null"])
def test_a_view_of_each_type(store: fs.Store, name: str, nullable: bool) -> None:
    kind, values, expected = VIEWS[name]

    def fill(builder: Any) -> None:
        view = builder["c"]
        assert view.flags.writeable
        view[:] = values

    column = sealed(store, pa.field("c", kind, nullable), fill)
    assert column.null_count == 0
    assert column.to_pylist() == expected


@pytest.mark.parametrize("name", VIEWS)
def test_nulls_of_each_type(store: fs.Store, name: str) -> None:
    kind, values, expected = VIEWS[name]

    def fill(builder: Any) -> None:
        builder["c"][:] = values
        builder.mask("c")[::7] = True

    column = sealed(store, pa.field("c", kind), fill)
    assert column.to_pylist() == [None if row % 7 == 0 else value for row, value in enumerate(expected)]


@pytest.mark.parametrize("name", VIEWS)
def test_arrow_values_of_each_type_with_nulls_at_an_offset(store: fs.Store, name: str) -> None:
    kind, values, _ = VIEWS[name]
    with store.create_table(pa.schema([("c", kind)]), ROWS, "source") as builder:
        builder["c"][:] = values
        builder.mask("c")[::7] = True
    source = store.get("source").to_arrow()["c"]
    part = pa.chunked_array([source.chunk(0).slice(3, 100), source.chunk(0).slice(200, 57)])
    column = sealed(store, pa.field("c", kind), lambda builder: builder.__setitem__("c", part), 157)
    assert column.equals(part)


GIVEN: dict[str, Any] = {
    "list": [["a", None, "ccc"], pa.string()],
    "numpy": [np.array(["a", "b", "c"]), pa.large_string()],
    "pandas": [pd.Series(["a", None, "c"]), pa.string()],
    "arrow": [pa.array([[1], None, [2, 3]]), pa.list_(pa.int64())],
    "chunks": [pa.chunked_array([["a"], ["b", "c"]]), pa.string_view()],
    "dictionary": [pa.array(["a", "b", "a"]).dictionary_encode(), pa.dictionary(pa.int32(), pa.string())],
}


@pytest.mark.parametrize("name", GIVEN)
def test_columns_that_are_given_whole(store: fs.Store, name: str) -> None:
    values, kind = GIVEN[name]
    schema = pa.schema([pa.field("s", kind), pa.field("n", pa.int64(), nullable=False)], {"k": "v"})
    with store.create_table(schema, 3, "built", metadata={"long": "x" * 2000}) as builder:
        builder["n"][:] = [1, 2, 3]
        builder["s"] = values
    obj = store.get("built")
    table = obj.to_arrow()
    table.validate(full=True)
    assert table.schema.equals(schema, check_metadata=True)
    assert table["n"].to_pylist() == [1, 2, 3]
    expected = values.to_pylist() if isinstance(values, pa.Array | pa.ChunkedArray) else list(values)
    assert table["s"].to_pylist() == [None if value is np.nan else value for value in expected]
    assert obj.metadata == {"long": "x" * 2000}
    assert obj.members == []
    assert store.stats().objects == 1
    assert store.fsck() == []
    del table
    obj.release()
    store.delete("built")
    store.recover()
    assert (store.stats().used_bytes, store.stats().pending) == (0, 0)


@pytest.mark.req("TYP-5")
def test_a_forgotten_view_cannot_change_the_sealed_table(store: fs.Store) -> None:
    with store.create_table(pa.schema([("n", pa.int64())]), ROWS, "built") as builder:
        view = builder["n"]
        view[:] = NUMBERS
    view[:] = -1
    assert store.get("built").to_arrow()["n"].to_pylist() == NUMBERS.tolist()

    def read() -> int:
        with fs.connect(store.path) as there:
            return int(there.get("built").to_arrow()["n"].to_numpy().sum())

    assert child(read) == NUMBERS.sum()


def test_nothing_is_seen_before_the_seal_and_nothing_is_left_of_an_abort(store: fs.Store) -> None:
    builder = store.create_table(pa.schema([("n", pa.int64()), ("s", pa.string())]), 10, "built")
    assert not store.contains("built")
    builder.abort()
    with pytest.raises(fs.StoreClosed, match="aborted"):
        builder["n"]
    other = store.create_table(pa.schema([("n", pa.int64())]), 10, "built")
    with contextlib.suppress(KeyboardInterrupt), other:
        other["n"][:] = 1
        raise KeyboardInterrupt
    del builder, other
    store.recover()
    assert (store.stats().used_bytes, store.stats().objects, store.stats().pending) == (0, 0, 0)


def test_what_is_refused(store: fs.Store) -> None:
    fields = [pa.field("n", pa.int32()), pa.field("s", pa.string()), pa.field("m", pa.int8(), nullable=False)]
    builder = store.create_table(pa.schema(fields), 3, "built")
    with pytest.raises(fs.InvalidArgument, match=r"no column 'x'.*n, s, m"):
        builder["x"]
    with pytest.raises(fs.InvalidArgument, match="'s' of type string has no fixed width"):
        builder["s"]
    with pytest.raises(fs.InvalidArgument, match="2 values were given for the 3 rows of column 'n'"):
        builder["n"] = [1, 2]
    with pytest.raises(fs.InvalidArgument, match="4 values"):
        builder["n"] = np.arange(4, dtype=np.int32)
    with pytest.raises(fs.NotStorable, match="'n'"):
        builder["n"] = np.array([0.5, 1, 2])
    with pytest.raises(fs.NotStorable, match="'n'"):
        builder["n"] = pa.array([1 << 40, 1, 2])
    with pytest.raises(fs.NotStorable, match="'m' takes no nulls"):
        builder["m"] = [1, None, 2]
    with pytest.raises(fs.InvalidArgument, match="'m' takes no nulls"):
        builder.mask("m")
    with pytest.raises(fs.InvalidArgument, match="'s' of type string was not given"):
        builder.seal()
    builder["s"] = ["a", "b", "c"]
    assert builder.seal() == builder.seal() == store.get("built").id
    with pytest.raises(fs.StoreClosed, match="sealed"):
        builder["n"]
    with pytest.raises(fs.InvalidArgument, match="'a'"):
        store.create_table(pa.schema([("a", pa.int8()), ("a", pa.int8())]), 1)
    with pytest.raises(fs.InvalidArgument, match="-1 is not a number of rows"):
        store.create_table(pa.schema([("a", pa.int8())]), -1)
    with pytest.raises(fs.StoreFull, match="32,500,360 bytes"):
        store.create_table(pa.schema([("a", pa.int64())]), 4_000_000)


def test_a_full_store_keeps_the_table_open(store: fs.Store) -> None:
    """There is room for what is filled in place, not for the text: nothing is lost, and it can be retried."""
    builder = store.create_table(pa.schema([("n", pa.int64()), ("s", pa.string())]), 2, "built")
    builder["s"] = ["x" * (20 << 20), "y"]
    with pytest.raises(fs.StoreFull):
        builder.seal()
    builder["s"] = ["x", "y"]
    builder.seal()
    assert store.get("built").to_arrow()["s"].to_pylist() == ["x", "y"]
    assert store.stats().pending == 0
    assert store.fsck() == []


def test_no_rows_and_no_columns(store: fs.Store) -> None:
    with store.create_table(pa.schema([("n", pa.int64()), ("b", pa.bool_())]), 0, "rows"):
        pass
    assert store.get("rows").to_arrow().num_rows == 0
    with store.create_table(pa.schema([]), 5, "columns"):
        pass
    assert (store.get("columns").num_rows, store.get("columns").to_arrow().num_rows) == (5, 5)
