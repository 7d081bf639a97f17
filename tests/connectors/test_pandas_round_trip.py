"""pandas objects through a store: exactly the same objects come out, here and in another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

import flightstore as fs
from flightstore.connectors._pandas.report import memory_of
from flightstore.connectors.pandas import build
from flightstore.testing.children import spawned
from flightstore.testing.types.pandas import (
    CATALOGUE,
    NEEDS_PICKLE,
    assert_same_frame,
    frames,
    indexes,
    series,
)

PLAIN = [name for name in CATALOGUE if name not in NEEDS_PICKLE]
OWN_FORM = ("index: tuples", "index: complex", "index: one level", "index: Int64", "index: ArrowDtype")
"""Indexes whose values are others to who knows nothing of our own metadata."""


def difference(expected: Any, got: Any) -> str:
    """Why two objects are not the same; empty when they are."""
    try:
        assert_same_frame(expected, got)
    except AssertionError as error:
        return str(error)
    return ""


def read_all(path: str) -> dict[str, str]:
    """In the other process: get everything, and say what differs."""
    with fs.connect(path) as store:
        return {name: difference(make(), store.get(name).value()) for name, make in CATALOGUE.items()}


@pytest.fixture(scope="module")
def elsewhere(shared_store: fs.Store) -> dict[str, str]:
    shared_store.put_many({name: make() for name, make in CATALOGUE.items()})
    return spawned(read_all, shared_store.path)


@pytest.mark.req("TYP-2")
@pytest.mark.parametrize("name", CATALOGUE)
def test_another_process_gets_the_same(elsewhere: dict[str, str], name: str) -> None:
    assert elsewhere[name] == ""


@pytest.mark.req("TYP-2")
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", CATALOGUE)
def test_the_same_comes_out_as_a_table(shared_store: fs.Store, name: str) -> None:
    obj = shared_store.get(name)
    assert obj.kind == "table"
    assert_same_frame(CATALOGUE[name](), obj.to_pandas())


@pytest.mark.req("TYP-2")
@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(value=frames() | series() | indexes())
def test_generated_objects(shared_store: fs.Store, value: Any) -> None:
    obj = shared_store.get(shared_store.put(value))
    assert obj.kind == "table"
    assert_same_frame(value, obj.value())


@pytest.mark.req("TYP-2", "TYP-4")
@pytest.mark.parametrize("name", PLAIN)
def test_what_arrow_holds_is_stored_without_pickle(shared_store: fs.Store, name: str) -> None:
    obj = shared_store.get(shared_store.put(CATALOGUE[name](), pickle=False))
    table = obj.to_arrow()
    written = [table.schema.metadata, *(field.metadata for field in table.schema)]
    assert "$pickle" not in str(written)
    assert '"form":"pickle"' not in str(written)
    assert_same_frame(CATALOGUE[name](), obj.value())


@pytest.mark.req("TYP-2", "TYP-4")
@pytest.mark.parametrize("name", sorted(NEEDS_PICKLE))
def test_what_only_pickle_holds_is_refused_without_it(store: fs.Store, name: str) -> None:
    with pytest.raises(fs.NotStorable, match="only pickle could store") as caught:
        store.put(CATALOGUE[name](), pickle=False)
    assert "allow pickle" in caught.value.hint
    assert store.list() == []


@pytest.mark.req("TYP-4")
@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1, "x"], "column 'odd'.*row 1 holds str, beside int in row 0"),
        (["a", None, float("nan")], "column 'odd'.*row 2 holds nan, beside None in row 1"),
        (["a", "b", "\ud800"], "column 'odd'.*row 2 holds str"),
        ([[1], [2], [3, "x"]], "column 'odd'.*row 2 holds list"),
        ([pd.Timestamp("2024")], "column 'odd'.*row 0 holds pandas.*Timestamp"),
    ],
)
def test_a_refusal_names_column_row_and_type(values: list[Any], says: str) -> None:
    frame = pd.DataFrame({"fine": range(len(values)), "odd": pd.Series(values, dtype=object)})
    with pytest.raises(fs.NotStorable, match=says):
        build(frame, pickle=False)


@pytest.mark.req("TYP-4")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: pd.DataFrame({"a": [lambda: 1]}), "column 'a'.*row 0 holds a function"),
        (lambda: pd.DataFrame({"a": [1]}, index=pd.Index([lambda: 1], dtype=object)), "index"),
        (lambda: pd.Series([1], name=Ellipsis), ""),
    ],
    ids=["column", "index", "name"],
)
def test_what_nothing_holds_is_named(make: Callable[[], Any], says: str, store: fs.Store) -> None:
    if not says:  # a name that pickle does hold
        assert store.get(store.put(make())).value().name is Ellipsis
        return
    with pytest.raises(fs.NotStorable, match=says):
        store.put(make())


def test_attrs_that_only_pickle_holds_are_named(store: fs.Store) -> None:
    frame = pd.DataFrame({"a": [1]})
    frame.attrs["when"] = object
    with pytest.raises(fs.NotStorable, match="attrs"):
        store.put(frame, pickle=False)
    assert store.get(store.put(frame)).value().attrs == {"when": object}


@pytest.mark.req("INV-8")
def test_what_is_done_to_the_frame_that_was_put_changes_nothing(store: fs.Store) -> None:
    def make() -> pd.DataFrame:
        frame = pd.DataFrame({"x": np.arange(10_000.0), "c": pd.Categorical(["a", "b"] * 5000)})
        frame["n"] = pd.array([1, None] * 5000, dtype="Int64")
        return frame

    frame = make()
    store.put(frame, "frame")
    frame["x"].array[:] = 0
    frame["n"].array[:] = 0
    frame.loc[:, "c"] = "a"
    assert_same_frame(make(), store.get("frame").value())


def columns_at(table: pa.Table) -> list[tuple[int, int]]:
    return [span for column in table.columns for chunk in column.chunks for span in arrow_spans(chunk)]


def arrow_spans(array: pa.Array) -> list[tuple[int, int]]:
    spans = [(part.address, part.address + part.size) for part in array.buffers() if part is not None]
    return spans + (arrow_spans(array.dictionary) if pa.types.is_dictionary(array.type) else [])


@pytest.mark.req("O-3")
def test_building_copies_nothing() -> None:
    n = 1000
    frame = pd.DataFrame(
        {
            "x": np.arange(float(n)),
            "y": np.arange(float(n)),
            "t": pd.date_range("2024", periods=n),
            "z": pd.date_range("2024", periods=n, tz="UTC"),
            "n": pd.array([1, None] * (n // 2), dtype="Int64"),
            "c": pd.Categorical(["a", None] * (n // 2)),
            "s": [f"t{i}" for i in range(n)],
            "p": pd.period_range("2024", periods=n, freq="D"),
            "j": np.arange(n) * 1j,
        },
        index=pd.Index(np.arange(n)[::-1].copy(), name="k"),
    )
    spans = columns_at(build(frame, pickle=False))
    arrays = [frame[name].array for name in frame.columns] + [frame.index.array]
    for array in arrays:
        plain = array.to_numpy() if isinstance(array, pd.arrays.NumpyExtensionArray) else array
        address, size = max(memory_of(plain), key=lambda span: span[1])
        assert any(begin <= address and address + size <= end for begin, end in spans), array.dtype


def test_neighbouring_columns_of_a_block_are_neighbours_in_memory() -> None:
    table = build(pd.DataFrame(np.ones((64, 3)), columns=list("abc")), pickle=False)
    first, second, third = (column.chunk(0).buffers()[1].address for column in table.columns)
    assert second - first == third - second == 64 * 8


@pytest.mark.req("O-2")
@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", [name for name in CATALOGUE if name.startswith(("index", "whole"))])
def test_pandas_own_metadata_tells_other_readers_of_the_index(shared_store: fs.Store, name: str) -> None:
    expected = CATALOGUE[name]()
    expected = expected.to_frame() if isinstance(expected, pd.Series) else expected
    got = shared_store.get(name).to_arrow().to_pandas()
    assert got.shape == expected.shape
    if name != "whole: series of a tuple":
        assert list(map(str, got.columns)) == list(map(str, expected.columns))
    assert got.index.nlevels == expected.index.nlevels
    if expected.index.nlevels == 1 and name not in OWN_FORM:
        here, there = (index[~index.isna()] for index in (got.index, expected.index))
        assert list(map(str, here)) == list(map(str, there))


def test_field_names_are_readable_and_each_there_once() -> None:
    frame = pd.DataFrame([[1, 2, 3, 4]], columns=pd.Index(["price", 0, "price", ("a", 1)], dtype=object))
    frame.index = pd.Index([5], name="price")
    assert build(frame, pickle=False).column_names == [
        "price",
        "0",
        "price.1",
        "('a', '1')",
        "__index_level_0__",
    ]
