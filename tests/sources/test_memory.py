"""Reading takes little private memory, however large the file and its row groups are."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flightstore as fs
from flightstore.connectors import sources
from flightstore.testing.children import start_spawned

pytestmark = [pytest.mark.req("O-4"), pytest.mark.slow]

MIB = 1 << 20
ROWS = 4_000_000


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise LookupError


def most_while(act: Callable[[], object]) -> int:
    """The most private memory that is taken meanwhile."""
    before = most = anonymous_bytes()
    over = threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(0.002):
            most = max(most, anonymous_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        act()
    finally:
        over.set()
        thread.join()
    return max(most, anonymous_bytes()) - before


def measured(store_dir: str, routine: str, path: str) -> int:
    """In a process of its own: what a routine takes."""
    with fs.connect(store_dir) as store:
        acts: dict[str, Callable[[], Any]] = {
            "read": lambda: sources.read(path, store=store, name="t"),
            "hash": lambda: sources.partition("t", by="hash", n=8, columns="n", store=store, name="p"),
        }
        return most_while(acts[routine])


@pytest.mark.parametrize("group_rows", [ROWS // 16, ROWS], ids=["many row groups", "one row group"])
def test_a_table_of_a_quarter_gibibyte(store_dir: Path, tmp_path: Path, group_rows: int) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / "t.parquet"
    table = pa.table({f"c{i}": rng.random(ROWS) for i in range(8)} | {"n": np.arange(ROWS)})
    pq.write_table(table, path, row_group_size=group_rows, compression="none", use_dictionary=False)
    with fs.connect(store_dir, capacity="1GiB") as store:
        with start_spawned(measured, str(store_dir), "read", str(path)) as process:
            taken = process.result(deadline_s=120)
        assert store.get("t").num_rows == ROWS  # type: ignore[attr-defined]
        assert taken < 160 * MIB < table.nbytes
        with start_spawned(measured, str(store_dir), "hash", "") as process:
            taken = process.result(deadline_s=120)
        assert sum(info.num_rows or 0 for info in store.list("p/*")) == ROWS
        # A group for each part, and a batch on its way.
        assert taken < 250 * MIB
        store.destroy()
