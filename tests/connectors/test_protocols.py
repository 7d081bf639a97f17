"""Stored objects in the hands of other libraries, by the protocols that they speak."""

from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import flightstore as fs

pytestmark = pytest.mark.req("TYP-1")

TABLE = pa.table(
    {"n": np.arange(1000), "s": [f"row {i}" for i in range(1000)], "x": np.linspace(0, 1, 1000)},
    metadata={"k": "v"},
)


@pytest.fixture(params=["plain", "composed"])
def obj(store: fs.Store, request: pytest.FixtureRequest) -> fs.Object:
    if request.param == "plain":
        return store.get(store.put(TABLE))
    store.put(TABLE.select(["n", "s"]), "two")
    return store.with_columns("two", {"x": TABLE["x"]})


def addresses(column: pa.ChunkedArray) -> list[int]:
    return [buffer.address for chunk in column.chunks for buffer in chunk.buffers() if buffer]


def test_arrow(obj: fs.Object) -> None:
    table = pa.table(obj)
    assert table.equals(TABLE, check_metadata=True)
    assert addresses(table["n"]) == addresses(obj.to_arrow()["n"])


def test_polars(obj: fs.Object) -> None:
    frame = pl.DataFrame(obj)
    assert frame.to_dict(as_series=False) == TABLE.to_pydict()
    assert frame["n"].to_numpy(allow_copy=False).ctypes.data == addresses(obj.to_arrow()["n"])[0]


def test_pandas(obj: fs.Object) -> None:
    frame = pd.DataFrame.from_arrow(obj)
    assert frame["n"].tolist() == TABLE["n"].to_pylist()
    assert frame["s"].tolist() == TABLE["s"].to_pylist()


def test_duckdb(obj: fs.Object) -> None:
    with duckdb.connect() as con:
        assert con.sql("select sum(n), count(distinct s), max(x) from obj").fetchall() == [
            (499500, 1000, 1.0)
        ]
        assert con.sql("from obj where n = 7").fetchall() == [(7, "row 7", TABLE["x"][7].as_py())]


def test_a_requested_schema_is_honoured(obj: fs.Object) -> None:
    wanted = pa.schema({"n": pa.int32(), "s": pa.string_view(), "x": pa.float32()})
    got = pa.RecordBatchReader.from_stream(obj, schema=wanted).read_all()
    assert got.schema.types == wanted.types
    assert got["n"].to_pylist() == TABLE["n"].to_pylist()


def test_what_speaks_no_such_protocol_does_not_pretend_to(store: fs.Store) -> None:
    store.put_many({"tensor": np.zeros(3), "blob": b"x", "object": {"a": 1}})
    assert hasattr(store.get("tensor"), "__array__")
    assert not any(hasattr(store.get(name), "__arrow_c_stream__") for name in ("tensor", "blob", "object"))
    assert not any(hasattr(store.get(name), "__array__") for name in ("blob", "object"))


ARROW_VALUES = {
    "array": pa.array([1, None, 3]),
    "sliced array": pa.array(["a", "b", "c"]).slice(1),
    "nested array": pa.array([[1], None]),
    "extension array": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)], pa.binary(16))),
    "chunked": pa.chunked_array([[1, 2], [3]]),
    "chunked lists": pa.chunked_array([[[1], [2]], [[3]]]),
    "empty chunked": pa.chunked_array([], pa.string()),
    "scalar": pa.scalar(3, pa.int8()),
    "null scalar": pa.scalar(None, pa.string()),
    "struct scalar": pa.scalar({"a": [1, 2]}),
    "batch": pa.record_batch({"a": [1, 2]}),
    "reader": pa.table({"a": [1]}),
}


@pytest.mark.parametrize("name", ARROW_VALUES)
def test_arrows_other_containers_come_back_as_what_they_were(store: fs.Store, name: str) -> None:
    value = ARROW_VALUES[name]
    obj = store.get(store.put(value.to_reader() if name == "reader" else value))
    assert obj.kind == "table"
    got = obj.value()
    assert type(got) is type(value)
    assert got.equals(value)
