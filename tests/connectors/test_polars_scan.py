"""Lazy frames over stored tables: the same as eager ones, and only what is needed is looked at."""

from __future__ import annotations

import gc
import os
import pickle
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.connectors.polars import scan
from flightstore.testing.children import spawned
from flightstore.testing.types.polars import CATALOGUE, assert_same_frame

ROWS = 10_000


@pytest.fixture
def orders(store: fs.Store) -> fs.Store:
    frame = pl.DataFrame(
        {"id": np.arange(ROWS), "price": np.arange(ROWS) * 0.5, "who": [f"customer {i}" for i in range(ROWS)]}
    )
    store.put(frame, "orders")
    return store


@pytest.mark.req("TYP-3", "O-1")
@pytest.mark.parametrize("name", [name for name in CATALOGUE if "without columns" not in name])
def test_every_dtype_as_to_polars_gives_it(shared_store: fs.Store, name: str) -> None:
    obj: Any = shared_store.get(shared_store.put(CATALOGUE[name]()))
    eager = obj.to_polars()
    eager = eager.to_frame() if isinstance(eager, pl.Series) else eager
    lazy = scan(obj)
    assert lazy.collect_schema() == eager.schema
    assert_same_frame(eager, lazy.collect())
    assert_same_frame(eager.head(1), lazy.head(1).collect())
    assert_same_frame(eager.select(pl.nth(0)), lazy.select(pl.nth(0)).collect())
    assert_same_frame(eager, lazy.filter(pl.lit(1) == 1).collect())
    assert_same_frame(eager.filter(pl.nth(0).is_null()), lazy.filter(pl.nth(0).is_null()).collect())


@pytest.mark.req("TYP-3")
def test_a_query_is_pushed_into_the_scan(orders: fs.Store) -> None:
    lazy = scan("orders", store=orders).filter(pl.col("id") > 9_990).select("who").head(2)
    plan = lazy.explain()
    assert "PYTHON[FLIGHTSTORE] SCAN" in plan
    assert "PROJECT 2/3 COLUMNS" in plan
    assert 'SELECTION: col("id") > 9990' in plan
    assert "'orders'" in plan
    assert lazy.collect()["who"].to_list() == ["customer 9991", "customer 9992"]


@pytest.mark.req("O-3")
def test_columns_that_a_query_does_not_need_are_never_decoded(store: fs.Store) -> None:
    """One of them holds pickles: to decode it would import a module that is gone."""
    store.put(
        pl.DataFrame({"n": [1, 2, 3], "o": pl.Series([Opened(), None, Opened()], dtype=pl.Object)}), "t"
    )
    Opened.count = 0
    assert scan("t", store=store).filter(pl.col("n") > 1).select("n").collect()["n"].to_list() == [2, 3]
    assert Opened.count == 0
    scan("t", store=store).head(1).collect()
    assert Opened.count == 1, "rows beyond the limit are not decoded either"


class Opened:
    """Counts how often one is unpickled."""

    count = 0

    def __setstate__(self, state: object) -> None:
        Opened.count += 1

    def __getstate__(self) -> object:
        return 1


@pytest.mark.req("O-3")
def test_memory_is_shared(orders: fs.Store) -> None:
    stored = orders.get("orders").to_arrow()["id"].chunk(0).to_numpy()  # type: ignore[attr-defined]
    for engine in ("in-memory", "streaming"):
        found = scan("orders", store=orders).select("id").collect(engine=engine)
        if engine == "in-memory":
            assert np.shares_memory(found["id"].to_numpy(), stored)
        assert np.array_equal(found["id"].to_numpy(), stored)


@pytest.mark.req("O-3")
@pytest.mark.parametrize("limit", [None, 1, 3, 2_000_000])
def test_rows_are_filtered_in_slices(shared_store: fs.Store, limit: int | None) -> None:
    numbers = np.arange(2_500_000)
    shared_store.put(pa.table({"n": numbers, "m": numbers % 7}), "sliced")
    lazy = scan("sliced", store=shared_store).filter(pl.col("m") == 3).select("n")
    lazy = lazy if limit is None else lazy.head(limit)
    assert np.array_equal(lazy.collect()["n"].to_numpy(), numbers[numbers % 7 == 3][:limit])
    assert lazy.select(pl.len()).collect().item() == len(numbers[numbers % 7 == 3][:limit])


@pytest.mark.req("TYP-3")
def test_what_polars_does_not_serialize_it_filters_itself(orders: fs.Store) -> None:
    lazy = scan("orders", store=orders)
    found = lazy.filter(pl.col("id").map_batches(lambda s: s < 3, return_dtype=pl.Boolean)).collect()
    assert found["id"].to_list() == [0, 1, 2]
    joined = lazy.join(lazy, on="id").filter(pl.col("price") < 1).sort("id").collect()
    assert joined["who_right"].to_list() == ["customer 0", "customer 1"]


@pytest.mark.req("INV-2", "API-4")
def test_the_object_stays_leased_as_long_as_the_lazy_frame(orders: fs.Store) -> None:
    lazy = scan("orders", store=orders)
    derived = lazy.filter(pl.col("id") == 5)
    del lazy
    orders.put(pl.DataFrame({"id": [1]}), "orders")
    gc.collect()
    assert orders.recover().freed_objects == 0
    assert derived.collect()["who"].to_list() == ["customer 5"]
    del derived
    gc.collect()
    assert orders.recover().freed_objects == 1


def computed(pickled: bytes) -> tuple[int, float]:
    return os.getpid(), pickle.loads(pickled).select(pl.col("price").sum()).collect().item()


@pytest.mark.req("O-1")
def test_a_lazy_frame_travels_as_a_handle(orders: fs.Store) -> None:
    pickled = pickle.dumps(scan("orders", store=orders).filter(pl.col("id") < 10))
    assert len(pickled) < 10_000
    pid, total = spawned(computed, pickled)
    assert pid != os.getpid()
    assert total == 22.5


@pytest.mark.req("TYP-3")
def test_what_polars_cannot_hold_is_refused_at_once(store: fs.Store) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [pa.array([1, 2])])
    obj = store.get(store.put(pa.table({"fine": [1, 2], "u": union})))
    with pytest.raises(fs.NotConvertible, match="'u' is of type sparse_union"):
        scan(obj)
    lazy = scan(obj, strict=False)
    eager = obj.to_polars(strict=False)  # type: ignore[attr-defined]
    assert lazy.collect_schema() == eager.schema
    assert_same_frame(eager, lazy.collect())
    assert_same_frame(eager.select("u"), lazy.filter(pl.col("fine") > 0).select("u").collect())
    with pytest.raises(fs.NotConvertible, match="no table"):
        scan(store.get(store.put(np.arange(3))))


@pytest.mark.req("API-14")
def test_what_is_no_object(store: fs.Store) -> None:
    with pytest.raises(fs.ObjectNotFound):
        scan("nobody", store=store)
    with pytest.raises(fs.InvalidArgument, match="DataFrame"):
        scan(pl.DataFrame())  # type: ignore[arg-type]
