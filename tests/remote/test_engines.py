"""DuckDB, Dask and polars' scan through a gateway: the same calls, the same results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.connectors.dask import from_dask, to_dask
from flightstore.connectors.duckdb import from_duckdb, query
from flightstore.connectors.polars import scan
from flightstore.remote import RemoteStore

from .host import Host


@pytest.fixture(params=["http", "flight"])
def remote(host: Host, request: pytest.FixtureRequest) -> Iterator[RemoteStore]:
    """A handle by the network."""
    url = host.make(32 << 20, request.param)
    with fs.connect(url, map=False) as store:
        assert isinstance(store, RemoteStore)
        store.put(pa.table({"id": range(100), "who": ["ann", "bob"] * 50}), "orders")
        yield store
    host.end(url)


@pytest.mark.req("GW-4", "O-1")
def test_a_query_and_its_result(remote: RemoteStore) -> None:
    found = query("select who, sum(id)::bigint as n from orders group by who order by who", store=remote)
    assert found.fetchall() == [("ann", 2450), ("bob", 2500)]
    made: Any = from_duckdb(found, remote, "sums")
    assert made.to_arrow().to_pydict() == {"who": ["ann", "bob"], "n": [2450, 2500]}


@pytest.mark.req("GW-4", "O-1")
def test_a_scan(remote: RemoteStore) -> None:
    found = scan("orders", store=remote).filter(pl.col("id") > 97).select("who").collect()
    assert found["who"].to_list() == ["ann", "bob"]


@pytest.mark.req("GW-4", "O-1")
def test_dask_there_and_back(remote: RemoteStore) -> None:
    with dask.config.set({"scheduler": "threads", "dataframe.convert-string": False}):
        lazy = to_dask(remote.get("orders"), npartitions=3)
        assert lazy["id"].sum().compute() == 4950
        frame = pd.DataFrame({"n": range(10)})
        made: Any = from_dask(dd.from_pandas(frame, npartitions=2), remote, "frame")
        pd.testing.assert_frame_equal(made.value(), frame)
        tensor: Any = from_dask(da.ones((4, 6), chunks=3), remote, "tensor")
        assert np.array_equal(tensor.to_numpy(), np.ones((4, 6)))
    assert [info.name for info in remote.list()] == ["frame", "orders", "tensor"]
