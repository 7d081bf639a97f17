"""Composition and slices at the sizes they are made for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import flightstore as fs

pytestmark = [pytest.mark.slow, pytest.mark.req("O-2")]

ROWS = 16 << 20
"""Eight columns of eight bytes: a gigabyte."""
HEADERS = 8 << 10

FRAMES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "arrow": pa.table,
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
}
COLUMNS: dict[str, Callable[[Any], Any]] = {
    "arrow": pa.array,
    "pandas": pd.Series,
    "polars": pl.Series,
}


@pytest.mark.parametrize("library", FRAMES)
def test_a_column_added_to_a_gigabyte_costs_its_own_bytes(store_dir: str, library: str) -> None:
    data = {f"c{number}": np.arange(number, ROWS + number) for number in range(8)}
    new = np.linspace(0, 1, ROWS)
    with fs.connect(store_dir, capacity="1536MiB") as store:
        store.put(FRAMES[library](data), "orders")
        before = store.stats().used_bytes
        assert 1 << 30 <= before <= (1 << 30) + HEADERS
        store.with_columns("orders", {"vat": COLUMNS[library](new)}, "orders_vat")
        store.recover()
        assert new.nbytes <= store.stats().used_bytes - before <= new.nbytes + HEADERS
        store.delete("orders")
        store.recover()
        assert store.stats().used_bytes >= (1 << 30) + new.nbytes
        table = store.get("orders_vat").to_arrow()
        assert pc.sum(table["c7"]).as_py() == int(data["c7"].sum())
        assert pc.max(table["vat"]).as_py() == 1.0
        del table
        store.delete("orders_vat")
        store.recover()
        assert store.stats().used_bytes == 0
        assert store.fsck() == []
        store.destroy()


LONG = 10_000_000


def texts() -> pa.Array:
    return pc.binary_join_element_wise(pa.array(np.arange(LONG)).cast(pa.string()), "the text of row", " ")


def pairs(kind: Any) -> pa.Array:
    """[[0, 1], [2, 3], ...]"""
    values = pa.array(np.arange(2 * LONG))
    starts = pa.array(np.arange(0, 2 * LONG, 2, dtype=np.int32))
    if kind is pa.ListViewArray:
        return kind.from_arrays(starts, pa.array(np.full(LONG, 2, np.int32)), values)
    return kind.from_arrays(pa.array(np.arange(0, 2 * LONG + 1, 2, dtype=np.int32)), values)


SLICED: dict[str, Callable[[], pa.Array]] = {
    "string": texts,
    "string view": lambda: texts().cast(pa.string_view()),
    "list view": lambda: pairs(pa.ListViewArray),
    "list": lambda: pairs(pa.ListArray),
    "struct of string views": lambda: pa.StructArray.from_arrays([texts().cast(pa.string_view())], ["a"]),
}


@pytest.mark.req("TYP-1")
@pytest.mark.parametrize("name", SLICED)
def test_ten_rows_of_ten_million_store_ten_rows(store: fs.Store, name: str) -> None:
    rows = pa.table({"c": SLICED[name]()}).slice(LONG // 2, 10)
    store.put(rows, "ten")
    assert store.stats().used_bytes <= 4 << 10
    assert store.get("ten").to_arrow().to_pydict() == rows.to_pydict()
