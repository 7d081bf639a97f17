"""What readers get cannot be written to, and costs them no memory beyond the pages they touch."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.testing.children import ChildDied, child, spawned


def overwrite(address: int) -> None:
    ctypes.memset(address, 0xFF, 1)


@pytest.mark.req("API-7", "TYP-5")
@pytest.mark.parametrize("kind", ["blob", "array", "table"])
def test_writing_at_the_address_kills_the_writer(store: fs.Store, kind: str) -> None:
    numbers = np.arange(100_000)
    store.put({"blob": numbers.tobytes(), "array": numbers, "table": pa.table({"n": numbers})}[kind], "a")

    def write() -> None:
        value: Any = store.get("a").value()  # type: ignore[attr-defined]
        buffer = value.column(0).chunk(0).buffers()[1] if kind == "table" else pa.py_buffer(value)
        overwrite(buffer.address)

    with pytest.raises(ChildDied, match="SIGSEGV"):
        child(write)
    value: Any = store.get("a").value()  # type: ignore[attr-defined]
    again = value.column(0).to_numpy() if kind == "table" else np.frombuffer(value, numbers.dtype)
    assert np.array_equal(again, numbers)


@pytest.mark.req("API-7", "TYP-5")
def test_no_view_is_writable(store: fs.Store) -> None:
    array = np.arange(1000.0)
    store.put_many({"a": array, "b": array.tobytes(), "t": pa.table({"n": array}), "o": {"n": array}})
    assert store.get("b").value().readonly
    assert pa.py_buffer(store.get("b").value()).is_mutable is False
    with pytest.raises(TypeError):
        store.get("b").value()[0] = 1
    column = store.get("t").to_arrow().column(0).chunk(0)
    assert not any(buffer.is_mutable for buffer in column.buffers() if buffer)
    for view in (store.get("a").to_numpy(), store.get("o").value()["n"], column.to_numpy()):
        assert not view.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.flags.writeable = True
    frame = store.get("t").to_pandas()
    changed = frame.assign(n=frame["n"] + 1)
    assert changed["n"][0] == 1
    assert np.array_equal(store.get("a").to_numpy(), array)
    assert store.get("t").to_pandas().equals(pd.DataFrame({"n": array}))


def memory_bytes() -> dict[str, int]:
    """What this process uses, by the kernel's own count."""
    with open("/proc/self/smaps_rollup") as file:
        rows = [line.split() for line in file if line.endswith("kB\n")]
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows}


def read_part(path: str, rows: int) -> tuple[dict[str, int], dict[str, int], dict[str, int], int]:
    """Memory before a get, after it, and after touching some rows; and whether the right rows were seen."""
    store = fs.connect(path)
    store.put(pa.table({"n": [1]}), "warm-up")
    store.get("warm-up").to_arrow().column(0).to_pylist()
    before = memory_bytes()
    column = store.get("big").to_arrow().column(0).chunk(0)
    after_get = memory_bytes()
    total = int(column.slice(0, rows).to_numpy().sum())
    return before, after_get, memory_bytes(), total


@pytest.mark.req("O-3")
def test_a_table_costs_its_reader_only_the_pages_it_touches(store_dir: str) -> None:
    size, touched, slack = 64 << 20, 8 << 20, 2 << 20
    with fs.connect(store_dir, capacity="128MiB") as store:
        store.put(pa.table({"n": np.ones(size // 8, dtype=np.int64)}), "big")
        before, after_get, after_touch, total = spawned(read_part, store_dir, touched // 8)
        store.destroy()
    assert total == touched // 8
    assert after_get["Rss"] - before["Rss"] < slack, "the get itself reads no data"
    private = [figures["Private_Dirty"] + figures["Anonymous"] for figures in (before, after_touch)]
    assert private[1] - private[0] < slack, "nothing was copied"
    # The kernel maps some pages around each one that is touched.
    assert touched - mmap.PAGESIZE <= after_touch["Rss"] - after_get["Rss"] + slack < touched + 2 * slack
