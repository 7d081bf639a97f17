"""Dask collections over stored objects, and stored objects of Dask collections, by every scheduler."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.connectors.dask import from_dask, to_dask
from flightstore.testing.children import start_spawned
from flightstore.testing.events import wait_until
from flightstore.testing.types.pandas import CATALOGUE, assert_same_frame

from .arrow_cases import leaves, nestings

ROWS = 1000


def sample() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "n": np.arange(ROWS),
            "x": np.arange(ROWS) * 0.5,
            "s": [f"text {i}" for i in range(ROWS)],
            "c": pd.Categorical(["b", "a"] * (ROWS // 2), categories=["a", "b", "c"], ordered=True),
            "t": pd.date_range("2030-01-01", periods=ROWS, freq="h", tz="Europe/Paris"),
            "o": [{"k": i} if i % 3 else None for i in range(ROWS)],
            "i": pd.array([None if i % 5 == 0 else i for i in range(ROWS)], dtype="Int32"),
        }
    )


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Processes that know nothing of this one, for all tests: Dask would start new ones for each result."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture(params=["sync", "threads", "processes"])
def scheduler(request: pytest.FixtureRequest) -> Iterator[str]:
    chosen: dict[str, Any] = {"scheduler": request.param}
    if request.param == "processes":
        chosen["pool"] = request.getfixturevalue("processes")
    with dask.config.set(chosen):
        yield request.param


@pytest.fixture(autouse=True)
def exact_strings() -> Iterator[None]:
    """Frames that tests make with Dask keep their dtypes."""
    with dask.config.set({"dataframe.convert-string": False}):
        yield


def assert_same(expected: Any, actual: Any) -> None:
    check = (
        pd.testing.assert_frame_equal
        if isinstance(expected, pd.DataFrame)
        else pd.testing.assert_series_equal
    )
    check(actual, expected, check_freq=False)


# --- from the store ---


@pytest.mark.req("O-1", "TYP-2")
def test_a_frame_comes_in_partitions(store: fs.Store, scheduler: str) -> None:
    obj = store.get(store.put(sample()))
    frame = to_dask(obj, npartitions=4)
    assert frame.npartitions == 4
    assert frame.divisions == (0, 250, 500, 750, 999)
    assert_same(sample(), frame.compute())
    assert frame["n"].sum().compute() == sum(range(ROWS))
    assert frame.loc[260:262, "s"].compute().tolist() == ["text 260", "text 261", "text 262"]


FRAMES = {
    "levels": lambda: sample().set_index("s"),
    "times": lambda: sample().set_index("t"),
    "series": lambda: sample()["x"],
    "range": lambda: sample().set_index(pd.RangeIndex(10, 10 + 3 * ROWS, 3, name="r")),
    "backwards": lambda: sample().set_index(pd.RangeIndex(ROWS, 0, -1)),
    "empty": lambda: sample().iloc[:0],
    "one row": lambda: sample().iloc[:1],
    "rows apart": lambda: sample().iloc[::7],
}


@pytest.mark.req("O-1", "TYP-2")
@pytest.mark.parametrize("name", FRAMES)
def test_every_index(store: fs.Store, name: str) -> None:
    value = FRAMES[name]()
    for rows in (1 + len(value) // 3, 5000):
        lazy = to_dask(store.get(store.put(value)), rows_per_partition=rows)
        assert_same(value, lazy.compute(scheduler="sync"))
        assert all(
            lazy.partitions[i].compute(scheduler="sync").size for i in range(lazy.npartitions)
        ) == bool(len(value))
        known = isinstance(value.index, pd.RangeIndex) and name != "backwards" and len(value) > 0
        assert lazy.known_divisions == known


@pytest.mark.req("TYP-2")
def test_dtypes_are_those_of_the_whole(store: fs.Store) -> None:
    table = pa.table(
        {
            "n": pa.array([1, 2, 3, None]),
            "b": pa.array([True, None, False, True]),
            "s": ["a", None, "c", "d"],
            "t": pa.array([1, 2, None, 4], pa.timestamp("s")),
            "l": [[1], [2, 3], None, []],
            "whole": [1, 2, 3, 4],
        }
    )
    obj: Any = store.get(store.put(table))
    lazy, eager = to_dask(obj, rows_per_partition=1), obj.to_pandas()
    assert dict(lazy.dtypes) == dict(eager.dtypes)
    for number in range(4):
        assert dict(lazy.partitions[number].compute(scheduler="sync").dtypes) == dict(eager.dtypes)
    assert_same(eager, lazy.compute(scheduler="sync"))


@pytest.mark.req("TYP-1", "TYP-2")
def test_every_arrow_type_is_as_to_pandas_has_it_or_refused(store: fs.Store) -> None:
    """One row in each partition, so that nulls are in others than values."""
    refused = 0
    for name, array in leaves().items():
        for around, value in {"": array, **nestings(array)}.items():
            try:
                store.put(pa.table({"c": value, "k": [1, 2, 3]}), "t", pickle=False)
                eager = store.get("t").to_pandas()  # type: ignore[attr-defined]
            except (fs.NotStorable, NotImplementedError):
                continue
            except fs.NotConvertible:
                with pytest.raises(fs.NotConvertible, match="'c'"):
                    to_dask(store.get("t"))
                refused += 1
                continue
            lazy = to_dask(store.get("t"), rows_per_partition=1)
            found = lazy.compute(scheduler="sync")
            assert dict(found.dtypes) == dict(lazy.dtypes) == dict(eager.dtypes), (name, around)
            assert found["k"].tolist() == [1, 2, 3]
            if not around:
                assert repr(found["c"].tolist()) == repr(eager["c"].tolist()), name
    assert refused > 20


@pytest.mark.req("TYP-2")
def test_a_frame_that_arrow_converted_keeps_its_range(store: fs.Store) -> None:
    frame = pd.DataFrame({"a": range(6)}, index=pd.RangeIndex(2, 14, 2))
    lazy = to_dask(store.get(store.put(pa.Table.from_pandas(frame))), npartitions=2)
    assert lazy.divisions == (2, 8, 12)
    assert_same(frame, lazy.compute(scheduler="sync"))


@pytest.mark.req("O-1", "O-3")
def test_tasks_carry_handles_and_share_memory(store: fs.Store) -> None:
    store.put(pd.DataFrame({"x": np.arange(200_000.0)}), "big")
    obj: Any = store.get("big")
    lazy = to_dask(obj, npartitions=2)
    assert len(pickle.dumps(lazy)) < 20_000
    part = lazy.partitions[1].compute(scheduler="sync")
    assert np.shares_memory(part["x"].to_numpy(), obj.to_arrow()["x"].chunk(0).to_numpy())


@pytest.mark.req("INV-2")
def test_the_object_stays_as_long_as_the_collection(store: fs.Store) -> None:
    lazy = to_dask(store.get(store.put(sample(), "frame")), npartitions=2)
    store.put(1, "frame")
    gc.collect()
    assert store.recover().freed_objects == 0
    assert lazy["n"].sum().compute(scheduler="sync") == sum(range(ROWS))
    with pytest.raises(fs.ObjectNotFound):  # elsewhere it is got again, and deleted is deleted
        lazy["n"].sum().compute(scheduler="processes", num_workers=1)


@pytest.mark.req("TYP-2")
def test_what_is_refused(store: fs.Store) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [pa.array([1, 2])])
    refused = {
        "'u' of type sparse_union": pa.table({"u": union}),
        "2\\*\\*53": pa.table({"n": pa.array([2**53 + 1, None])}),
        "several columns 'a'": pd.DataFrame([[1, 2]], columns=["a", "a"]),
        "no index without a frame": pd.Index([1, 2]),
        "neither table nor tensor": b"abc",
    }
    for said, value in refused.items():
        obj = store.get(store.put(value))
        with pytest.raises(fs.NotConvertible, match=said):
            to_dask(obj)
    obj = store.get(store.put(sample()))
    for arguments in ({"npartitions": 1, "rows_per_partition": 1}, {"npartitions": 0}, {"chunks": 5}):
        with pytest.raises(fs.InvalidArgument):
            to_dask(obj, **arguments)
    with pytest.raises(fs.InvalidArgument, match="chunks"):
        to_dask(store.get(store.put(np.arange(3))), npartitions=2)


@pytest.mark.req("TYP-2")
@pytest.mark.parametrize("name", [name for name in CATALOGUE if not name.startswith(("lone", "series"))])
def test_every_pandas_type_there_and_back(shared_store: fs.Store, name: str) -> None:
    """In one partition: joining several, pandas forgets frequencies and the like, Dask or not."""
    value = CATALOGUE[name]()
    obj = shared_store.get(shared_store.put(value, "there"))
    if isinstance(value, pd.DataFrame) and not value.columns.is_unique:
        with pytest.raises(fs.NotConvertible, match="each label once"):
            to_dask(obj)
        return
    with dask.config.set(scheduler="sync"):
        lazy = to_dask(obj, npartitions=1)
        assert_same_frame(value, lazy.compute())
        assert_same_frame(value, from_dask(lazy, shared_store, "back").value())  # type: ignore[attr-defined]


# --- into the store ---


@pytest.mark.req("O-1", "TYP-2")
def test_a_frame_is_put_by_its_tasks(store: fs.Store, scheduler: str) -> None:
    lazy = dd.from_pandas(sample().drop(columns="o"), npartitions=3)
    for collection in (lazy, lazy[lazy.n > 400], lazy["x"], lazy.set_index("n")):
        made: Any = from_dask(collection, store, "made", metadata={"by": "dask"})
        assert made.kind == "table"
        assert made.metadata == {"by": "dask"}
        assert_same(collection.compute(), made.value())
    assert made.name == "made"
    assert len(made.members) == 3
    assert [info.name for info in store.list()] == ["made"]
    del made
    gc.collect()
    store.recover()
    assert store.batches() == []


@pytest.mark.req("TYP-2")
def test_ranges_that_do_not_follow_each_other_are_kept_as_they_are(store: fs.Store) -> None:
    parts = [pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [3, 4, 5]})]
    lazy = dd.from_map(lambda i: parts[i], [0, 1], meta=parts[0][:0])
    made: Any = from_dask(lazy, store)
    assert made.value().index.tolist() == [0, 1, 0, 1, 2]
    assert made.value()["a"].tolist() == [1, 2, 3, 4, 5]
    shifted = dd.from_pandas(pd.DataFrame({"a": range(6)}, index=pd.RangeIndex(4, 10)), npartitions=2)
    assert from_dask(shifted, store).value().index.tolist() == [4, 5, 6, 7, 8, 9]  # type: ignore[attr-defined]
    nothing = lazy[lazy.a > 100]
    assert from_dask(nothing, store).value().dtypes.to_dict() == {"a": np.dtype("int64")}  # type: ignore[attr-defined]


@pytest.mark.req("O-1", "TYP-4")
@pytest.mark.parametrize("chunks", [(30, 25), (100, 7), (1000, 1000)])
def test_an_array_becomes_one_tensor(store: fs.Store, scheduler: str, chunks: tuple[int, int]) -> None:
    lazy = da.from_array(np.arange(6000.0).reshape(100, 60), chunks=chunks)
    made: Any = from_dask(lazy * 2, store, "made")
    assert made.kind == "tensor"
    assert np.array_equal(made.to_numpy(), np.arange(6000.0).reshape(100, 60) * 2)
    back = to_dask(made, chunks=(40, 60))
    assert (back.chunks, back.dtype) == (((40, 40, 20), (60,)), np.float64)
    assert np.array_equal((back - 1).compute(), made.to_numpy() - 1)
    assert [info.name for info in store.list()] == ["made"]


@pytest.mark.req("TYP-4")
def test_arrays_of_odd_shapes(store: fs.Store) -> None:
    with dask.config.set(scheduler="sync"):
        for value in (np.zeros((0, 3)), np.float32(7), np.arange(4).astype("M8[s]"), np.array(["a", "bc"])):
            made: Any = from_dask(da.from_array(np.asarray(value), chunks=2), store)
            np.testing.assert_array_equal(made.to_numpy(), value)
            assert made.dtype == value.dtype
        unknown = da.from_array(np.arange(9), chunks=3)
        with pytest.raises(fs.NotStorable, match="unknown lengths"):
            from_dask(unknown[unknown > 2], store)


def fail(part: pd.DataFrame) -> pd.DataFrame:
    if part["n"].iloc[-1] == ROWS - 1:
        raise ArithmeticError("the last partition")
    return part


@pytest.mark.req("FAIL-2", "BAT-1")
def test_a_collection_that_fails_leaves_nothing(store: fs.Store, scheduler: str) -> None:
    store.put(7, "made")
    before = store.stats()
    lazy = dd.from_pandas(sample().drop(columns="o"), npartitions=3)
    with pytest.raises(ArithmeticError, match="the last partition"):
        from_dask(lazy.map_partitions(fail, meta=lazy._meta), store, "made")
    gc.collect()
    store.recover()
    after = store.stats()
    assert store.get("made").value() == 7  # type: ignore[attr-defined]
    assert (after.objects, after.used_bytes) == (before.objects, before.used_bytes)
    assert store.batches() == []


def stop_in_the_middle(path: str) -> None:
    """Put two partitions of three, and wait to be killed."""

    def stop(part: pd.DataFrame) -> pd.DataFrame:
        if part["n"].iloc[-1] == ROWS - 1:
            threading.Event().wait()
        return part

    with fs.connect(path) as store, dask.config.set(scheduler="threads", num_workers=3):
        lazy = dd.from_pandas(sample()[["n"]], npartitions=3)
        from_dask(lazy.map_partitions(stop, meta=lazy._meta), store, "made")


@pytest.mark.req("FAIL-2", "FAIL-3")
def test_a_process_that_is_killed_in_the_middle_leaves_nothing(store: fs.Store) -> None:
    store.put(7, "made")
    before = store.stats()
    with start_spawned(stop_in_the_middle, store.path) as child:
        wait_until(lambda: store.stats().objects == before.objects + 2, what="two parts", timeout_s=120)
        child.kill()
    store.recover()
    after = store.stats()
    assert store.get("made").value() == 7  # type: ignore[attr-defined]
    assert (after.objects, after.used_bytes) == (before.objects, before.used_bytes)


@pytest.mark.req("BAT-1")
def test_what_is_made_goes_with_the_callers_batch(store: fs.Store, scheduler: str) -> None:
    lazy = dd.from_pandas(sample()[["n"]], npartitions=2)
    with store.batch():
        made: Any = from_dask(lazy, store, "made")
        assert store.contains("made")
    assert not store.contains("made")
    assert made.value()["n"].sum() == sum(range(ROWS)), "who holds it reads on"


@pytest.mark.req("FAIL-5")
def test_a_store_that_is_full_says_so_and_keeps_nothing(store: fs.Store) -> None:
    lazy = da.ones((8, 1 << 20), chunks=(1, 1 << 20))
    with dask.config.set(scheduler="threads"), pytest.raises(fs.StoreFull):
        from_dask(lazy, store, "made")
    gc.collect()
    store.recover()
    assert store.list() == []
    assert store.batches() == []


@pytest.mark.req("TYP-4")
def test_a_collection_is_no_data(store: fs.Store) -> None:
    lazy = dd.from_pandas(sample()[["n"]], npartitions=2)
    for collection in (lazy, lazy["n"], lazy.index, da.ones(3)):
        with pytest.raises(fs.NotStorable, match="plan") as refused:
            store.put(collection)
        assert "from_dask" in refused.value.hint
    with pytest.raises(fs.NotStorable, match="not a DataFrame"):
        from_dask(sample(), store)


# --- distributed ---


def on_a_cluster(path: str) -> list[Any]:
    """What the tests do, in a cluster of two processes on loopback."""
    from distributed import Client, LocalCluster

    cluster = LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, host="127.0.0.1", dashboard_address=None
    )
    with cluster, Client(cluster), fs.connect(path) as store:
        lazy = to_dask(store.get("frame"), npartitions=4)
        assert_same(sample(), lazy.compute())
        pids = lazy.map_partitions(lambda part: pd.Series([os.getpid()]), meta=pd.Series([0])).compute()
        assert os.getpid() not in set(pids)
        made: Any = from_dask(lazy.drop(columns="o"), store, "made")
        assert_same(sample().drop(columns="o"), made.value())
        tensor: Any = from_dask(da.ones((100, 60), chunks=(30, 25)) + 1, store, "tensor")
        assert tensor.to_numpy().sum() == 12_000
        bad = lazy.map_partitions(fail, meta=lazy._meta)
        with pytest.raises(ArithmeticError):
            from_dask(bad, store, "bad")
        return [info.name for info in store.list()]


@pytest.mark.req("O-1")
@pytest.mark.slow
def test_a_distributed_cluster(store: fs.Store) -> None:
    store.put(sample(), "frame")
    with start_spawned(on_a_cluster, store.path) as process:  # it starts interpreters, too
        assert process.result(deadline_s=240) == ["frame", "made", "tensor"]
    gc.collect()
    store.recover()
    assert store.batches() == []
