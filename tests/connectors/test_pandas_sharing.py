"""Frames lie in the store's own memory: shown by addresses in the mapping of the arena, and by what is
reported.
"""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.connectors._pandas.encode import array_of
from flightstore.connectors._pandas.report import memory_of
from flightstore.testing.types.pandas import CATALOGUE, assert_same_frame

N = 100


@functools.cache
def arena_of(path: str) -> tuple[int, int]:
    """First address and end of the read-only mapping of the arena in this process."""
    arena = os.path.realpath(f"{path}/arena")
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, *_, path = line.split()
        if path == arena and permissions == "r--s":
            first, end = span.split("-")
            return int(first, 16), int(end, 16)
    raise AssertionError(f"{arena} is not mapped")


def private_bytes(store: fs.Store, array: Any) -> int:
    """Bytes of an array that are not in the arena."""
    first, end = arena_of(store.path)
    return sum(size for address, size in memory_of(array) if size and not first <= address <= end - size)


def columns_of(frame: pd.DataFrame) -> dict[str, Any]:
    return {name: array_of(frame[name]) for name in frame.columns}


def of_pandas() -> dict[str, Any]:
    """Arrays that come back in the store's memory, all of it."""
    times = pd.date_range("2024-01-01", periods=N, unit="us")
    missing = times.where(np.arange(N) % 2 == 0)
    return {
        **{
            name: np.arange(N).astype(name)
            for name in ("i1", "u2", "i4", "u8", "f2", "f4", "f8", "M8[s]", "m8[ns]")
        },
        "float with NaN": np.where(np.arange(N) % 2, np.nan, 1.0),
        "complex": np.arange(N) * 1j,
        "times with NaT": missing.array,
        "zoned": times.tz_localize("Europe/Berlin").array,
        "zoned with NaT": missing.tz_localize("Europe/Berlin").array,
        "period": times.to_period("D").array,
        "interval": pd.arrays.IntervalArray.from_breaks(np.arange(N + 1.0)),
        "category": pd.Categorical(["a", "b"] * (N // 2)),
        "category with NaN": pd.Categorical(["a", None] * (N // 2)),
        "str": pd.array(["text", None] * (N // 2), dtype="str"),
        "string": pd.array(["text", None] * (N // 2), dtype="string"),
        "Arrow": pd.array([1, None] * (N // 2), dtype="int64[pyarrow]"),
        "Arrow bool": pd.array([True, None] * (N // 2), dtype="bool[pyarrow]"),
    }


@pytest.mark.req("O-3", "TYP-6")
def test_what_pandas_put_is_shared(store: fs.Store) -> None:
    frame = pd.DataFrame({name: pd.Series(array, copy=False) for name, array in of_pandas().items()})
    store.put(frame, "frame")
    obj = store.get("frame")
    got = obj.to_pandas()
    assert {name: private_bytes(store, array) for name, array in columns_of(got).items()} == dict.fromkeys(
        frame, 0
    )
    report = obj.conversion_report("pandas")
    assert report.zero_copy, str(report)
    assert [column.name for column in report.columns] == list(frame.columns)
    assert all(column.shared_bytes and not column.reason for column in report.columns)


@pytest.mark.req("O-3", "TYP-6")
@pytest.mark.parametrize(
    "index",
    [
        pd.Index(np.arange(N)[::-1].copy(), name="k"),
        pd.date_range("2024", periods=N, freq="D", tz="UTC"),
        pd.Index([f"key {i}" for i in range(N)]),
        pd.CategoricalIndex(["a", "b"] * (N // 2)),
        pd.MultiIndex.from_product([["a", "b"], range(N // 2)]),
    ],
    ids=["int", "dates", "str", "category", "levels"],
)
def test_indexes_are_shared(store: fs.Store, index: pd.Index) -> None:
    store.put(pd.DataFrame({"x": np.arange(float(N))}, index=index), "frame")
    obj = store.get("frame")
    assert obj.conversion_report("pandas").zero_copy, str(obj.conversion_report("pandas"))
    got = obj.to_pandas().index
    parts = [np.asarray(codes) for codes in got.codes] if isinstance(got, pd.MultiIndex) else [array_of(got)]
    assert [private_bytes(store, part) for part in parts] == [0] * len(parts)


def of_arrow() -> dict[str, tuple[pa.Array, bool]]:
    """Columns of a plain table, and whether pandas' own dtypes share them."""
    whole = pa.array(range(N), pa.int64())
    text = pa.array(["text"] * N)
    return {
        "int64": (whole, True),
        "uint8": (whole.cast(pa.uint8()), True),
        "double": (whole.cast(pa.float64()), True),
        "halffloat": (pa.array(np.arange(N, dtype="f2")), True),
        "timestamp": (whole.cast(pa.timestamp("ms")), True),
        "zoned": (whole.cast(pa.timestamp("us", "Europe/Berlin")), True),
        "duration": (whole.cast(pa.duration("s")), True),
        "large_string": (text.cast(pa.large_string()), True),
        "bool8": (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 1] * (N // 2), pa.int8())), True),
        "codes": (text.cast(pa.large_string()).dictionary_encode().cast(
            pa.dictionary(pa.int8(), pa.large_string())), True),
        "string": (text, False),
        "bool": (pa.array([True, False] * (N // 2)), False),
        "int64 with nulls": (pa.array([1, None] * (N // 2)), False),
        "double with nulls": (pa.array([1.5, None] * (N // 2)), False),
        "timestamp with nulls": (pa.array([1, None] * (N // 2), pa.timestamp("ms")), False),
        "dictionary": (text.dictionary_encode(), False),
        "date": (whole.cast(pa.int32()).cast(pa.date32()), False),
        "list": (pa.array([[1]] * N), False),
        "decimal": (whole.cast(pa.decimal128(30, 2)), False),
    }  # fmt: skip


@pytest.mark.req("O-3", "TYP-6")
def test_what_is_shared_of_a_plain_table(store: fs.Store) -> None:
    columns = of_arrow()
    store.put(pa.table({name: array for name, (array, _) in columns.items()}), "table")
    obj = store.get("table")
    private = {name: private_bytes(store, array) for name, array in columns_of(obj.to_pandas()).items()}
    assert {name: not copied for name, copied in private.items()} == {
        k: shared for k, (_, shared) in columns.items()
    }
    report = obj.conversion_report("pandas")
    assert {column.name: column.copied_bytes for column in report.columns} == private
    assert {column.name: bool(column.reason) for column in report.columns} == {
        k: bool(v) for k, v in private.items()
    }
    assert report.copied_bytes == sum(private.values())
    assert "string: " not in str(report) or "text, which is shared" in str(report)


@pytest.mark.req("O-3", "TYP-6")
def test_with_arrow_dtypes_everything_is_shared(store: fs.Store) -> None:
    store.put(pa.table({name: array for name, (array, _) in of_arrow().items()}), "table")
    obj = store.get("table")
    frame = obj.to_pandas(dtype_backend="pyarrow")
    assert all(isinstance(dtype, pd.ArrowDtype) for dtype in frame.dtypes)
    assert {name: private_bytes(store, array) for name, array in columns_of(frame).items()} == dict.fromkeys(
        frame, 0
    )
    assert obj.conversion_report("pandas", dtype_backend="pyarrow").zero_copy


@pytest.mark.req("O-3")
def test_a_frame_put_by_pandas_with_arrow_dtypes(store: fs.Store) -> None:
    frame = pd.DataFrame(
        {"i": range(N), "b": [True, False] * (N // 2), "s": ["text"] * N}, index=np.arange(N) + 5
    )
    store.put(frame, "frame")
    obj = store.get("frame")
    got = obj.to_pandas(dtype_backend="pyarrow")
    assert [str(dtype) for dtype in got.dtypes] == [
        "int64[pyarrow]",
        "bool[pyarrow]",
        "large_string[pyarrow]",
    ]
    assert str(got.index.dtype) == "int64[pyarrow]"
    assert obj.conversion_report("pandas", dtype_backend="pyarrow").zero_copy
    assert got.astype(frame.dtypes.to_dict()).reset_index(drop=True).equals(frame.reset_index(drop=True))


@pytest.mark.req("TYP-6")
@pytest.mark.parametrize(
    "name", [name for name in CATALOGUE if not name.startswith(("no rows", "series", "lone"))]
)
def test_the_report_says_what_is_true(shared_store: fs.Store, name: str) -> None:
    obj = shared_store.get(shared_store.put(CATALOGUE[name]()))
    got = obj.to_pandas()
    report = obj.conversion_report("pandas")
    assert report.library == "pandas"
    assert [column.name for column in report.columns] == obj.column_names
    values = (
        [array_of(got)]
        if isinstance(got, pd.Series)
        else [array_of(got.iloc[:, i]) for i in range(got.shape[1])]
    )
    for column, array in zip(report.columns, values, strict=False):
        assert column.copied_bytes == private_bytes(shared_store, array), column
        assert column.shared_bytes + column.copied_bytes == sum(size for _, size in memory_of(array)), column
    assert all(bool(column.reason) == bool(column.copied_bytes) for column in report.columns)


@pytest.mark.req("TYP-6")
def test_chunks_that_are_joined_are_reported(store: fs.Store) -> None:
    store.put(pa.table({"x": range(N)}), "one")
    store.concat(["one", "one"], name="both")
    (column,) = store.get("both").conversion_report("pandas").columns
    assert column.copied_bytes == 2 * N * 8
    assert "2 chunks are joined" in column.reason
    assert store.get("both").to_pandas()["x"].tolist() == [*range(N), *range(N)]


@pytest.mark.req("O-3")
def test_a_thousand_columns_are_a_few_blocks(store: fs.Store) -> None:
    store.put(pd.DataFrame(np.arange(50_000.0).reshape(50, 1000)), "floats")
    mixed = pd.DataFrame({f"c{i}": np.arange(50, dtype="f8" if i % 2 else "i4") for i in range(400)})
    mixed["s"] = "text"
    store.put(mixed, "mixed")
    for name, blocks in (("floats", 1), ("mixed", 3)):
        frame = store.get(name).to_pandas()
        assert len(frame._mgr.blocks) == blocks
        assert private_bytes(store, frame._mgr.blocks[0].values) == 0
        frame["new"] = 1  # pandas warns of frames of many blocks
    assert_same_frame(mixed, store.get("mixed").to_pandas())


def test_many_columns_that_are_copied_are_put_together(store: fs.Store) -> None:
    bools = pd.DataFrame(np.ones((10, 300), bool))
    store.put(bools, "bools")
    frame = store.get("bools").to_pandas()
    assert_same_frame(bools, frame)
    frame["new"] = 1


@pytest.mark.req("INV-2")
@pytest.mark.parametrize("backend", [None, "pyarrow"])
def test_a_frame_keeps_its_memory(store: fs.Store, backend: str | None) -> None:
    def make(seed: int) -> pd.DataFrame:
        random = np.random.default_rng(seed)
        data = {"x": random.random(50_000), "s": [f"text {i}" for i in random.integers(0, 99, 50_000)]}
        return pd.DataFrame(data, index=random.integers(0, 1000, 50_000))

    store.put(make(0), "frame")
    frame = store.get("frame").to_pandas(dtype_backend=backend)
    column, index = frame["x"], frame.index
    store.delete("frame")
    for seed in range(1, 40):  # twice the store's capacity
        store.put(make(seed), "other")
    expected = make(0)
    assert frame["s"].tolist() == expected["s"].tolist()
    del frame
    gc.collect()
    for seed in range(40, 80):
        store.put(make(seed), "other")
    assert column.tolist() == expected["x"].tolist()
    assert index.tolist() == expected.index.tolist()
    del column, index
    gc.collect()
    store.delete("other")
    store.recover()
    assert store.stats().used_bytes == 0


def test_a_composed_frame_keeps_the_memory_of_every_member(store: fs.Store) -> None:
    """Columns of several objects may become one block; it holds on to all of them."""
    store.put(pd.DataFrame({"a": np.arange(8.0)}), "frame")
    store.with_columns("frame", {"b": np.arange(8.0) * 2}, name="both")
    frame = store.get("both").to_pandas()
    store.delete("both")
    store.delete("frame")
    for seed in range(1000):
        store.put(pd.DataFrame({"a": np.full(8, float(seed))}), "other")
    assert frame["a"].tolist() == list(np.arange(8.0))
    assert frame["b"].tolist() == list(np.arange(8.0) * 2)


class Conversion:
    """How a table of one column comes out."""

    def __init__(self, store: fs.Store, array: pa.Array) -> None:
        self.obj: Any = store.get(store.put(pa.table({"odd": array})))

    def __call__(self, **options: Any) -> list[Any]:
        values: list[Any] = self.obj.to_pandas(**options)["odd"].tolist()
        return values


UNION = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
RUNS = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array([1, 5]))
REFUSED: dict[str, tuple[pa.Array, tuple[str | None, ...], list[Any]]] = {
    "union": (UNION, (None, "numpy_nullable", "pyarrow"), [1, "b"]),
    "union in a list": (
        pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), UNION),
        (None, "pyarrow"),
        [[1, "b"]],
    ),
    "runs": (RUNS, (None, "numpy_nullable", "pyarrow"), [1, 1, 5]),
    "unknown zone": (
        pa.array([0], pa.timestamp("us", "Mars/Olympus")),
        (None, "pyarrow"),
        [pd.Timestamp(0, tz="UTC")],
    ),
    "int64 beyond floats": (pa.array([2**53 + 1, None]), (None,), [float(2**53), float("nan")]),
    "uint64 beyond floats": (pa.array([2**64 - 1, None], pa.uint64()), (None,), [float(2**64), float("nan")]),
    "nanoseconds": (pa.array([1], pa.time64("ns")), (None, "numpy_nullable"), None),  # type: ignore[dict-item]
    "calendar interval": (pa.array([pa.MonthDayNano([1, 2, 3])]), ("pyarrow",), [pa.MonthDayNano([1, 2, 3])]),
}


@pytest.mark.req("TYP-6")
@pytest.mark.parametrize(
    ("name", "backend"), [(n, b) for n, (_, backends, _) in REFUSED.items() for b in backends]
)
def test_what_pandas_cannot_hold(store: fs.Store, name: str, backend: str | None) -> None:
    array, _, converted = REFUSED[name]
    convert = Conversion(store, array)
    with pytest.raises(fs.NotConvertible, match="column 'odd' of type") as caught:
        convert(dtype_backend=backend)
    assert str(array.type) in str(caught.value)
    assert "strict=False" in caught.value.hint
    with pytest.raises(fs.NotConvertible):
        convert.obj.conversion_report("pandas", dtype_backend=backend)
    got = convert(dtype_backend=backend, strict=False)
    assert converted is None or str(got) == str(converted)
    report = convert.obj.conversion_report("pandas", dtype_backend=backend, strict=False)
    assert "converted to" in report.columns[0].reason


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array([[1], None, [2, 3]], pa.list_view(pa.int64())), [[1], None, [2, 3]]),
        (pa.array([["a"], None], pa.large_list_view(pa.string_view())), [["a"], None]),
        (pa.array([[1, 2], None], pa.list_(pa.int64(), 2)), [[1, 2], None]),
        (pa.array([{"a": ["x"]}, None], pa.struct({"a": pa.list_(pa.string_view())})), [{"a": ["x"]}, None]),
        (pa.array([[("k", "v")], None], pa.map_(pa.string(), pa.string_view())), [[("k", "v")], None]),
        (pa.array(["a", None], pa.string_view()), ["a", float("nan")]),
        (pa.array([b"a", None], pa.binary_view()), [b"a", None]),
        (pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None])), ["a", float("nan")]),
        (pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", "a"])), ["a", "a"]),
        (pa.DictionaryArray.from_arrays(pa.array([1, 0]), pa.array([[1], [2]])), [[2], [1]]),
        (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 5, None], pa.int8())), [False, True, None]),
        (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}'])), ['{"a": 1}']),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
@pytest.mark.parametrize("rows", ["all", "slice"])
def test_layouts_that_pandas_has_not(store: fs.Store, array: pa.Array, values: list[Any], rows: str) -> None:
    if rows == "slice":
        array, values = array.slice(1), values[1:]
    convert = Conversion(store, array)

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray | list):
            return [plain(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
        return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else value

    assert str(plain(convert())) == str(values)
    arrow = convert(dtype_backend="pyarrow")
    assert str([None if item is pd.NA else item for item in arrow]) == str(array.to_pylist())


def test_nullable_dtypes(store: fs.Store) -> None:
    table = pa.table(
        {"i": [1, None], "x": [1.5, None], "b": [True, None], "s": ["a", None], "big": [2**53 + 1, None]}
    )
    store.put(table, "table")
    frame = store.get("table").to_pandas(dtype_backend="numpy_nullable")
    assert [str(dtype) for dtype in frame.dtypes] == ["Int64", "Float64", "boolean", "string", "Int64"]
    assert frame["big"].tolist() == [2**53 + 1, pd.NA]
    assert private_bytes(store, frame["i"].array) == 2  # the mask


def test_no_such_backend(store: fs.Store) -> None:
    store.put(pa.table({"a": [1]}), "table")
    with pytest.raises(fs.InvalidArgument, match="numpy_nullable"):
        store.get("table").to_pandas(dtype_backend="cupy")


def test_options_of_pyarrow(store: fs.Store) -> None:
    store.put(pa.table({"d": pa.array([1], pa.date32()), "x": [1.5]}), "table")
    frame = store.get("table").to_pandas(date_as_object=False)
    assert str(frame["d"].dtype) == "datetime64[ms]"
    frame.loc[0, "x"] = 2.0
    with pytest.raises(fs.NotConvertible, match="zero_copy_only"):
        store.get("table").to_pandas(zero_copy_only=True)
    with pytest.raises(TypeError, match="no_such_option"):
        store.get("table").to_pandas(no_such_option=True)


@pytest.mark.parametrize(
    ("make", "kind"),
    [(lambda: b"bytes", "Blob"), (lambda: np.zeros(3), "Tensor"), (lambda: {"a": 1}, "PyObject")],
    ids=["blob", "tensor", "object"],
)
def test_what_is_no_table(store: fs.Store, make: Callable[[], Any], kind: str) -> None:
    obj = store.get(store.put(make()))
    with pytest.raises(fs.NotConvertible, match=kind):
        obj.to("pandas")
    with pytest.raises(fs.NotConvertible, match=kind):
        obj.conversion_report("pandas")


class Metres(pd.DataFrame):
    """A frame of another type: pickled, so that its type comes back."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return Metres


def test_a_subclass_comes_back_as_what_it_is(store: fs.Store) -> None:
    obj = store.get(store.put(Metres({"a": [1]})))
    assert type(obj.value()) is Metres
    assert type(obj.to("pandas")) is Metres
    assert obj.conversion_report("pandas").columns == ()
