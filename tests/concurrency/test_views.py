"""Whatever was got from an object keeps its memory; when the last of it goes, the memory comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from flightstore import ObjectNotFound, Store, StoreClosed
from flightstore.testing.children import start
from flightstore.testing.events import Gate

pytestmark = pytest.mark.req("API-4", "INV-1", "INV-2", "INV-9")

Churn = Callable[[], None]
Returns = Callable[[int], None]

TABLE = pa.table({"numbers": np.arange(20_000), "texts": [f"text {n}" for n in range(20_000)]})

DOORS: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "memoryview slice": (bytes(range(250)) * 400, lambda v: v[250:500], bytes),
    "numpy view": (np.arange(20_000), lambda v: v[5:5000:5], lambda v: v.tolist()),
    "numpy view of bytes": (
        bytes(range(250)) * 400,
        lambda v: np.frombuffer(v, "u1")[7:300],
        lambda v: v.tolist(),
    ),
    "buffer slice": (
        bytes(range(250)) * 400,
        lambda v: pa.py_buffer(v).slice(250, 250),
        lambda v: v.to_pybytes(),
    ),
    "arrow column": (TABLE, lambda v: v.column("numbers"), lambda v: v.to_pylist()),
    "arrow slice": (TABLE, lambda v: v.slice(100, 50).column("texts").chunk(0), lambda v: v.to_pylist()),
    "arrow buffer": (TABLE, lambda v: v.column("numbers").chunk(0).buffers()[1], lambda v: v.to_pybytes()),
    "pandas series": (
        TABLE,
        lambda v: v.to_pandas(split_blocks=True)["numbers"].iloc[10:2000],
        lambda v: v.tolist(),
    ),
    "pandas arrow series": (
        TABLE,
        lambda v: v.to_pandas(types_mapper=pd.ArrowDtype)["texts"],
        lambda v: v.tolist(),
    ),
    "polars frame": (TABLE, lambda v: pl.from_arrow(v, rechunk=False), lambda v: v.rows()),
    "polars series": (
        TABLE,
        lambda v: pl.from_arrow(v, rechunk=False)["numbers"].slice(5, 500),
        lambda v: v.to_list(),
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_view_through_every_door_keeps_the_memory(
    store: Store, churn: Churn, memory_returns: Returns, door: str
) -> None:
    value, take, read = DOORS[door]
    store.put(value, "kept")
    obj = store.get("kept")
    view = take(obj.value())
    obj.release()
    with pytest.raises(StoreClosed):
        obj.value()
    del obj
    before = read(view)
    assert store.stat("kept").refs == 1
    assert store.delete("kept", if_unused=True) == 0
    store.delete("kept")
    with pytest.raises(ObjectNotFound):
        store.get("kept")
    churn()
    assert read(view) == before
    del view
    memory_returns(0)


def test_counts_follow_gets_and_releases(store: Store) -> None:
    store.put(b"x" * 100, "counted")
    assert store.holders("counted") == []
    objects = [store.get("counted") for _ in range(5)]
    assert store.stat("counted").refs == sum(holder.refs for holder in store.holders("counted")) == 5
    for left in range(5):
        assert store.stat("counted").refs == 5 - left
        objects.pop().release()
    assert store.stat("counted").refs == 0
    ready, finish = Gate(), Gate()

    def hold() -> None:
        obj = store.get("counted")
        ready.open()
        finish.wait()
        obj.release()

    with start(hold) as process:
        ready.wait()
        assert [(holder.pid, holder.refs) for holder in store.holders("counted")] == [(process.pid, 1)]
        finish.open()
        process.result()
    assert store.holders("counted") == []


def test_a_conditional_delete_and_readers_never_both_win(store: Store) -> None:
    """Who got a reference sees the object stay; where the delete won, no reader has it."""
    rounds, readers = 150, 3
    barrier = threading.Barrier(readers + 1)
    got: list[Any] = [None] * readers
    wrong: list[str] = []

    def read(at: int) -> None:
        for number in range(rounds):
            barrier.wait(30)
            try:
                got[at] = store.get(f"raced/{number}")
            except ObjectNotFound:
                got[at] = None
            barrier.wait(30)
            barrier.wait(30)  # the outcome is looked at
            got[at] = None

    threads = [threading.Thread(target=read, args=(at,)) for at in range(readers)]
    for thread in threads:
        thread.start()
    deleted = 0
    for number in range(rounds):
        name = f"raced/{number}"
        store.put(b"x", name)
        barrier.wait(30)
        gone = store.delete(name, if_unused=True)
        barrier.wait(30)
        have = sum(obj is not None for obj in got)
        if (gone and have) or store.contains(name) == bool(gone):
            wrong.append(f"round {number}: deleted {gone}, {have} readers have it")
        deleted += gone
        barrier.wait(30)
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert deleted + len(store.list("raced/*")) == rounds
