"""FAIL-5, API-2: a store whose capacity is reached: numbers that add up, waiting for room, nothing lost."""

from __future__ import annotations

import gc
import os
import time

import pytest

import flightstore.store  # all of it now: not in every child
from flightstore.errors import InvalidArgument, StoreFull
from flightstore.lifecycle.sealing import SMALL_BYTES
from flightstore.testing.faults import Gate, child, start

pytestmark = pytest.mark.req("FAIL-5", "API-2")

MIB = 1 << 20
CAPACITY = 16 * MIB


def test_full_says_how_full_and_works_again_after_a_delete(store: flightstore.Store) -> None:
    store.put_many({f"n{n}": bytes([n]) * MIB for n in range(15)})
    held = store.get("n3")
    with pytest.raises(StoreFull) as caught:
        store.put(b"x" * (2 * MIB), "too much")
    error, stats = caught.value, store.stats()
    assert error.asked_bytes == 2 * MIB
    assert error.capacity_bytes == CAPACITY == stats.capacity_bytes
    assert error.free_bytes == stats.free_bytes == CAPACITY - stats.used_bytes == MIB
    assert error.leased_bytes == held.nbytes == MIB
    assert error.pinned_bytes == 0
    assert error.largest_hole_bytes == stats.largest_hole_bytes == MIB
    for number in (error.asked_bytes, error.capacity_bytes, error.free_bytes, error.largest_hole_bytes):
        assert f"{number:,}" in str(error)
    assert not store.contains("too much")
    assert stats.pending == 0
    store.put(b"x" * MIB, "just fits")
    store.delete(["n3", "n4"])
    with pytest.raises(StoreFull):
        store.put(b"x" * (2 * MIB))  # n3 is still read
    assert bytes(held) == bytes([3]) * MIB
    del held
    gc.collect()
    store.put(b"x" * (2 * MIB), "fits")
    assert bytes(store.get("n14")) == bytes([14]) * MIB


@pytest.mark.parametrize("timeout", [0, 600, None])
def test_an_object_larger_than_the_store_is_refused_at_once(
    store: flightstore.Store, timeout: float | None
) -> None:
    store.put(bytes(MIB))
    begun = time.monotonic()
    with pytest.raises(StoreFull) as caught:
        store.put(bytes(CAPACITY + 1), timeout=timeout)
    assert time.monotonic() - begun < 60
    error = caught.value
    assert error.asked_bytes == CAPACITY + 1
    assert error.capacity_bytes == CAPACITY
    assert error.free_bytes == CAPACITY - MIB
    assert error.largest_hole_bytes == CAPACITY - MIB
    with pytest.raises(StoreFull):
        store.create(CAPACITY + 1, timeout=timeout)


def test_a_batch_larger_than_the_store_stores_nothing(store: flightstore.Store) -> None:
    for size in (MIB, SMALL_BYTES // 2):
        with pytest.raises(StoreFull):
            store.put_many([bytes(size)] * (CAPACITY // size + 1))
        store.recover()
        assert store.stats().used_bytes == 0
        assert store.list() == []


def test_create_now_never_waits(store: flightstore.Store) -> None:
    store.put(bytes(CAPACITY), "all")
    begun = time.monotonic()
    with pytest.raises(StoreFull):
        store.create_now(1)
    assert time.monotonic() - begun < 60
    store.delete("all")
    with store.create_now(CAPACITY) as builder:
        builder.buffer[-1] = 7
    assert bytes(store.get(builder.id))[-1] == 7


@pytest.mark.parametrize("how", ["delete", "release", "die"])
def test_a_put_waits_until_another_process_makes_room(
    store_dir: str, store: flightstore.Store, how: str
) -> None:
    store.put(bytes(CAPACITY), "all")
    with Gate("held") as held, Gate("go on") as go:

        def other() -> None:
            with flightstore.connect(store_dir) as mine:
                view = mine.get("all") if how != "delete" else None
                held.open()
                go.wait()
                if how == "delete":
                    mine.delete("all")
                del view

        with start(other) as process:
            held.wait()
            if how != "delete":
                store.delete("all")
            with pytest.raises(StoreFull):
                store.put(bytes(MIB), timeout=0.2)
            begun = time.monotonic()
            with pytest.raises(StoreFull):
                store.put(bytes(MIB), timeout=0)
            assert time.monotonic() - begun < 60
            if how == "die":
                process.kill()
            else:
                go.open()
            store.put(bytes(MIB), "late", timeout=60)
            if how != "die":
                process.result()
    assert store.get("late").nbytes == MIB


def test_waiting_for_ever_ends_when_there_is_room(store_dir: str, store: flightstore.Store) -> None:
    store.put(bytes(CAPACITY), "all")

    def wait() -> None:
        with flightstore.connect(store_dir) as mine:
            with mine.create(MIB, "late", timeout=None) as builder:
                builder.buffer[:3] = b"abc"

    with start(wait) as process:
        assert store.wait(["late"], timeout=0.3) == ([], ["late"])
        store.delete("all")
        process.result()
    assert bytes(store.get("late"))[:3] == b"abc"


def test_an_object_forgotten_while_the_store_was_full_is_reclaimed(store: flightstore.Store) -> None:
    """The write that was to abort it failed itself."""
    builder = store.create(10 * MIB)
    del builder
    gc.collect()
    with pytest.raises(StoreFull):
        store.put_many([bytes(CAPACITY // 2)] * 3)
    store.put(bytes(CAPACITY), "all of it")
    assert store.get("all of it").nbytes == CAPACITY


def test_a_hole_that_only_a_close_look_finds_is_used(store: flightstore.Store) -> None:
    """Many holes of the same size class are slightly too small, and the one that fits comes last."""
    small, larger = 64 * 16, 64 * 17  # one size class; and no hole contains a whole page
    names = []
    for n in range(40):
        store.put(bytes(larger if n == 39 else small), f"hole{n}")
        store.put(b"x", f"between{n}")
        names.append(f"hole{n}")
    rest = 0
    step = MIB
    while step >= 64:
        try:
            store.put(bytes(step))
            rest += 1
        except StoreFull:
            step //= 2
    assert rest
    store.delete(names)
    store.put(bytes(larger), "close look")
    assert store.get("close look").nbytes == larger


@pytest.mark.parametrize("capacity", [1 << 16, (1 << 16) + 1, 100_000, 4096 * 17, MIB + 4095])
def test_smallest_and_odd_capacities(store_dir: str, capacity: int) -> None:
    with flightstore.connect(store_dir, capacity=capacity) as store:
        rounded = -(-capacity // 4096) * 4096
        assert store.capacity_bytes == rounded
        for _ in range(3):
            with pytest.raises(StoreFull):
                store.put(bytes(rounded + 1))
            store.put(b"\x01" * rounded, "all")
            assert bytes(store.get("all")) == b"\x01" * rounded
            with pytest.raises(StoreFull):
                store.put(b"x")
            store.delete("all")
            gc.collect()
            count = rounded // 4096
            store.put_many({f"page{n}": bytes([n % 251]) * 4096 for n in range(count)})
            with pytest.raises(StoreFull):
                store.put(b"x")
            assert bytes(store.get(f"page{count - 1}")) == bytes([(count - 1) % 251]) * 4096
            assert store.stats().free_bytes == 0
            assert store.delete([f"page{n}" for n in range(count)]) == count
        assert store.recover().freed_objects >= 0
        assert store.fsck() == []
    child(lambda: flightstore.connect(store_dir, capacity=capacity).destroy())


def test_a_capacity_below_the_least_is_refused(store_dir: str) -> None:
    for capacity in (0, 1, (1 << 16) - 1, -1, (1 << 44) + 1):
        with pytest.raises(InvalidArgument, match="a capacity of"):
            flightstore.connect(store_dir, capacity=capacity)
    flightstore.connect(store_dir, capacity=1 << 16).destroy()


SIZES = [
    *(0, 1, 63, 64, 65, 4095, 4096, 4097),
    *(SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1),
    *(MIB - 1, MIB, MIB + 1, CAPACITY // 64 + 1, CAPACITY - 1, CAPACITY),
]


@pytest.mark.parametrize("size", SIZES)
def test_sizes_at_borders(store: flightstore.Store, size: int) -> None:
    content = os.urandom(size)
    name = str(store.put(content))
    found = store.get(flightstore.ObjectID.from_text(name))
    assert found.nbytes == size
    assert bytes(found) == content
    assert store.stats().used_bytes == -(-size // 64) * 64
    store.delete(found.id)
    del found
    gc.collect()
    with store.create(size, "built") as builder:
        assert bytes(builder.buffer) == bytes(size)
        builder.buffer[:] = content
    del builder
    assert bytes(store.get("built")) == content
    store.delete("built")
    gc.collect()
    store.recover()
    assert store.stats().used_bytes == 0
