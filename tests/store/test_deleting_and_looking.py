"""delete, list, stat, stats, holders."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore import ObjectID
from flightstore.testing.children import child, start
from flightstore.testing.events import Gate


@pytest.mark.req("API-8", "INV-9")
def test_delete(store: fs.Store) -> None:
    ids = store.put_many({"a": b"1", "b": b"2", "c": b"3"})
    assert store.delete("a") == 1
    assert store.delete("a") == 0
    assert store.delete([ids[1], "b", "nothing", ids[2]]) == 2
    assert store.delete([]) == 0
    assert store.list() == []
    with pytest.raises(fs.InvalidArgument):
        store.delete("{")


@pytest.mark.req("API-8", "INV-9")
def test_a_deleted_object_is_readable_for_who_holds_it(store: fs.Store) -> None:
    store.put(np.arange(1_000_000), "a")
    view = store.get("a").value()
    store.delete("a")
    with pytest.raises(fs.ObjectNotFound):
        store.get("a")
    assert store.stats().dying == 1
    for number in range(8):
        store.put(bytes([number]) * (4 << 20), "other")
    assert np.array_equal(view, np.arange(1_000_000))
    del view
    store.delete("other")
    store.recover()
    assert store.stats().used_bytes == store.stats().dying == 0


@pytest.mark.req("INV-9")
def test_delete_if_unused(store: fs.Store) -> None:
    store.put_many({"used": b"1", "unused": b"2"})
    held = store.get("used")
    assert store.delete(["used", "unused", "nothing"], if_unused=True) == 1
    assert "used" in store
    assert "unused" not in store
    with store.create(1, "pending") as builder:
        assert store.delete([builder.id, "pending"], if_unused=True) == 0
        assert store.delete([builder.id, "pending"]) == 0
    held.release()
    assert store.delete(["used", "pending"], if_unused=True) == 2


@pytest.mark.req("INV-9")
def test_delete_if_unused_sees_other_processes(store: fs.Store) -> None:
    store.put(b"1", "a")
    held = store.get("a")
    assert child(lambda: fs.connect(store.path).delete("a", if_unused=True)) == 0
    del held
    assert child(lambda: fs.connect(store.path).delete("a", if_unused=True)) == 1


def test_list(store: fs.Store) -> None:
    for name in ("b", "a/2", "a/1", "A", "[x]"):
        store.put(b"", name)
    unnamed = store.put_many([b"", b""])
    names = ["A", "[x]", "a/1", "a/2", "b"]
    assert [info.name for info in store.list()] == [*names, None, None]
    assert [info.id for info in store.list()[-2:]] == sorted(unnamed)
    assert [info.name for info in store.list("*")] == names
    assert [info.name for info in store.list("a*")] == ["a/1", "a/2"]
    assert [info.name for info in store.list("a/?")] == ["a/1", "a/2"]
    assert [info.name for info in store.list("[ab]")] == ["b"]
    assert [info.name for info in store.list("[[]x]")] == ["[x]"]
    assert store.list("") == store.list("nothing") == []
    with store.create(1, "pending"):
        assert len(store.list()) == 7


def test_stat(store: fs.Store) -> None:
    before = time.time_ns()
    table = pa.table({"a": [1, 2, 3]})
    object_id = store.put(table, "t", metadata={"x": 1})
    info = store.stat("t")
    assert info == store.stat(object_id) == store.list("t")[0]
    assert (info.id, info.name, info.kind, info.num_rows, info.metadata) == (
        object_id,
        "t",
        "table",
        3,
        {"x": 1},
    )
    assert (info.refs, info.pinned, info.state, info.creator_pid) == (0, False, "sealed", os.getpid())
    assert before <= info.created_ns <= time.time_ns()
    assert info.nbytes >= table.nbytes
    kinds = {b"": "blob", "text": "object"}
    assert {value: store.stat(store.put(value)).kind for value in kinds} == kinds
    assert store.stat(store.put(np.zeros(3))).kind == "tensor"
    assert store.stat(store.put(b"12345")).nbytes == 5
    for ref in ("nothing", ObjectID(b"nothing")):
        with pytest.raises(fs.ObjectNotFound):
            store.stat(ref)


@pytest.mark.req("API-2")
def test_the_creator_is_recorded(store: fs.Store) -> None:
    def put() -> int:
        store.put(b"", "a")
        with store.create(1, "b"):
            pass
        return os.getpid()

    pid = child(put)
    assert [store.stat(name).creator_pid for name in "ab"] == [pid, pid]


@pytest.mark.req("API-10")
def test_stats_agree_with_what_is_there(store: fs.Store) -> None:
    empty = store.stats()
    assert (empty.used_bytes, empty.objects, empty.pending, empty.dying, empty.leases) == (0, 0, 0, 0, 0)
    assert (empty.capacity_bytes, empty.free_bytes, empty.clients) == (16 << 20, 16 << 20, 1)
    assert (empty.path, empty.largest_hole_bytes) == (store.path, 16 << 20)
    store.put(bytes(1000), "a")
    store.put(bytes(1 << 20), "b")
    held = store.get("b")
    store.delete("b")
    with store.create(5000):
        stats = store.stats()
        assert (stats.objects, stats.pending, stats.dying, stats.leases) == (1, 1, 1, 2)
        assert stats.used_bytes == 1024 + (1 << 20) + 8192
        assert stats.leased_bytes == (1 << 20) + 8192
        assert stats.used_bytes + stats.free_bytes == stats.capacity_bytes == store.capacity_bytes
        assert stats.used_bytes <= stats.backed_bytes <= stats.capacity_bytes
        assert stats.pinned_bytes == 0
        assert 0 < stats.catalog_used_bytes < stats.catalog_bytes
    held.release()
    store.recover()
    assert store.stats().used_bytes == 1024 + 8192
    store.put(bytes(store.stats().largest_hole_bytes))


@pytest.mark.req("API-10")
def test_usage_is_what_the_file_system_says(store: fs.Store) -> None:
    store.put(bytes(5 << 20))
    assert os.stat(f"{store.path}/arena").st_blocks * 512 == store.stats().backed_bytes


@pytest.mark.req("API-4")
def test_holders(store: fs.Store) -> None:
    store.put(b"1", "a")
    assert store.holders("a") == []
    mine = [store.get("a"), store.get("a")]

    def hold(gate: Gate) -> None:
        mine.clear()
        theirs = [store.get("a") for _ in range(3)]
        gate.open()
        Gate("never").wait(60)
        theirs.clear()

    gate = Gate()
    with start(hold, gate) as reader:
        gate.wait()
        holders = store.holders("a")
        assert holders == mine[0].holders()
        assert {(one.pid, one.refs) for one in holders} == {(os.getpid(), 2), (reader.pid, 3)}
        assert {one.process for one in holders} == {Path("/proc/self/comm").read_text().strip()}
    with pytest.raises(fs.ObjectNotFound):
        store.holders("nothing")
