"""Tables as users see them: the frames they put, the forms they ask for, the protocols others use."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import polars as pl
import polars.testing
import pyarrow as pa
import pytest

from flightstore.errors import InvalidArgument, MissingExtra, NotStorable, StoreClosed
from flightstore.objects.registry import encode
from flightstore.objects.table import Table

from .conftest import open_payload, place

Through = Callable[..., Any]


def test_what_a_table_says_of_itself(store_value: Through) -> None:
    obj = store_value(pa.table({"a": [1, 2], "b": ["x", "y"]}))
    assert isinstance(obj, Table)
    assert (obj.kind, obj.num_rows, obj.num_columns, len(obj)) == ("table", 2, 2, 2)
    assert obj.column_names == ["a", "b"]
    assert obj.schema == pa.schema({"a": pa.int64(), "b": pa.string()})
    assert obj.value().equals(pa.table({"a": [1, 2], "b": ["x", "y"]}))


@pytest.mark.req("TYP-3")
def test_polars_frames_come_back(store_value: Through) -> None:
    frame = pl.DataFrame({"a": [1, None], "s": ["x", "y"], "l": [[1], []], "d": [None, None]})
    obj = store_value(frame, pickle=False)
    assert isinstance(obj, Table)
    assert isinstance(obj.value(), pl.DataFrame)
    polars.testing.assert_frame_equal(obj.value(), frame)
    polars.testing.assert_frame_equal(pl.DataFrame(obj), frame)


@pytest.mark.req("TYP-1")
def test_a_reader_whose_source_breaks_says_what_broke() -> None:
    def source() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"a": [1]})
        raise LookupError("the source broke")

    with pytest.raises(LookupError, match="the source broke"):
        encode(pa.RecordBatchReader.from_batches(pa.schema({"a": pa.int64()}), source()))


@pytest.mark.req("TYP-1")
def test_batches_and_readers(store_value: Through) -> None:
    batch = pa.record_batch({"a": [1, 2], "d": pa.array(["x", "y"]).dictionary_encode()})
    assert store_value(batch).value().equals(batch)
    empty = batch.slice(0, 0)
    assert store_value(empty).value().equals(empty)
    table = pa.Table.from_batches([batch, batch])
    assert store_value(table.to_reader()).value().equals(table)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert store_value(pa.ipc.open_stream(sink.getvalue()), pickle=False).value().equals(table)


class ArrowStream:
    def __init__(self, value: Any) -> None:
        self.inner = value

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.inner.__arrow_c_stream__(requested_schema)


class ArrowArray:
    def __init__(self, value: Any) -> None:
        self.inner = value

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self.inner.__arrow_c_array__(requested_schema)


@pytest.mark.req("TYP-1")
def test_any_arrow_producer(store_value: Through) -> None:
    table = pa.table({"a": [1, 2], "s": ["x", None]})
    assert store_value(ArrowStream(table), pickle=False).value().equals(table)
    assert store_value(ArrowArray(table.to_batches()[0]), pickle=False).value().equals(table)
    with pytest.raises(NotStorable, match="does not yield an Arrow table"):
        encode(ArrowStream(pa.chunked_array([[1]])), pickle=False)


@pytest.mark.req("O-3")
def test_frames_share_the_memory(store_value: Through) -> None:
    payload = encode(pa.table({"a": range(1000), "b": np.arange(1000.0)}))
    extent = place(payload)
    obj = open_payload(payload, extent)
    addresses = [
        obj.to_arrow()["a"].chunk(0).buffers()[1].address,
        obj.to_pandas()["b"].to_numpy().ctypes.data,
        obj.to_polars()["a"].to_numpy().ctypes.data,
    ]
    assert all(extent.address <= address < extent.address + payload.size_bytes for address in addresses)
    with pytest.raises(ValueError, match="read-only"):
        obj.to_pandas()["b"].to_numpy()[0] = 1


def test_views_outlive_the_object(store_value: Through) -> None:
    obj = store_value(pa.table({"a": [1, 2]}))
    table = obj.to_arrow()
    obj.release()
    assert table.to_pydict() == {"a": [1, 2]}
    for use in (obj.to_arrow, obj.to_pandas, obj.value, lambda: obj.num_rows, lambda: obj.schema):
        with pytest.raises(StoreClosed):
            use()


def test_to_numpy_takes_one_column(store_value: Through) -> None:
    one = store_value(pa.table({"a": [1, 2, 3]})).to_numpy()
    assert one.tolist() == [1, 2, 3]
    assert not one.flags.writeable
    assert store_value(pa.table({"a": pa.chunked_array([[1], [2]])})).to_numpy().tolist() == [1, 2]
    with pytest.raises(InvalidArgument, match="2"):
        store_value(pa.table({"a": [1], "b": [2]})).to_numpy()


def test_only_tables_offer_the_arrow_stream(store_value: Through) -> None:
    assert hasattr(store_value(pa.table({"a": [1]})), "__arrow_c_stream__")
    for value in (b"x", np.zeros(2), {"x": 1}):
        assert not hasattr(store_value(value), "__arrow_c_stream__")


def test_others_read_it_through_the_capsule(store_value: Through) -> None:
    table = pa.table({"a": [1, 2], "s": ["x", None]})
    obj = store_value(table)
    assert pa.table(obj).equals(table)
    large = pa.schema({"a": pa.int64(), "s": pa.large_string()})
    assert pa.table(obj, schema=large).schema == large


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_missing_library_is_named_with_its_extra(
    store_value: Through, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    obj = store_value(pa.table({"a": [1]}))
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=library) as caught:
        getattr(obj, f"to_{library}")()
    assert f"flightstore[{library}]" in caught.value.hint
    assert isinstance(caught.value, ImportError)
