"""polars frames and series come back exactly: every dtype, in this process and in one that shares nothing."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flightstore as fs
from flightstore.testing.children import spawned
from flightstore.testing.types.polars import CATALOGUE, assert_same_frame, frames, series

NEEDS_PICKLE = {name for name in CATALOGUE if name.startswith("Object")} | {
    name for name in CATALOGUE if name.startswith("frame of every flat dtype")
}


def differences(path: str) -> dict[str, str]:
    """What differs from the catalogue when read here; categories are numbered in another order here."""
    kept = [pl.Series(["zzz", "fig", "b"], dtype=dtype) for dtype in (pl.Categorical(), fruit())]
    found = {}
    with fs.connect(path) as store:
        for name, make in CATALOGUE.items():
            found[name] = ""
            try:
                assert_same_frame(make(), store.get(name).value())  # type: ignore[attr-defined]
            except Exception as error:
                found[name] = f"{type(error).__name__}: {error}"
    assert len(kept) == 2
    return found


def fruit() -> pl.Categorical:
    dtype = CATALOGUE["Categorical, named"]().dtype
    assert isinstance(dtype, pl.Categorical)
    return dtype


@pytest.fixture(scope="module")
def catalogue() -> Iterator[fs.Store]:
    parent = tempfile.mkdtemp(dir="/dev/shm", prefix="flightstore-test-")
    with fs.connect(f"{parent}/store", capacity="64MiB") as store:
        store.put_many({name: make() for name, make in CATALOGUE.items()})
        yield store
        store.destroy()
    shutil.rmtree(parent)


@pytest.fixture(scope="module")
def elsewhere(catalogue: fs.Store) -> dict[str, str]:
    return spawned(differences, catalogue.path)


@pytest.mark.req("TYP-3")
@pytest.mark.parametrize("name", CATALOGUE)
def test_every_dtype(catalogue: fs.Store, name: str) -> None:
    obj = catalogue.get(name)
    assert obj.kind == "table"
    assert_same_frame(CATALOGUE[name](), obj.value())


@pytest.mark.req("TYP-3", "O-1")
@pytest.mark.parametrize("name", CATALOGUE)
def test_another_process_reads_the_same(elsewhere: dict[str, str], name: str) -> None:
    assert elsewhere[name] == ""


@pytest.mark.req("TYP-3")
def test_only_python_objects_need_pickle(store: fs.Store) -> None:
    for name, make in CATALOGUE.items():
        value = make()
        if name in NEEDS_PICKLE:
            with pytest.raises(fs.NotStorable, match=r"column 'c'|column 'Object'") as refused:
                store.put(value, pickle=False)
            assert refused.value.hint
        else:
            assert_same_frame(value, store.get(store.put(value, pickle=False)).value())


@pytest.mark.req("TYP-3")
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=st.one_of(frames(), series()))
def test_generated_frames_and_series(store: fs.Store, value: Any) -> None:
    store.put(value, "x", pickle=False)
    assert_same_frame(value, store.get("x").value())


@pytest.mark.req("TYP-3")
def test_objects_that_pickle_refuses_name_their_column(store: fs.Store) -> None:
    frame = pl.DataFrame({"n": [1], "o": pl.Series([lambda: None], dtype=pl.Object)})
    with pytest.raises(fs.NotStorable, match="'o'"):
        store.put(frame)
    assert store.list() == []


@pytest.mark.req("TYP-3")
@pytest.mark.parametrize("pickle", [True, False])
def test_a_plan_is_not_stored_for_its_result(store: fs.Store, pickle: bool) -> None:
    with pytest.raises(fs.NotStorable, match="LazyFrame") as refused:
        store.put(pl.DataFrame({"a": [1]}).lazy(), pickle=pickle)
    assert "collect()" in refused.value.hint


@pytest.mark.req("TYP-3")
def test_what_polars_cannot_read_back_from_arrow_is_pickled(store: fs.Store) -> None:
    inside = pl.Series("c", [["a"]], dtype=pl.List(pl.Categorical())).list.first()
    odd = {
        "NUL": pl.DataFrame({"s": [{"a\0b": 1}]}),
        "extension": inside.ext.to(pl.Extension("tests.x", pl.Categorical())).to_frame(),
    }
    for value in odd.values():
        obj = store.get(store.put(value))
        assert obj.kind == "object"
        assert_same_frame(value, obj.value())
        with pytest.raises(fs.NotStorable, match="column"):
            store.put(value, pickle=False)
    nested = pl.Series("c", [[[]]], dtype=pl.List(pl.Array(pl.Int8, 0)))
    with pytest.raises(fs.NotStorable, match="width 0"):  # polars does not read its own pickle of it
        store.put(nested)


@pytest.mark.req("TYP-3")
def test_pickles_of_others_are_not_loaded(store: fs.Store) -> None:
    put = store.get(store.put(pl.Series("c", [{1}], dtype=pl.Object)))
    assert put.to_polars()[0] == {1}  # type: ignore[attr-defined]
    copied = store.get(store.put(put.to_arrow()))  # type: ignore[attr-defined]
    assert copied.to_polars().schema == {"c": pl.Binary}  # type: ignore[attr-defined]


@pytest.mark.req("TYP-3", "O-2")
def test_dtypes_stay_with_their_columns_through_composition(store: fs.Store) -> None:
    wanted = pl.DataFrame({name: CATALOGUE[name]()[:2] for name in CATALOGUE if "," not in name[:-1]
                           and isinstance(CATALOGUE[name](), pl.Series) and name not in NEEDS_PICKLE
                           and "name" not in name})  # fmt: skip
    first, second = wanted.select(wanted.columns[::2]), wanted.select(wanted.columns[1::2])
    store.put(first, "a")
    store.with_columns("a", second, name="b")
    assert_same_frame(first.hstack(second), store.get("b").value())
    store.with_columns("a", {"new": second.to_series()}, name="c")
    assert_same_frame(first.with_columns(second.to_series().alias("new")), store.get("c").value())
    some = wanted.columns[1::4]
    store.select("b", some, name="d")
    assert_same_frame(wanted.select(some), store.get("d").value())
    store.rename("d", {some[0]: "renamed"}, name="e")
    assert_same_frame(wanted.select(some).rename({some[0]: "renamed"}), store.get("e").value())
    store.concat(["b", "b"], name="f")
    assert_same_frame(pl.concat([first.hstack(second)] * 2), store.get("f").value())


@pytest.mark.req("TYP-3", "O-2")
def test_a_series_that_gets_another_column_is_a_frame(store: fs.Store) -> None:
    store.put(pl.Series("a", [1, 2]), "a")
    store.with_columns("a", {"b": pl.Series([3, 4])}, name="two")
    assert_same_frame(pl.DataFrame({"a": [1, 2], "b": [3, 4]}), store.get("two").value())
    store.rename("a", {"a": "z"}, name="renamed")
    assert_same_frame(pl.Series("z", [1, 2]), store.get("renamed").value())


@pytest.mark.req("TYP-3")
def test_others_read_what_polars_put(store: fs.Store) -> None:
    frame = pl.DataFrame({
        "n": [1, None], "s": ["a", "a text that is too long to lie in its view"], "l": [[1], []],
        "c": pl.Series(["x", "y"], dtype=pl.Categorical), "w": pl.Series([-1, 2**100], dtype=pl.Int128),
    })  # fmt: skip
    obj = store.get(store.put(frame))
    with pa.ipc.open_stream(obj._live.payload) as stock:  # type: ignore[attr-defined]
        table = stock.read_all()
    assert table.column("w").to_pylist() == [v.to_bytes(16, "little", signed=True) for v in (-1, 2**100)]
    assert table.drop(["w"]).to_pylist() == frame.drop("w").to_dicts()
    pd.testing.assert_frame_equal(obj.to_pandas()[["n", "s"]], pd.DataFrame(  # type: ignore[attr-defined]
        {"n": [1, None], "s": frame["s"].to_list()}))  # fmt: skip
    assert pl.DataFrame(obj).drop("w").equals(frame.drop("w"))
    assert obj.conversion_report("polars").zero_copy is False


@pytest.mark.req("TYP-3", "TYP-5")
def test_changing_what_was_put_changes_nothing(store: fs.Store) -> None:
    numbers = np.arange(100_000.0)
    frame = pl.DataFrame({"n": numbers})
    assert np.shares_memory(frame["n"].to_numpy(), numbers), "polars borrows the array"
    store.put(frame, "x")
    numbers[:] = -1
    assert frame["n"][5] == -1
    assert store.get("x").value()["n"].to_list() == list(range(100_000))


@pytest.mark.req("TYP-3")
def test_a_subclass_keeps_its_type(store: fs.Store) -> None:
    value = Subclass({"a": [1]})
    got = store.get(store.put(value)).value()
    assert type(got) is Subclass
    assert got.equals(value)


class Subclass(pl.DataFrame):
    """A frame of somebody's own."""


@pytest.mark.req("TYP-3")
def test_a_stored_array_is_no_frame(store: fs.Store) -> None:
    obj = store.get(store.put(np.arange(3)))
    with pytest.raises(fs.NotConvertible, match="tensor"):
        obj.to("polars")
