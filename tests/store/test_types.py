"""Values of the simple types, read in a process that shares nothing with the one that put them."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import fractions
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.testing.children import spawned

NOW = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc)  # noqa: UP017


def bytes_like() -> dict[str, Any]:
    return {
        "bytes": b"\0abc\xff",
        "bytearray": bytearray(b"abc"),
        "memoryview": memoryview(b"abcdef")[1:4],
        "memoryview of ints": memoryview(array.array("i", [1, -2, 3])),
        "array": array.array("d", [1.5, -2.5]),
        "arrow buffer": pa.py_buffer(b"abc"),
        "large": bytes(range(256)) * 4096,
    }


def arrays() -> dict[str, Any]:
    found: dict[str, Any] = {
        str(np.dtype(code)): np.arange(-12, 12).astype(code).reshape(2, 3, 4)
        for code in (
            "?",
            "i1",
            "u1",
            "i2",
            "<i4",
            ">i4",
            "i8",
            "u8",
            "f2",
            "f4",
            ">f8",
            "f8",
            "c8",
            "c16",
            "g",
        )
    }
    found |= {
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "strided": np.arange(100)[::7],
        "reversed": np.arange(10)[::-1],
        "scalar array": np.array(3.5),
        "empty": np.empty((0, 3), "i2"),
        "dates": np.array(["2024-02-29", "NaT"], "M8[D]"),
        "durations": np.array([1, -1], "m8[us]"),
        "text": np.array(["a", "\N{SNOWMAN}bc"]),
        "fixed bytes": np.array([b"a", b"bcd"]),
        "records": np.array([(1, 2.5, "x")], dtype=[("a", "i4"), ("b", "f8"), ("c", "U2")]),
        "objects": np.array([1, "two", None], dtype=object),
        "large": np.arange(300_000),
    }
    return found


def tables() -> dict[str, Any]:
    columns = {
        "bool": pa.array([True, None, False]),
        "int8": pa.array([1, None, -128], pa.int8()),
        "uint64": pa.array([0, None, 2**64 - 1], pa.uint64()),
        "half": pa.array(np.array([1.5, 2, 3], "f2")),
        "double": pa.array([1.5, None, float("inf")]),
        "string": pa.array(["a", None, "\N{SNOWMAN}"]),
        "large string": pa.array(["a", None, ""], pa.large_string()),
        "view": pa.array(["a long enough string to be out of line", None, "x"], pa.string_view()),
        "binary": pa.array([b"\0", None, b""]),
        "fixed": pa.array([b"ab", None, b"cd"], pa.binary(2)),
        "date": pa.array([datetime.date(2024, 2, 29), None, datetime.date(1, 1, 1)]),
        "time": pa.array([datetime.time(1, 2, 3), None, datetime.time(0)]),
        "timestamp": pa.array([NOW, None, NOW], pa.timestamp("ns", "Europe/Berlin")),
        "duration": pa.array([1, None, -1], pa.duration("ms")),
        "decimal": pa.array([decimal.Decimal("1.23"), None, decimal.Decimal("-9.99")]),
        "list": pa.array([[1, None], None, []], pa.list_(pa.int32())),
        "struct": pa.array([{"x": 1, "y": None}, None, {"x": None, "y": "z"}]),
        "map": pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int8())),
        "dictionary": pa.array(["a", None, "a"]).dictionary_encode(),
        "null": pa.nulls(3),
    }
    whole = pa.table(columns)
    required = pa.schema(
        [pa.field("n", pa.int8(), nullable=False, metadata={"unit": "kg"})], {"made": "here"}
    )
    return {
        "every type": whole,
        "slice": whole.slice(1, 1),
        "chunked": pa.concat_tables([whole, whole.slice(2), whole.slice(0, 0)]),
        "metadata": pa.table({"n": [1, 2]}, schema=required),
        "no rows": whole.schema.empty_table(),
        "no columns": pa.table({"a": [1, 2, 3]}).select([]),
        "same names": pa.table([pa.array([1]), pa.array(["x"])], names=["a", "a"]),
        "batch": pa.record_batch(columns),
        "large": pa.table({"n": np.arange(200_000), "s": pa.array(["text"] * 200_000)}),
    }


def frames() -> dict[str, Any]:
    data = {"n": [1, 2, 3], "x": [1.5, None, 2.5], "s": ["a", None, "c"], "b": [True, False, True]}
    return {
        "pandas": pd.DataFrame(data),
        "pandas, range index": pd.DataFrame(data, index=pd.RangeIndex(5, 11, 2, name="r")),
        "pandas, text index": pd.DataFrame(data, index=["x", "y", "z"]),
        "pandas, two levels": pd.DataFrame(data, index=pd.MultiIndex.from_product([["a"], [1, 2, 3]])),
        "pandas, times": pd.DataFrame({"t": pd.date_range("2024-02-29", periods=3, tz="Europe/Berlin")}),
        "pandas, categories": pd.DataFrame({"c": pd.Categorical(["a", None, "b"], ordered=True)}),
        "pandas, nullable": pd.DataFrame({"i": pd.array([1, None, 2**53 + 1], "Int64")}),
        "pandas, no rows": pd.DataFrame(data).iloc[:0],
        "polars": pl.DataFrame(data),
        "polars, types": pl.DataFrame(
            {"c": pl.Series(["a", "b"], dtype=pl.Categorical), "l": [[1], []], "t": [NOW, None]}
        ),
        "polars, no rows": pl.DataFrame(data).clear(),
    }


Point = collections.namedtuple("Point", "x y")


def objects() -> dict[str, Any]:
    return {
        "none": None,
        "number": 10**40,
        "text": "\N{SNOWMAN}",
        "nested": {"a": [1, (2, {3}), {"b": None}], 4: 5.5},
        "numpy inside": {"a": np.arange(10_000), "b": [np.ones(3, "f4")]},
        "fraction": fractions.Fraction(1, 3),
        "path": pathlib.PurePosixPath("/a/b"),
        "date": NOW,
        "series": pd.Series([1, 2], name="s"),
        "polars series": pl.Series("s", [1, None]),
        "arrow array": pa.array([1, None]),
        "arrow schema": pa.schema([("a", pa.int8())]),
        "numpy scalar": np.float32(1.5),
    }


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "bytes": bytes_like,
    "array": arrays,
    "table": tables,
    "frame": frames,
    "object": objects,
}


def difference(expected: Any, got: Any) -> str:
    """Why two values are not the same; empty when they are."""
    if isinstance(expected, bytes | bytearray | memoryview | array.array | pa.Buffer):
        plain = bytes(expected) if isinstance(expected, pa.Buffer) else expected
        return "" if isinstance(got, memoryview) and got == plain else f"{got!r}"
    if type(expected) is not type(got):
        return f"{type(got)} instead of {type(expected)}"
    if isinstance(expected, np.ndarray):
        try:
            np.testing.assert_array_equal(got, expected, strict=True)
        except AssertionError as error:
            return str(error)
        contiguous = expected.flags.f_contiguous and not expected.flags.c_contiguous
        return (
            "" if got.flags.f_contiguous == contiguous or expected.ndim < 2 or not expected.size else "order"
        )
    if isinstance(expected, pa.Table | pa.RecordBatch):
        got.validate(full=True)
        return (
            ""
            if got.equals(expected, check_metadata=True) and got.num_rows == expected.num_rows
            else f"{got}"
        )
    if isinstance(expected, pd.DataFrame):
        try:
            pd.testing.assert_frame_equal(got, expected)
        except AssertionError as error:
            return str(error)
        return ""
    if isinstance(expected, dict):
        if expected.keys() != got.keys():
            return f"keys {list(got)}"
        return "".join(difference(value, got[key]) for key, value in expected.items())
    if isinstance(expected, list):
        return "".join(difference(*pair) for pair in zip(expected, got, strict=True))
    if hasattr(expected, "equals"):
        return "" if expected.equals(got) else f"{got!r}"
    return "" if expected == got else f"{got!r}"


def read_all(path: str) -> dict[str, str]:
    """In the other process: get everything, and say what differs."""
    with fs.connect(path) as store:
        found = {}
        for group, make in CASES.items():
            for case, expected in make().items():
                got = store.get(f"{group}: {case}").value()  # type: ignore[attr-defined]
                found[f"{group}: {case}"] = difference(expected, got)
    return found


@pytest.fixture(scope="module")
def differences() -> Iterator[dict[str, str]]:
    parent = tempfile.mkdtemp(dir="/dev/shm", prefix="flightstore-test-")
    with fs.connect(f"{parent}/store", capacity="64MiB") as store:
        for group, make in CASES.items():
            store.put_many({f"{group}: {case}": value for case, value in make().items()})
        yield spawned(read_all, store.path)
        store.destroy()
    shutil.rmtree(parent)


@pytest.mark.req("TYP-1", "TYP-2", "TYP-3", "TYP-4", "O-1")
@pytest.mark.parametrize("case", [f"{group}: {case}" for group, make in CASES.items() for case in make()])
def test_another_process_reads_the_same_value(differences: dict[str, str], case: str) -> None:
    assert differences[case] == ""


@pytest.mark.req("TYP-4")
@pytest.mark.parametrize("value", [None, 5, "text", [1], {"a": 1}, Point(1, 2), np.array([None])], ids=repr)
def test_what_only_pickle_could_take_is_refused(store: fs.Store, value: Any) -> None:
    with pytest.raises(fs.NotStorable, match="pickle|object") as failure:
        store.put(value, "a", pickle=False)
    assert failure.value.hint
    with pytest.raises(fs.NotStorable):
        store.put_many({"b": b"", "a": value}, pickle=False)
    assert store.list() == []


@pytest.mark.req("TYP-4")
def test_what_needs_no_pickle_is_taken_without(store: fs.Store) -> None:
    values = [b"", bytearray(1), np.arange(3), pa.table({"a": [1]}), pd.DataFrame({"a": [1]}), pl.DataFrame()]
    kinds = [store.stat(store.put(value, pickle=False)).kind for value in values]
    assert kinds == ["blob", "blob", "tensor", "table", "table", "table"]


@pytest.mark.parametrize("value", [lambda: None, (n for n in ())], ids=["lambda", "generator"])
def test_what_pickle_refuses_is_refused_with_a_reason(store: fs.Store, value: Any) -> None:
    with pytest.raises(fs.NotStorable, match="cannot be stored"):
        store.put(value)
