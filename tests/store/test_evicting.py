"""Eviction, marks and pins, through the public interface and several processes."""

from __future__ import annotations

import contextlib

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.errors import InvalidArgument, ObjectNotFound, StoreFull
from flightstore.testing.children import child, start
from flightstore.testing.events import Gate

MIB = 1 << 20


def value(number: int, nbytes: int = MIB) -> bytes:
    """Bytes that tell which object they belong to."""
    return number.to_bytes(2, "big") * (nbytes // 2)


def names(store: fs.Store) -> list[str]:
    return [info.name or "" for info in store.list()]


def fill(store: fs.Store, *, evictable: bool) -> list[str]:
    """Objects of one MiB until the store is full."""
    found = [f"n{number:02}" for number in range(store.capacity_bytes // MIB)]
    for number, name in enumerate(found):
        store.put(value(number), name, evictable=evictable)
    assert store.stats().free_bytes == 0
    return found


@pytest.mark.req("INV-3", "INV-4", "BAT-10")
def test_a_put_evicts_the_least_recently_got(store: fs.Store) -> None:
    found = fill(store, evictable=True)
    for name in found[:3]:
        store.get(name).release()
    store.put(value(99, 2 * MIB), "new")
    assert names(store) == sorted([*found[:3], *found[5:], "new"])
    assert bytes(store.get("new").value()) == value(99, 2 * MIB)
    assert store.fsck() == []


@pytest.mark.req("INV-4")
def test_what_is_not_marked_held_or_pinned_stays(store: fs.Store) -> None:
    found = fill(store, evictable=False)
    with pytest.raises(StoreFull) as caught:
        store.put(value(99))
    assert (caught.value.spillable_bytes, caught.value.free_bytes) == (0, 0)
    assert "evictable 0" in str(caught.value)
    assert names(store) == found
    held = store.get(found[0])
    store.pin(found[1])
    assert store.free(found[:3]) == 3
    store.put(value(99), "new")
    assert names(store) == sorted([*found[:2], *found[3:], "new"])
    assert bytes(held.value()) == value(0)
    with pytest.raises(StoreFull):
        store.put(value(98))
    held.release()
    store.unpin(found[1])
    store.put(value(98, 2 * MIB), "newer")
    assert names(store) == sorted([*found[3:], "new", "newer"])


@pytest.mark.req("INV-4")
def test_nothing_is_dropped_in_vain(store: fs.Store) -> None:
    found = fill(store, evictable=False)
    store.free(found[:4])
    with pytest.raises(StoreFull):
        store.put(bytes(5 * MIB), "too large")
    assert names(store) == found


@pytest.mark.req("API-2", "INV-3")
def test_create_now_evicts(store: fs.Store) -> None:
    fill(store, evictable=True)
    with store.create_now(MIB, "built") as blob:
        blob.buffer[:] = value(7)
    assert bytes(store.get("built").value()) == value(7)


@pytest.mark.req("API-9")
def test_evict_returns_what_became_free(store: fs.Store) -> None:
    found = fill(store, evictable=False)
    assert store.evict() == 0
    store.free(found[:5])
    used = store.stats().used_bytes
    assert store.evict(MIB + 1) == 2 * MIB
    assert store.stats().used_bytes == used - 2 * MIB
    assert store.evict() == 3 * MIB
    assert names(store) == found[5:]
    assert store.stats().evictable_bytes == 0
    with pytest.raises(InvalidArgument):
        store.evict(-1)


@pytest.mark.req("BAT-9")
def test_marked_objects_go_first(store: fs.Store) -> None:
    found = fill(store, evictable=True)
    for name in reversed(found):
        store.get(name).release()
    assert store.free([found[0], found[0], "absent"]) == 1
    store.put(value(99), "new")
    assert found[0] not in names(store)
    with fs.connect(store.path, policy="lru") as other:
        other.free(found[1])
        other.put(value(98), "newer")
        assert found[1] in names(store)
        assert found[-1] not in names(store)
        other.set_policy("marked-first")


@pytest.mark.req("BAT-10")
def test_a_policy_of_ones_own(store: fs.Store) -> None:
    fill(store, evictable=True)
    seen: list[int] = []

    def newest_first(candidates: list[fs.EvictionCandidate]) -> list[fs.EvictionCandidate]:
        seen.append(len(candidates))
        return sorted(candidates, key=lambda one: -one.created_ns)

    store.set_policy(newest_first)
    store.put(value(99), "new")
    assert seen
    assert names(store)[-2:] == ["n14", "new"]
    store.set_policy(lambda candidates: [])
    with pytest.raises(StoreFull):
        store.put(value(98))
    store.set_policy("marked-first")


@pytest.mark.req("INV-4")
def test_a_reader_in_another_process_keeps_its_object(store: fs.Store) -> None:
    found = fill(store, evictable=True)
    with Gate("held") as held, Gate("go on") as go_on:

        def reader(path: str) -> bool:
            with fs.connect(path) as mine:
                array = mine.get(found[0]).value()
                held.open()
                go_on.wait()
                return bytes(array) == value(0)

        with start(reader, store.path) as process:
            held.wait()
            store.put(value(99, 14 * MIB), "new")
            assert names(store) == sorted([found[0], found[-1], "new"]) or found[0] in names(store)
            go_on.open()
            assert process.result()
    assert store.evict() >= MIB


@pytest.mark.req("BAT-9", "O-2")
def test_members_of_evicted_tables(store: fs.Store) -> None:
    base = pa.table({"n": np.arange(100_000)})
    store.put(base, "base")
    made = store.with_columns("base", {"v": np.arange(100_000.0)}, "made")
    made.release()
    store.free("made")
    used = store.stats().used_bytes
    freed = store.evict()
    assert 800_000 <= freed < 900_000
    assert store.stats().used_bytes == used - freed
    assert store.get("base").to_arrow().equals(base)
    store.with_columns("base", {"v": np.arange(100_000.0)}, "made").release()
    store.free("made")
    assert store.evict(recursive=True) >= 1_600_000
    assert names(store) == []
    store.recover()
    assert store.stats().used_bytes == 0
    assert store.fsck() == []


@pytest.mark.req("BAT-10", "INV-9")
def test_pins(store: fs.Store) -> None:
    store.put(value(1), "a")
    assert store.pin(["a", "absent"]) == 1
    assert store.pin("a") == 1
    assert store.stat("a").pinned
    assert store.stats().pinned_bytes == MIB
    assert store.unpin("a") == 1
    assert store.stat("a").pinned
    assert (store.unpin("a"), store.unpin("a")) == (1, 0)
    assert not store.stat("a").pinned
    store.pin("a")
    assert store.delete("a") == 1


@pytest.mark.req("BAT-10")
def test_a_pinned_object_outlives_its_name(store: fs.Store) -> None:
    old = store.put(value(1), "a")
    store.pin("a")
    store.put(value(2), "a")
    assert bytes(store.get(old).value()) == value(1)
    store.unpin(old)
    with pytest.raises(ObjectNotFound):
        store.get(old)
    store.recover()
    assert store.stats().used_bytes == MIB
    assert store.fsck() == []


@pytest.mark.req("INV-4", "FAIL-2")
def test_pins_outlive_their_process(store: fs.Store) -> None:
    found = fill(store, evictable=True)

    def pin_all_but_one(path: str) -> None:
        with fs.connect(path) as mine:
            mine.pin(found[1:])

    child(pin_all_but_one, store.path)
    store.recover()
    store.put(value(99), "new")
    assert names(store) == sorted([*found[1:], "new"])


@pytest.mark.req("INV-4")
def test_processes_that_evict_each_others_objects(store: fs.Store) -> None:
    """Values are right or gone, never wrong; puts never fail; nothing is left over."""

    def work(path: str, seed: int) -> tuple[int, int]:
        generator = np.random.default_rng(seed)
        hits = misses = 0
        with fs.connect(path) as mine:
            for _ in range(150):
                number = int(generator.integers(40))
                try:
                    array = mine.get(f"o{number}").value()
                    assert bytes(array) == value(number)
                    hits += 1
                    del array
                except ObjectNotFound:
                    misses += 1
                    mine.put(value(number), f"o{number}", evictable=True, timeout=60)
        return hits, misses

    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(start(work, store.path, seed)) for seed in range(3)]
        results = [process.result() for process in processes]
    assert all(hits and misses for hits, misses in results)
    store.recover()
    assert store.fsck() == []
    store.evict()
    assert store.stats().used_bytes == 0


@pytest.mark.req("API-9", "INV-2")
def test_what_a_dead_process_held_is_evicted(store: fs.Store) -> None:
    found = fill(store, evictable=True)
    with Gate("held") as held:

        def hold(path: str) -> None:
            with fs.connect(path) as mine:
                view = mine.get(found[0]).value()
                held.open()
                Gate("never").wait(60)
                del view

        with start(hold, store.path) as process:
            held.wait()
            assert store.evict() == 15 * MIB
            process.kill()
            assert store.evict() == MIB
