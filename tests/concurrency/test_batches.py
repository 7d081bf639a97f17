"""Batches across processes: ended elsewhere, owners that die, tokens, forks, races."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import flightstore
from flightstore import Batch, Store
from flightstore.testing.children import ChildDied, child, spawned, start
from flightstore.testing.events import Barrier, Gate


def names(store: Store) -> list[str | None]:
    return [info.name for info in store.list()]


@pytest.mark.req("BAT-3")
def test_begun_here_and_ended_in_another_process(store: Store) -> None:
    batch = store.new_batch()
    with batch.activate():
        store.put(b"x", "x")

    def end() -> tuple[bool, bool]:
        there = store.contains("x")
        store.end_batch(batch.token)
        return there, store.contains("x")

    assert child(end) == (True, False)
    assert not store.contains("x")
    with pytest.raises(flightstore.BatchEnded):
        batch.end()


@pytest.mark.req("BAT-3")
def test_of_eight_that_end_it_one_succeeds(store: Store) -> None:
    for _ in range(3):
        batch = store.new_batch()
        barrier = Barrier(8)

        def end(batch: Batch = batch, barrier: Barrier = barrier) -> int:
            barrier.wait()
            try:
                batch.end()
            except flightstore.BatchEnded:
                return 0
            return 1

        enders = [start(end) for _ in range(8)]
        assert sum(ender.result() for ender in enders) == 1


def own_and_die(path: Path, begun: Gate, last: Gate) -> None:
    store = flightstore.connect(path)
    store.new_batch("idle")
    with store.batch("victim"):
        store.put(np.arange(50_000), "array")
        store.put(b"x", "x")
        begun.open()
        last.wait()


@pytest.mark.req("BAT-6")
def test_the_death_of_its_owner_ends_it(store: Store, store_dir: Path) -> None:
    begun, last = Gate(), Gate()
    with start(own_and_die, store_dir, begun, last) as owner:
        begun.wait()
        held = store.get("array")
        assert [info.owner_pids for info in store.batches()] == [(owner.pid,)] * 2
        os.kill(owner.pid, signal.SIGKILL)
        owner.kill()
    assert store.list() == []
    assert not store.contains("x")
    assert store.wait(["x"], timeout=0) == ([], ["x"])
    assert [info.state for info in store.batches()] == ["ended"] * 2
    assert any("nobody is left" in finding.message for finding in store.fsck())
    store.recover()
    assert store.batches() == []
    assert np.array_equal(held.to_numpy(), np.arange(50_000))
    assert store.stats().used_bytes == held.nbytes
    del held
    store.recover()
    assert store.stats().used_bytes == 0


@pytest.mark.req("BAT-6")
def test_memory_of_a_dead_owner_serves_the_next_create(store: Store, store_dir: Path) -> None:
    def fill() -> None:
        store.new_batch().__enter__()
        store.put(bytes(12 << 20), "large")
        os.kill(os.getpid(), signal.SIGKILL)

    with start(fill) as owner, pytest.raises(ChildDied):
        owner.result()
    store.put(bytes(12 << 20), "next")
    assert names(store) == ["next"]


@pytest.mark.req("BAT-6")
def test_a_clean_exit_of_its_owner_ends_it(store: Store, store_dir: Path) -> None:
    def begin() -> None:
        with flightstore.connect(store_dir) as mine:
            mine.new_batch().__enter__()
            mine.put(b"x", "x")

    child(begin)
    assert store.list() == []


@pytest.mark.req("BAT-5", "FAIL-4")
def test_a_forked_child_ends_nothing_and_owns_nothing(store: Store) -> None:
    def leave_the_block() -> bool:
        store.put(b"child", "child")
        outer.__exit__(None, None, None)
        with outer:
            store.put(b"again", "again")
        outer.leave()
        return store.current_batch() is None

    with store.batch() as outer:
        assert child(leave_the_block)
        assert outer.status().state == "active"
        assert outer.status().owner_pids == (os.getpid(),)
        assert names(store) == ["again", "child"]
    assert store.list() == []


def join_and_outlive(path: Path, token: str, joined: Gate, done: Gate) -> None:
    store = flightstore.connect(path)
    batch = store.join_batch(token)
    with batch:
        joined.open()
        done.wait()
        store.put(b"late", "late")


@pytest.mark.req("BAT-5", "BAT-6")
def test_a_batch_outlives_the_process_that_began_it(store: Store, store_dir: Path) -> None:
    """It goes on with whoever joined, and ends when the last leaves."""
    joined, done = Gate(), Gate()
    reader, writer = os.pipe()

    def begin() -> None:
        batch = store.new_batch()
        with batch.activate():
            store.put(b"early", "early")
        os.write(writer, batch.token.encode())
        joined.wait()
        os.kill(os.getpid(), signal.SIGKILL)

    with start(begin) as beginner:
        token = os.read(reader, 100).decode()
        with start(join_and_outlive, store_dir, token, joined, done) as joiner:
            with pytest.raises(ChildDied):
                beginner.result()
            assert names(store) == ["early"]
            store.recover()
            assert [info.owner_pids for info in store.batches()] == [(joiner.pid,)]
            done.open()
            joiner.result()
    assert store.list() == []
    os.close(reader)
    os.close(writer)


@pytest.mark.req("BAT-5")
def test_joining_twice_and_leaving_once(store: Store) -> None:
    """Two parts of one process may join and leave without knowing of each other."""
    batch = store.new_batch()
    with batch.activate():
        store.put(b"x", "x")
    first, second = store.join_batch(batch.token), pickle.loads(pickle.dumps(batch))
    with first, second:
        assert second.name == batch.name
    assert batch.status().state == "active"
    store.join_batch(batch)
    batch.leave()
    assert store.contains("x")
    batch.leave()
    assert not store.contains("x")


def read_token(token: str, path: str) -> bytes:
    with flightstore.connect(path) as store, store.join_batch(token):
        store.put(b"there", "there")
        return bytes(store.get("here").value())


@pytest.mark.req("BAT-5")
def test_a_token_in_a_fresh_interpreter(store: Store) -> None:
    with store.batch() as batch:
        store.put(b"here", "here")
        assert spawned(read_token, batch.token, store.path) == b"here"
        assert names(store) == ["here", "there"]
    with pytest.raises(flightstore.BatchEnded):
        spawned(read_token, batch.token, store.path)
    assert store.list() == []


@pytest.mark.req("BAT-7")
def test_two_processes_whose_batches_use_each_others_objects(store: Store) -> None:
    """Interleaved, in both directions at once: nobody waits for nobody, no value changes."""
    rounds = 40
    barrier = Barrier(2)

    def job(mine: str, other: str) -> int:
        seen = 0
        barrier.wait()
        for number in range(rounds):
            with store.batch(f"{mine} {number}"):
                store.put({"n": [number] * 500}, f"{mine} plain")
                store.put(pa.table({"n": np.full(3_000, number)}), f"{mine} table")
                try:
                    theirs = store.get(f"{other} table")
                    made = store.with_columns(theirs, {"mine": np.full(3_000, -number)}, f"{mine} made")
                except flightstore.ObjectNotFound:
                    continue
                column = made.to_arrow()["n"].to_numpy()
                assert column.min() == column.max()
                seen += 1
        return seen

    with start(job, "a", "b") as one, start(job, "b", "a") as two:
        one.result()
        two.result()
    store.recover()
    assert (store.list(), store.stats().used_bytes) == ([], 0)


@pytest.mark.req("BAT-6", "BAT-7")
def test_readers_never_see_memory_that_was_reclaimed(store: Store) -> None:
    """Readers get names of batches that end all the time, while puts reuse the memory at once."""
    stop, found_some = Gate(), [Gate(), Gate()]

    def read(some: Gate) -> int:
        found = 0
        while not stop.is_open:
            try:
                array = store.get("array").to_numpy()
            except flightstore.ObjectNotFound:
                continue
            first = array[0]
            assert (array == first).all()
            found += 1
            some.open()
        return found

    with start(read, found_some[0]) as one, start(read, found_some[1]) as two:
        end = time.monotonic() + 60
        for number in itertools.count():
            late = time.monotonic() > end  # a reader may not be run for a while
            if number >= 300 and (late or all(gate.is_open for gate in found_some)):
                break
            with store.batch() as batch:
                store.put(np.full(4_000, number), "array")
                store.put(np.full(4_000, -number), "other")
                if number % 2:  # visible until the moment in which it goes
                    batch.keep("array")
                    batch.delete()
        stop.open()
        assert min(one.result(), two.result()) > 0
    store.recover()
    assert store.stats().used_bytes == 0
