"""Where a library is missing, each connector says which extra brings it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.testing.children import spawned

CALLS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "duckdb query": ("duckdb", lambda store, obj: _duckdb().query("from t", store=store)),
    "duckdb register": ("duckdb", lambda store, obj: _duckdb().register(None, store=store)),
    "to_duckdb": ("duckdb", lambda store, obj: obj.to_duckdb()),
    "to_dask": ("dask", lambda store, obj: obj.to("dask")),
    "from_dask": ("dask", lambda store, obj: _dask().from_dask(None, store)),
    "scan": ("polars", lambda store, obj: _polars().scan(obj)),
    "jax": ("jax", lambda store, obj: store.get("tensor").to("jax")),
    "torch": ("torch", lambda store, obj: store.get("tensor").to("torch")),
}


def _duckdb() -> Any:
    from flightstore.connectors import duckdb

    return duckdb


def _dask() -> Any:
    from flightstore.connectors import dask

    return dask


def _polars() -> Any:
    from flightstore.connectors import polars

    return polars


def what_is_said(path: str) -> dict[str, tuple[str, str]]:
    """(message, hint) of each call, in a process that takes the libraries for missing."""
    for library in ("dask", "duckdb", "jax", "polars", "torch"):
        sys.modules[library] = None  # type: ignore[assignment]
    found = {}
    with fs.connect(path) as store:
        for name, (_, call) in CALLS.items():
            with pytest.raises(fs.MissingExtra) as missing:
                call(store, store.get("t"))
            found[name] = (missing.value.message, missing.value.hint)
    return found


@pytest.mark.req("O-1", "TYP-4")
def test_the_extra_is_named(store: fs.Store) -> None:
    store.put(pa.table({"a": [1]}), "t")
    store.put(np.arange(3), "tensor")
    for name, (message, hint) in spawned(what_is_said, store.path).items():
        library = CALLS[name][0]
        assert library in message, name
        assert f"pip install 'flightstore[{library}]'" in hint, name
