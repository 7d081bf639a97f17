"""Stored pandas frames with columns added, dropped, renamed, reordered, rows joined: what pandas would
make of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.connectors._pandas.conversion import convert_table, wanted_of
from flightstore.connectors.pandas import adapt, build, value_columns
from flightstore.testing.types.pandas import CATALOGUE, NEEDS_PICKLE, assert_same_frame

pytestmark = pytest.mark.req("TYP-2")


def resolve(table: pa.Table) -> Any:
    """The frame of a table, with its metadata put right."""
    schema = adapt(table.schema, table.num_rows)
    assert schema.equals(table.schema)
    return convert_table(table.replace_schema_metadata(schema.metadata), wanted_of(None, True), {})


def table_of(value: Any) -> pa.Table:
    return build(value, pickle=True)


def renamed(table: pa.Table, names: dict[str, str]) -> pa.Table:
    """Arrow's own `rename_columns` forgets the schema's metadata."""
    return table.rename_columns(names).replace_schema_metadata(table.schema.metadata)


def frame() -> pd.DataFrame:
    made = pd.DataFrame({"x": [1.5, np.nan, 2.5], "c": pd.Categorical(["a", None, "b"], ["z", "a", "b"])})
    made.index = pd.date_range("2024-01-01", periods=3, freq="D", name="day")
    made.attrs = {"source": "test"}
    return made


def both(table: pa.Table) -> Any:
    """The frame of a table whether or not somebody adapted its metadata: the same."""
    adapted = resolve(table)
    assert_same_frame(adapted, convert_table(table, wanted_of(None, True), {}))
    return adapted


@pytest.mark.parametrize(
    "name", [name for name in CATALOGUE if name.startswith(("index", "columns", "whole"))]
)
def test_adapting_what_did_not_change_changes_nothing(name: str) -> None:
    table = table_of(CATALOGUE[name]())
    assert adapt(table.schema, table.num_rows).equals(table.schema, check_metadata=True)


def test_a_schema_of_somebody_else_is_left_alone() -> None:
    schema = pa.schema({"a": pa.int64()}, metadata={"mine": "yes"})
    assert adapt(schema, 3).equals(schema, check_metadata=True)


def test_a_column_added() -> None:
    table = table_of(frame()).append_column("new", pa.array([1, 2, 3]))
    assert_same_frame(frame().assign(new=[1, 2, 3]), both(table))


def test_a_column_added_in_front() -> None:
    table = table_of(frame()).add_column(0, "new", pa.array(["a", None, "b"]))
    expected = frame()
    expected.insert(0, "new", ["a", None, "b"])
    assert_same_frame(expected, both(table))


def test_columns_dropped_and_reordered() -> None:
    expected = frame().assign(y=1)
    table = table_of(expected)
    assert_same_frame(expected[["y", "x"]], both(table.select(["y", "x", "day"])))
    assert_same_frame(expected[[]], both(table.select(["day"])))


def test_a_column_renamed() -> None:
    table = renamed(table_of(frame()), {"x": "renamed"})
    assert_same_frame(frame().rename(columns={"x": "renamed"}), both(table))


def test_the_index_dropped_and_renamed() -> None:
    table = table_of(frame())
    assert_same_frame(frame().reset_index(drop=True), both(table.drop_columns(["day"])))
    assert_same_frame(frame().rename_axis(index="when"), both(renamed(table, {"day": "when"})))


def test_rows_joined() -> None:
    table = table_of(frame())
    expected = pd.concat([frame(), frame()])
    assert expected.index.freq is None
    assert_same_frame(expected, both(pa.concat_tables([table, table])))


def test_rows_of_a_range_index_joined_and_cut() -> None:
    expected = pd.DataFrame({"x": range(4)}, index=pd.RangeIndex(10, 18, 2, name="r"))
    table = table_of(expected)
    assert both(pa.concat_tables([table, table])).index.equals(pd.RangeIndex(8))
    cut = both(table.slice(1, 2))
    assert_same_frame(cut.index, pd.RangeIndex(2, name="r"))
    assert cut["x"].tolist() == [1, 2]


def test_a_frequency_that_is_not_true_any_more_is_dropped() -> None:
    table = table_of(frame())
    assert resolve(table.take([2, 1, 0])).index.freq is None
    assert resolve(table.slice(1)).index.freq is None
    assert resolve(table).index.freq == pd.offsets.Day()


def test_categories_that_differ_are_joined() -> None:
    one = pd.DataFrame({"c": pd.Categorical(["a", "b"])})
    other = pd.DataFrame({"c": pd.Categorical(["c", "a", None])})
    got = both(pa.concat_tables([table_of(one), table_of(other)]))
    assert got["c"].tolist()[:4] == ["a", "b", "c", "a"]
    assert isinstance(got["c"].dtype, pd.CategoricalDtype)
    assert got["c"].cat.categories.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    "categories",
    [
        pd.interval_range(0, 3),
        pd.CategoricalIndex(["a", "b", "c"]),
        pd.RangeIndex(3),
        pd.period_range("2024", periods=3),
    ],
    ids=lambda index: type(index).__name__,
)
def test_unusual_categories_that_differ_keep_their_values(categories: pd.Index) -> None:
    index = pd.MultiIndex.from_arrays([categories, [1, 2, 3]])
    one = pd.DataFrame({"x": range(3)}, index=index)
    other = pd.DataFrame({"x": range(2)}, index=index.take([2, 1]).remove_unused_levels())
    got = both(pa.concat_tables([table_of(one), table_of(other)]))
    expected = [*index.take([0, 1, 2, 2, 1])]
    if not isinstance(categories, pd.IntervalIndex):
        assert [tuple(map(str, key)) for key in got.index] == [tuple(map(str, key)) for key in expected]
    assert got["x"].tolist() == [0, 1, 2, 0, 1]


def test_a_level_of_the_index_dropped() -> None:
    index = pd.MultiIndex.from_product([["a", "b"], [1, 2], [True]], names=["x", "y", None])
    expected = pd.DataFrame({"v": range(4)}, index=index)
    table = table_of(expected)
    assert_same_frame(expected.droplevel(1), both(table.drop_columns(["y"])))
    assert_same_frame(expected.droplevel([1, 2]), both(table.drop_columns(["y", "__index_level_2__"])))
    assert_same_frame(expected.droplevel([0, 2]), both(table.select(["v", "y"])))


def test_labels_of_columns() -> None:
    columns = pd.date_range("2024-01-01", periods=3, freq="D")
    whole = pd.DataFrame(np.ones((2, 3)), columns=columns)
    table = table_of(whole)
    assert_same_frame(whole.iloc[:, [0, 2]].columns, both(table.select([0, 2])).columns)
    assert_same_frame(columns.insert(3, "new"), both(table.append_column("new", pa.array([1, 2]))).columns)
    names = table.column_names
    assert_same_frame(columns.delete(1).insert(1, "b"), both(renamed(table, {names[1]: "b"})).columns)


def test_numbers_of_columns() -> None:
    table = table_of(pd.DataFrame(np.ones((2, 4))))
    assert_same_frame(pd.RangeIndex(4), both(table).columns)
    assert_same_frame(pd.Index([1, 3]), both(table.select(["1", "3"])).columns)
    assert_same_frame(
        pd.Index([0, 1, 2, 3, "new"]), both(table.append_column("new", pa.array([1, 2]))).columns
    )


def test_levels_of_columns() -> None:
    columns = pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["x", "y"])
    table = table_of(pd.DataFrame(np.ones((2, 4)), columns=columns))
    assert_same_frame(columns.take([3, 0]), both(table.select([3, 0])).columns)
    added = table.append_column("new", pa.array([1, 2]))
    assert both(added).columns[-1] == ("new", "")
    plain = added.replace_schema_metadata(adapt(added.schema, 2).metadata).to_pandas()
    assert plain.columns.tolist() == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"), ("new", "")]


def test_a_series_becomes_a_frame() -> None:
    table = table_of(pd.Series([1, 2], name="s", index=["a", "b"]))
    expected = pd.DataFrame({"s": [1, 2], "new": [3, 4]}, index=["a", "b"])
    assert_same_frame(expected, both(table.append_column("new", pa.array([3, 4]))))
    assert_same_frame(pd.Series([1, 2], name="t", index=["a", "b"]), both(renamed(table, {"s": "t"})))
    unnamed = table_of(pd.Series([1, 2])).append_column("new", pa.array([3, 4]))
    assert both(unnamed).columns.tolist() == [0, "new"]


def test_an_index_becomes_the_index_of_a_frame() -> None:
    index = pd.Index(["a", "b"], name="k")
    table = table_of(index).append_column("new", pa.array([3, 4]))
    assert_same_frame(pd.DataFrame({"new": [3, 4]}, index=index), both(table))


def test_facts_of_a_column_that_was_cast_are_not_believed() -> None:
    values = {
        "c": pd.Categorical(["1", "2"]),
        "n": pd.array([1, 2], dtype="Int64"),
        "z": pd.date_range("2024", periods=2, tz="UTC"),
        "p": pd.period_range("2024", periods=2, freq="D"),
        "o": np.array([b"a", b"b"], dtype=object),
        "j": np.array([1j, 2]),
        "s": pd.array(["1", "2"], dtype="string"),
    }
    table = table_of(pd.DataFrame(values))
    numbers = pa.array([1, 2], pa.int16())
    for place, field in enumerate(table.schema):
        table = table.set_column(place, field.with_type(pa.int16()), numbers)
    got = both(table)
    assert got.map(int).to_numpy().tolist() == [[1] * 7, [2] * 7]


def test_values_and_index_are_told_apart() -> None:
    table = table_of(frame())
    assert [table.column_names[place] for place in value_columns(table.schema)] == ["x", "c"]
    levels = pd.MultiIndex.from_product([["a"], [1, 2]])
    assert value_columns(table_of(pd.Series([1, 2], index=levels)).schema) == [0]
    assert value_columns(table_of(levels).schema) == [0, 1]
    assert value_columns(pa.schema({"a": pa.int64(), "b": pa.int64()})) == [0, 1]


@pytest.mark.parametrize(
    "name", [n for n in CATALOGUE if n.startswith(("column:", "index")) and n not in NEEDS_PICKLE]
)
def test_any_column_beside_another(shared_store: fs.Store, name: str) -> None:
    """The store's own composition: a column added to any frame; any column added to a frame."""
    store = shared_store
    expected = CATALOGUE[name]()
    store.put(expected, "frame")
    store.with_columns("frame", {"new": np.arange(len(expected))}, name="more")
    assert_same_frame(expected.assign(new=np.arange(len(expected))), store.get("more").value())
    store.delete("frame")
    assert_same_frame(expected.assign(new=np.arange(len(expected))), store.get("more").value())
    plain = pd.DataFrame({"a": np.arange(len(expected))})
    store.put(plain, "plain")
    other = expected.reset_index(drop=True).rename(columns={"a": "x"})
    store.with_columns("plain", other, name="joined")
    assert_same_frame(plain.assign(x=other["x"]), store.get("joined").value())


def test_the_store_composes_frames(store: fs.Store) -> None:
    store.put(frame(), "frame")
    assert_same_frame(frame()[["c"]], store.select("frame", ["c"]).value())
    assert_same_frame(frame().drop(columns="x"), store.drop("frame", ["x"]).value())
    assert_same_frame(frame().rename(columns={"x": "y"}), store.rename("frame", {"x": "y"}).value())
    assert_same_frame(pd.concat([frame(), frame()]), store.concat(["frame", "frame"]).value())
    series = pd.Series(pd.Categorical(["u", None, "v"], ["w", "v", "u"]), index=frame().index, name=7)
    assert_same_frame(frame().assign(s=series), store.with_columns("frame", {"s": series}).value())
    added = store.with_columns("frame", {"0": pd.Series([1, 2, 3])}).value()
    assert added.columns.tolist() == ["x", "c", "0"]


def test_added_categories_are_kept_however_few_are_used(store: fs.Store) -> None:
    store.put(pd.DataFrame({"a": [1, 2]}), "frame")
    column = pd.Series(pd.Categorical(["t5", None], [f"t{i}" for i in range(5000)], ordered=True))
    got = store.with_columns("frame", {"c": column}).value()
    assert_same_frame(pd.DataFrame({"a": [1, 2], "c": column}), got)


def test_pickles_are_joined_with_pickles_only(store: fs.Store) -> None:
    """Bytes that somebody put are never unpickled."""
    store.put(pd.DataFrame({"o": pd.Series([1, "x"], dtype=object)}), "pickled")
    store.put(pd.DataFrame({"o": pd.Series([b"1", b"x"], dtype=object)}), "bytes")
    with pytest.raises(fs.InvalidArgument, match="'o' is struct<pickle: large_binary>"):
        store.concat(["pickled", "bytes"])
    assert store.concat(["pickled", "pickled"]).value()["o"].tolist() == [1, "x", 1, "x"]


def test_adapting_needs_no_pandas() -> None:
    table = table_of(frame()).append_column("new", pa.array([1, 2, 3]))
    code = """
import sys
sys.modules["pandas"] = None
import pyarrow as pa
from flightstore.connectors.pandas import adapt, value_columns
schema = adapt(pa.ipc.read_schema(pa.py_buffer(sys.stdin.buffer.read())), 3)
print(schema.metadata[b"pandas"].decode(), value_columns(schema), sep="\\n")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=table.schema.serialize().to_pybytes(),
        capture_output=True,
        check=True,
    )
    standard, values = done.stdout.decode().splitlines()
    assert [column["name"] for column in json.loads(standard)["columns"]] == ["x", "c", "day", "new"]
    assert values == "[0, 1, 3]"


@pytest.mark.req("O-2")
def test_a_later_format_is_refused(store: fs.Store) -> None:
    table = table_of(frame())
    metadata = {**table.schema.metadata}
    metadata[b"flightstore.pandas"] = metadata[b"flightstore.pandas"].replace(b'"version":1', b'"version":2')
    store.put(table.replace_schema_metadata(metadata), "later")
    with pytest.raises(fs.NotConvertible, match="later flightstore") as caught:
        store.get("later").to_pandas()
    assert "to_arrow" in caught.value.hint
