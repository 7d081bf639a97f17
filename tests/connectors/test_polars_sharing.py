"""What put and get share, by address; what a report says of it; what a frame's user can do to the store."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.connectors.polars.building import build
from flightstore.connectors.polars.wide import export_wide
from flightstore.testing.children import spawned
from flightstore.testing.types.polars import CATALOGUE, assert_same_frame

from .arrow_cases import leaves

COPIED = ("Categorical", "Enum", "Object", "width 0", "Map", "Struct", "patterns", ", no rows")
"""In these names: something is private, and the report says what."""
REWRITTEN = ("Categorical", "Object", "Map", "Struct of")
"""In these: polars itself makes something anew for Arrow, codes or offsets."""


def spans(series: pl.Series) -> list[tuple[int, int]]:
    """Address and size of every buffer of a series as polars holds it."""
    series = series.alias("")
    arrow = export_wide(series)[1] if "nt128" in str(series.dtype) else pa.chunked_array(series)
    found = [buffer for chunk in arrow.chunks for buffer in chunk.buffers()]
    return [(buffer.address, buffer.size) for buffer in found if buffer is not None and buffer.size]


def extent(obj: fs.Object) -> tuple[int, int]:
    """First and last address of the object's memory in the arena."""
    payload = obj._live.payload
    return payload.address, payload.address + payload.size


def is_within(series: pl.Series, obj: fs.Object) -> bool:
    start, end = extent(obj)
    return all(start <= address and address + size <= end for address, size in spans(series))


@pytest.mark.req("O-3", "TYP-6")
@pytest.mark.parametrize("name", CATALOGUE)
def test_get_shares_the_arena(store: fs.Store, name: str) -> None:
    value = CATALOGUE[name]()
    obj = store.get(store.put(value))
    report = obj.conversion_report("polars")
    assert report.library == "polars"
    assert all(column.reason for column in report.columns if column.copied_bytes)
    if any(word in name for word in (*COPIED, "every flat dtype", "categories")):
        return
    got = obj.value()
    assert report.zero_copy, str(report)
    assert not any(column.reason for column in report.columns), str(report)
    for column in [got] if isinstance(got, pl.Series) else got.get_columns():
        assert is_within(column, obj)


@pytest.mark.req("O-3")
@pytest.mark.parametrize("name", CATALOGUE)
def test_put_copies_once(name: str) -> None:
    """What is built for the store is the frame's own memory; only the store's copy follows."""
    value = CATALOGUE[name]()
    if not isinstance(value, pl.Series) or any(word in name for word in REWRITTEN):
        return
    chunks = value.n_chunks()
    table = build(value, pickle=False)
    given = {address for address, _ in spans(value)}
    built = [buffer for chunk in table.column(0).chunks for buffer in chunk.buffers() if buffer]
    private = sum([buffer.size for buffer in built if buffer.address not in given])
    assert private <= 16, "null masks of slices at most"
    assert value.n_chunks() == chunks, "nothing was lined up"


@pytest.mark.req("TYP-6")
def test_the_report_of_any_table(store: fs.Store) -> None:
    """For every Arrow type that polars holds: shared as it is, or a reason."""
    for name, array in leaves().items():
        obj = store.get(store.put(pa.table({"c": array})))
        report = obj.conversion_report("polars", strict=False)
        (column,) = report.columns
        got = obj.to_polars(strict=False).to_series()  # type: ignore[attr-defined]
        assert column.name == "c"
        assert column.type == str(array.type)
        assert bool(column.reason) or column.zero_copy, name
        if column.zero_copy:
            assert is_within(got, obj), name
        elif pa.types.is_primitive(array.type) and column.shared_bytes == 0:
            assert not is_within(got, obj), name


@pytest.mark.req("TYP-6")
def test_the_report_names_what_is_lost(store: fs.Store) -> None:
    def said(array: pa.Array, **field: Any) -> str:
        schema = pa.schema([pa.field("c", array.type, **field)])
        obj = store.get(store.put(pa.Table.from_arrays([array], schema=schema)))
        return obj.conversion_report("polars").columns[0].reason

    numbers = pa.array([1, 2])
    assert said(numbers) == ""
    assert "no nulls" in said(numbers, nullable=False)
    assert "metadata is lost: unit" in said(numbers, metadata={"unit": "kg"})
    assert "arrow.uuid is lost" in said(leaves()["uuid"])
    assert "time64[ns]" in said(pa.array([1], pa.time32("s")))
    assert "timestamp[ms]" in said(pa.array([1], pa.timestamp("s")))
    assert "views" in said(pa.array(["a"]))
    assert "64 bits" in said(pa.array([[1]]))
    assert "decoded" in said(leaves()["dictionary of numbers"])


def categories(path: str, before: list[str]) -> tuple[int, int, list[str]]:
    """Shared and copied bytes of the column's codes here, where some categories may be known already."""
    known = pl.Series(before, dtype=pl.Categorical())
    with fs.connect(path) as store:
        obj = store.get("c")
        column = obj.conversion_report("polars").columns[0]
        values = obj.to_polars()["c"].to_list()  # type: ignore[attr-defined]
    assert known.to_list() == before
    return column.shared_bytes, column.copied_bytes, sorted(set(values))


@pytest.mark.req("TYP-6", "TYP-3")
@pytest.mark.parametrize("putter", ["polars", "arrow"])
def test_codes_of_categories_are_shared_where_they_mean_the_same(store: fs.Store, putter: str) -> None:
    text = ["b", "a", "c"] * 1000
    arrow = pa.table({"c": pa.array(text).dictionary_encode()})
    frame = pl.DataFrame({"c": pl.Series(text, dtype=pl.Categorical())})
    store.put(arrow if putter == "arrow" else frame, "c")
    shared, copied, values = spawned(categories, store.path, [])
    assert shared == 4 * len(text)
    assert copied < 200, "the categories"
    assert values == ["a", "b", "c"]
    shared, copied, values = spawned(categories, store.path, ["x", "a"])
    assert shared == 0
    assert copied >= 4 * len(text)
    assert values == ["a", "b", "c"]


@pytest.mark.req("API-7", "TYP-5")
def test_a_frame_outlives_its_object(store: fs.Store) -> None:
    wanted = pl.DataFrame({
        "n": np.arange(50_000), "s": [f"the text of the row {i}" for i in range(50_000)],
        "w": pl.Series(range(50_000), dtype=pl.Int128),
        "e": pl.Series(["x", "y"] * 25_000, dtype=pl.Enum(["x", "y"])),
    })  # fmt: skip
    before = store.stats().used_bytes
    store.put(wanted, "x")
    obj = store.get("x")
    frame = obj.value()
    part = frame["s"].slice(40_000, 3)
    obj.release()
    store.delete("x")
    del obj
    gc.collect()
    fillers = [store.put(bytes([i]) * (1 << 20)) for i in range(8)]
    assert_same_frame(wanted, frame)
    del frame
    gc.collect()
    store.recover()
    fillers.append(store.put(b"\xff" * (3 << 20)))
    assert part.to_list() == [f"the text of the row {i}" for i in range(40_000, 40_003)]
    del part
    gc.collect()
    for filler in fillers:
        store.delete(filler)
    store.recover()
    assert store.stats().used_bytes == before


@pytest.mark.req("TYP-5", "API-7")
def test_a_frame_can_be_changed_and_the_store_stays(store: fs.Store) -> None:
    wanted = pl.DataFrame({"n": [3, None, 1], "x": [1.0, 2.0, 3.0], "s": ["c", "a", "b"]})
    store.put(wanted, "x")
    frame = store.get("x").value()
    frame[0, "n"] = 100
    frame["x"][1] = 100.0
    frame = frame.with_columns(pl.col("n") + 1, new=pl.col("s").str.to_uppercase()).sort("s")
    column = store.get("x").value()["x"]
    column[0] = -1.0
    column.scatter([1, 2], [8.0, 9.0])
    column.append(pl.Series([5.0]))
    column.extend(pl.Series([6.0]))
    other = store.get("x").value()
    other.insert_column(0, pl.Series("z", [1, 2, 3]))
    other.replace_column(1, pl.Series("n", [0, 0, 0]))
    other.drop_in_place("s")
    other.extend(other)
    assert_same_frame(wanted, store.get("x").value())


@pytest.mark.req("API-7")
def test_views_of_a_frame_are_read_only(store: fs.Store) -> None:
    frame = store.get(store.put(pl.DataFrame({"x": np.arange(100_000.0)}))).value()
    view = frame["x"].to_numpy()
    assert view.ctypes.data == spans(frame["x"])[0][0]
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    writable = frame["x"].to_numpy(writable=True)
    writable[0] = 99
    assert frame["x"][0] == 0


@pytest.mark.req("O-3")
def test_chunks_of_numbers_become_one(store: fs.Store) -> None:
    parts = [pl.DataFrame({"n": [i, i + 1], "s": ["x", None]}) for i in range(16)]
    frame = pl.concat(parts, rechunk=False)
    obj = store.get(store.put(frame))
    got = obj.value()
    assert_same_frame(frame, got)
    assert got["n"].n_chunks() == 1
    assert is_within(got["n"], obj)
    assert frame.n_chunks() == 16
