"""put, get, put_many, get_many, contains, wait, metadata: what abc.py promises of each."""

from __future__ import annotations

import array
import asyncio
import math
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore import ObjectID
from flightstore.testing.children import child, start
from flightstore.testing.events import Gate, wait_until


def waits_in(store: fs.Store, gate: Gate, ref: fs.Ref, timeout: float | None) -> bytes:
    gate.open()
    return bytes(store.get(ref, timeout=timeout).value())


# --- put copies ---


def scrambled(kind: str, nbytes: int) -> tuple[Any, Any, Callable[[], None]]:
    """(a value of that kind, an equal one of its own memory, what changes the first one's memory)."""
    numbers = np.arange(nbytes // 8, dtype=np.int64)
    copy = numbers.copy()

    def change() -> None:
        numbers[:] = -1

    if kind == "numpy":
        return numbers, copy, change
    if kind == "memoryview":
        return memoryview(numbers).cast("B"), copy.tobytes(), change
    if kind == "buffer":
        return pa.py_buffer(numbers), copy.tobytes(), change
    if kind == "arrow":
        return pa.table({"n": numbers}), pa.table({"n": copy}), change
    if kind == "batch":
        return pa.record_batch({"n": pa.array(numbers)}), pa.record_batch({"n": pa.array(copy)}), change
    if kind == "pandas":
        return pd.DataFrame({"n": numbers}, copy=False), pd.DataFrame({"n": copy}), change
    if kind == "polars":
        return pl.DataFrame({"n": pl.Series(numbers)}), pl.DataFrame({"n": pl.Series(copy)}), change
    return {"n": numbers}, {"n": copy}, change


KINDS = ("numpy", "memoryview", "buffer", "arrow", "batch", "pandas", "polars", "object")


@pytest.mark.req("API-7")
@pytest.mark.parametrize("nbytes", [800, 800_000])
@pytest.mark.parametrize("kind", KINDS)
def test_changing_the_source_changes_nothing(store: fs.Store, kind: str, nbytes: int) -> None:
    value, expected, change = scrambled(kind, nbytes)
    store.put(value, "value")
    change()
    got = store.get("value").value()
    if kind == "object":
        got, expected = got["n"], expected["n"]
    if kind in ("numpy", "object"):
        assert np.array_equal(got, expected)
    elif kind in ("memoryview", "buffer"):
        assert bytes(got) == expected
    else:
        assert got.equals(expected)


def test_mutable_bytes_are_copied(store: fs.Store) -> None:
    for source in (bytearray(b"abc"), array.array("B", b"abc"), mmap.mmap(-1, 3)):
        if isinstance(source, mmap.mmap):
            source[:] = b"abc"
        object_id = store.put(source)
        source[0:1] = array.array("B", b"X") if isinstance(source, array.array) else b"X"
        assert store.get(object_id).value() == b"abc"


# --- get ---


@pytest.mark.req("API-3", "API-14")
@pytest.mark.parametrize("ref", ["nothing", ObjectID(b"nothing")])
def test_get_of_nothing(store: fs.Store, ref: fs.Ref) -> None:
    with pytest.raises(fs.ObjectNotFound, match="nothing|id:6e6f7468696e67") as failure:
        store.get(ref)
    assert isinstance(failure.value, KeyError)
    assert not isinstance(failure.value, TimeoutError)


@pytest.mark.req("API-3", "API-14")
def test_get_in_time_out(store: fs.Store) -> None:
    with pytest.raises(fs.GetTimeout, match=r"'never'.*0\.05") as failure:
        store.get("never", timeout=0.05)
    assert isinstance(failure.value, KeyError)
    assert isinstance(failure.value, TimeoutError)
    assert isinstance(failure.value, fs.ObjectNotFound)


@pytest.mark.req("API-3", "API-14")
@pytest.mark.parametrize("timeout", [20, None])
@pytest.mark.parametrize("ref", ["later", ObjectID(b"later")])
def test_get_waits_for_what_another_process_puts(store: fs.Store, ref: fs.Ref, timeout: float | None) -> None:
    gate = Gate()
    with start(waits_in, store, gate, ref, timeout) as reader:
        gate.wait()
        if isinstance(ref, ObjectID):
            store.put(b"here", object_id=ref)
        else:
            store.put(b"here", ref)
        assert reader.result(deadline_s=20) == b"here"


@pytest.mark.req("API-3")
def test_a_waiting_get_does_not_see_a_pending_object(store: fs.Store) -> None:
    with store.create(3, "slow") as builder:
        with pytest.raises(fs.GetTimeout):
            store.get("slow", timeout=0.02)
        builder.buffer[:] = b"now"
    assert store.get("slow", timeout=0.02).value() == b"now"


@pytest.mark.parametrize("timeout", [-1, math.nan])
def test_a_timeout_is_not_negative(store: fs.Store, timeout: float) -> None:
    with pytest.raises(fs.InvalidArgument, match="timeout"):
        store.get("nothing", timeout=timeout)
    with pytest.raises(fs.InvalidArgument, match="timeout"):
        store.put(b"", timeout=timeout)


@pytest.mark.req("API-3")
def test_get_async(store: fs.Store) -> None:
    async def both() -> bytes:
        waiting = asyncio.create_task(store.get_async("later", timeout=20))
        await asyncio.sleep(0)
        store.put(b"here", "later")
        return bytes((await waiting).value())

    assert asyncio.run(both()) == b"here"
    with pytest.raises(fs.GetTimeout):
        asyncio.run(store.get_async("never", timeout=0.02))


@pytest.mark.req("API-12")
def test_wait_async(store: fs.Store) -> None:
    async def both() -> tuple[list[fs.Ref], list[fs.Ref]]:
        waiting = asyncio.create_task(store.wait_async(["a", "b"], num_ready=1, timeout=20))
        await asyncio.sleep(0)
        store.put(b"", "b")
        return await waiting

    assert asyncio.run(both()) == (["b"], ["a"])
    assert asyncio.run(store.wait_async(["a", "b"], timeout=0.02)) == (["b"], ["a"])


# --- references ---


@pytest.mark.req("API-4", "INV-1", "INV-2")
def test_references_count_gets(store: fs.Store) -> None:
    store.put(np.arange(1000), "a")
    assert store.stat("a").refs == 0
    first, second = store.get("a"), store.get("a")
    assert store.stat("a").refs == 2
    view = first.value()
    assert store.stat("a").refs == 2
    first.release()
    first.release()
    assert store.stat("a").refs == 2, "the view still needs it"
    part = view[10:20]
    del view
    assert store.stat("a").refs == 2
    del part
    assert store.stat("a").refs == 1
    del second
    assert store.stat("a").refs == 0


@pytest.mark.req("API-4")
def test_a_released_object_says_so(store: fs.Store) -> None:
    store.put(b"abc", "a")
    with store.get("a") as obj:
        view = obj.value()
    with pytest.raises(fs.StoreClosed, match="released"):
        obj.value()
    assert "released" in repr(obj)
    assert view == b"abc"


@pytest.mark.req("INV-2", "FAIL-3")
def test_a_dead_process_holds_nothing(store: fs.Store) -> None:
    store.put(b"abc", "a")

    def hold_and_wait(gate: Gate) -> None:
        kept = store.get("a")
        gate.open()
        Gate("never").wait(60)
        del kept

    gate = Gate()
    with start(hold_and_wait, gate) as reader:
        gate.wait()
        assert store.stat("a").refs == 1
        assert [holder.pid for holder in store.holders("a")] == [reader.pid]
        assert store.delete("a", if_unused=True) == 0
    assert store.stat("a").refs == 0
    assert store.holders("a") == []
    assert store.delete("a", if_unused=True) == 1


# --- several at once ---


@pytest.mark.req("API-13")
def test_put_many(store: fs.Store) -> None:
    ids = store.put_many({"a": b"1", "b": np.arange(50_000), "c": {"x": 1}})
    assert [store.get(name).id for name in "abc"] == ids
    unnamed = store.put_many([b"1", bytes(100_000)])
    assert [store.get(one).name for one in unnamed] == [None, None]
    assert store.put_many([]) == store.put_many({}) == []
    assert store.put_many(iter([b"1"]))


@pytest.mark.req("API-13")
@pytest.mark.parametrize(
    "values",
    [
        {"a": b"new", "b": lambda: None},
        {"a": bytes(100_000), "b": lambda: None},
        {"a": b"new", "{": b"bad name"},
        {"a": bytes(100_000), "b": bytes(17 << 20)},
        {"a": b"new", "b": bytes(17 << 20)},
    ],
    ids=range(5),
)
def test_put_many_stores_all_or_nothing(store: fs.Store, values: dict[str, Any]) -> None:
    store.put(b"old", "a")
    with pytest.raises(fs.FlightStoreError):
        store.put_many(values)
    assert store.get("a").value() == b"old"
    assert (store.stats().objects, store.stats().pending) == (1, 0)
    store.recover()
    assert store.stats().used_bytes == 64


@pytest.mark.req("API-13")
@pytest.mark.parametrize("nbytes", [8, 100_000])
def test_put_many_becomes_visible_at_once(store: fs.Store, nbytes: int) -> None:
    """A reader in another process always gets names of one round."""
    names = ["a", "b", "c"]
    store.put_many(dict.fromkeys(names, bytes(nbytes)))
    gate = Gate()

    def read() -> int:
        rounds = 0
        while True:
            firsts = {obj.value()[0] for obj in store.get_many(names)}
            assert len(firsts) == 1, firsts
            rounds += 1
            gate.open()
            if firsts == {255}:
                return rounds

    with start(read) as reader:
        gate.wait()
        for number in range(100):
            store.put_many(dict.fromkeys(names, bytes([number]) * nbytes))
        store.put_many(dict.fromkeys(names, b"\xff" * nbytes))
        assert reader.result() > 1


@pytest.mark.req("API-13")
def test_get_many_gets_all_or_nothing(store: fs.Store) -> None:
    ids = store.put_many({"a": b"1", "b": b"2"})
    assert [bytes(obj.value()) for obj in store.get_many(["b", ids[0], "b"])] == [b"2", b"1", b"2"]
    assert store.get_many([]) == []
    with pytest.raises(fs.ObjectNotFound, match="'c'"):
        store.get_many(["a", "c"])
    with pytest.raises(fs.GetTimeout, match="'c'"):
        store.get_many(["a", "c"], timeout=0.02)
    assert store.stats().leases == 0


@pytest.mark.req("API-13")
def test_get_many_waits_for_the_last(store: fs.Store) -> None:
    store.put(b"1", "a")
    gate = Gate()

    def read() -> list[bytes]:
        gate.open()
        return [bytes(obj.value()) for obj in store.get_many(["a", "b"], timeout=20)]

    with start(read) as reader:
        gate.wait()
        store.put(b"2", "b")
        assert reader.result(deadline_s=20) == [b"1", b"2"]


# --- contains, wait ---


@pytest.mark.req("API-5")
def test_only_sealed_objects_are_contained(store: fs.Store) -> None:
    with store.create(10, "a") as builder:
        assert "a" not in store
        assert builder.id not in store
    assert "a" in store
    assert builder.id in store
    store.delete("a")
    assert "a" not in store
    assert builder.id not in store
    assert None not in store
    assert 5 not in store


@pytest.mark.req("API-12")
def test_wait(store: fs.Store) -> None:
    object_id = store.put(b"", "b")
    assert store.wait(["a", object_id, "b", "c"], num_ready=1) == ([object_id, "b"], ["a", "c"])
    assert store.wait(["a", "b"], timeout=0) == (["b"], ["a"])
    assert store.wait(["a", "b"], timeout=0.02) == (["b"], ["a"])
    assert store.wait([]) == ([], [])
    assert store.wait(["a"], num_ready=0) == ([], ["a"])
    for impossible in (-1, 2):
        with pytest.raises(fs.InvalidArgument, match="num_ready"):
            store.wait(["a"], num_ready=impossible)
    with pytest.raises(fs.InvalidArgument):
        store.wait(["{"], timeout=0)


@pytest.mark.req("API-12")
def test_wait_for_another_process(store: fs.Store) -> None:
    gate = Gate()

    def wait() -> tuple[list[fs.Ref], list[fs.Ref]]:
        gate.open()
        return store.wait(["a", "b", ObjectID(b"c")], num_ready=2, timeout=20)

    with start(wait) as waiter:
        gate.wait()
        store.put(b"", object_id=ObjectID(b"c"))
        store.put(b"", "b")
        assert waiter.result(deadline_s=20) == (["b", ObjectID(b"c")], ["a"])


# --- room ---


@pytest.mark.req("API-2")
def test_put_waits_for_room(store: fs.Store) -> None:
    blocker = child(store.put, bytes(15 << 20), "blocker")
    with pytest.raises(fs.StoreFull):
        store.put(bytes(4 << 20), timeout=0.05)

    def put() -> ObjectID:
        return store.put(bytes(4 << 20), "patient", timeout=20)

    with start(put) as writer:
        wait_until(lambda: is_asleep(writer.pid), what="a put that waits", timeout_s=20)
        store.delete(blocker)
        assert store.get("patient", timeout=20).id == writer.result()


def is_asleep(pid: int) -> bool:
    """Whether a process waits for a futex."""
    with open(f"/proc/{pid}/syscall") as file:
        return file.read().split()[0] in ("202", "98")


# --- metadata ---

METADATA = [
    None,
    True,
    0,
    -(2**63),
    2**64 - 1,
    1.5,
    math.inf,
    "",
    "text \N{SNOWMAN}",
    b"",
    b"\0\xff",
    [],
    [1, [2, [3]]],
    {},
    {"a": {"b": [None, b"c", 1.0]}},
    {1: "int keys", None: 2},
    {"long": "x" * 2000},
    "x" * 1_000_000,
]


@pytest.mark.parametrize("value", [b"", b"abc", np.arange(3), pa.table({"a": [1]}), {"a": np.arange(3)}])
@pytest.mark.parametrize("metadata", METADATA, ids=range(len(METADATA)))
@pytest.mark.req("API-2")
def test_metadata(store: fs.Store, metadata: Any, value: Any) -> None:
    store.put(value, "a", metadata=metadata)
    found = [store.get("a").metadata, store.stat("a").metadata, store.list("a")[0].metadata]
    assert found == [metadata] * 3
    assert [type(one) for one in found] == [type(metadata)] * 3
    again = store.get("a").value()
    assert again.equals(value) if isinstance(value, pa.Table) else len(again) == len(value)


@pytest.mark.req("API-2")
@pytest.mark.parametrize("metadata", METADATA, ids=range(len(METADATA)))
def test_metadata_of_what_is_built_in_place(store: fs.Store, metadata: Any) -> None:
    with store.create(5, "a", metadata=metadata) as builder:
        assert builder.buffer == bytes(5)
        builder.buffer[:] = b"value"
    assert (store.get("a").value(), store.stat("a").metadata) == (b"value", metadata)


@pytest.mark.parametrize("metadata", [object(), 2**64, 1j, "\ud800", "x" * (1 << 20), print], ids=range(6))
def test_metadata_that_cannot_be_stored(store: fs.Store, metadata: Any) -> None:
    with pytest.raises(fs.NotStorable, match="metadata"):
        store.put(b"", "a", metadata=metadata)
    with pytest.raises(fs.NotStorable, match="metadata"):
        store.create(1, "a", metadata=metadata)
    assert "a" not in store


# --- nothing ---


@pytest.mark.parametrize(
    "value",
    [b"", np.empty(0), np.empty((3, 0), "f4"), pa.table({"a": pa.array([], pa.int8())}), pl.DataFrame()],
    ids=["bytes", "array", "array2d", "table", "polars"],
)
def test_empty_values(store: fs.Store, value: Any) -> None:
    store.put(value, "empty")
    again = store.get("empty").value()
    if isinstance(value, np.ndarray):
        assert (again.shape, again.dtype) == (value.shape, value.dtype)
    else:
        assert again.equals(value) if hasattr(value, "equals") else again == value
    with store.create(0, "nothing") as builder:
        assert len(builder.buffer) == 0
    assert bytes(store.get("nothing").value()) == b""
