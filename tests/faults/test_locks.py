"""The writers' lock when its holder stops or dies, and whether it is shared fairly. Readers never notice."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import time

import pytest

import flightstore.store  # all of it now: not in every child
from flightstore.errors import StoreBusy, StoreFull
from flightstore.lifecycle.doctor_store import examine
from flightstore.memory.kernel import process_state
from flightstore.testing.faults import Barrier, Gate, child, start, wait_until

pytestmark = pytest.mark.req("FAIL-2")

VALUE = bytes(range(256)) * 4


def stop_in_a_write(path: str) -> None:
    """Stop in the middle of a write transaction, the lock held; when resumed, write on."""
    with flightstore.connect(path) as store:
        store.put(VALUE, "written before")
        store._conn.write(lambda tx: os.kill(os.getpid(), signal.SIGSTOP))
        store.put(VALUE, "resumed")


def is_stopped(pid: int) -> bool:
    return process_state(pid) == "T"


def test_a_stopped_writer_is_named_and_reads_go_on(store_dir: str, store: flightstore.Store) -> None:
    store.put(VALUE, "before")
    with start(stop_in_a_write, store_dir) as process:
        wait_until(lambda: is_stopped(process.pid), what="the writer stops")

        def others() -> None:
            with flightstore.connect(store_dir, busy_timeout=0.4) as mine:
                begun = time.monotonic()
                with pytest.raises(StoreBusy) as caught:
                    mine.put(VALUE, "refused")
                assert 0.4 <= time.monotonic() - begun < 60
                assert caught.value.holder_pid == process.pid
                assert f"process {process.pid} " in str(caught.value)
                assert "(stopped)" in str(caught.value)
                assert "for more than 0.4 s" in str(caught.value)
                assert f"kill -CONT {process.pid}" in caught.value.hint
                with pytest.raises(StoreBusy):
                    mine.delete("before")
                assert bytes(mine.get("before")) == VALUE
                assert mine.contains("before")
                assert not mine.contains("refused")
                assert mine.stats().objects == 2

        child(others)
        problems = [found for found in examine(store_dir)[1] if found.check == "writers' lock"]
        assert [found.severity for found in problems] == ["problem"]
        assert str(process.pid) in problems[0].message
        os.kill(process.pid, signal.SIGCONT)
        process.result()
    assert bytes(store.get("resumed")) == VALUE
    store.put(VALUE, "after")


def test_a_writer_killed_with_the_lock_passes_it_on(store_dir: str, store: flightstore.Store) -> None:
    for n in range(5):
        with start(stop_in_a_write, store_dir) as process:
            wait_until(lambda pid=process.pid: is_stopped(pid), what="the writer stops")
            process.kill()
        begun = time.monotonic()
        store.put(VALUE, f"after {n}")
        assert time.monotonic() - begun < 60  # far below busy_timeout: nobody waited for the dead
    assert {finding.recoverable for finding in store.fsck()} == {True}  # the dead one's client file
    assert store.recover().dead_clients == 5
    assert store.fsck() == []
    assert len(store.list()) == 6


def test_waiters_get_the_lock_of_a_writer_that_dies_while_they_wait(
    store_dir: str, store: flightstore.Store
) -> None:
    with start(stop_in_a_write, store_dir) as process, Gate("waiting") as waiting:
        wait_until(lambda: is_stopped(process.pid), what="the writer stops")

        def wait() -> None:
            with flightstore.connect(store_dir, busy_timeout=60) as mine:
                waiting.open()
                mine.put(VALUE, "waited")

        with start(wait) as waiter:
            waiting.wait()
            process.kill()
            waiter.result()
    assert bytes(store.get("waited")) == VALUE


def test_no_writer_starves(store_dir: str, store: flightstore.Store) -> None:
    """Four writers in a loop, the fastest for thousands of puts; the slowest did a twentieth of that.

    Whoever gives the lock back may take it again before a waiter has woken up, so a short run shows nothing.
    A writer that the machine gave no processor for a while has time to catch up; one that the lock starves
    falls behind further and further.
    """
    target, writers = 4000, 4
    counts = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")[:writers]
    with Gate("enough") as enough, Barrier(writers) as together:

        def write(number: int) -> None:
            with flightstore.connect(store_dir, busy_timeout=60) as mine:
                together.wait()
                while not enough.is_open:
                    mine.put(VALUE, f"writer {number}")
                    counts[number] += 1

        def is_shared() -> bool:
            done = counts.tolist()
            return max(done) >= target and min(done) >= max(done) // 20

        with contextlib.ExitStack() as stack:
            processes = [stack.enter_context(start(write, number)) for number in range(writers)]
            with contextlib.suppress(TimeoutError):
                wait_until(is_shared, what="the slowest does its part", timeout_s=120)
            done = counts.tolist()
            enough.open()
            for process in processes:
                process.result()
    assert max(done) >= target
    assert min(done) >= max(done) // 20, done


def test_a_process_stopped_while_it_grows_holds_nobody_up_for_ever(
    store_dir: str, store: flightstore.Store
) -> None:
    """What it has in transit may become room at any moment, but not for ever."""

    def stop_while_growing() -> None:
        with flightstore.connect(store_dir) as mine:
            arena = mine._conn.arena
            reserve = arena.reserve

            def stop(offset: int, nbytes: int) -> None:
                os.kill(os.getpid(), signal.SIGSTOP)
                reserve(offset, nbytes)

            arena.reserve = stop  # type: ignore[method-assign]
            mine.put(bytes(12 << 20), "grown")

    def others() -> None:
        with flightstore.connect(store_dir, busy_timeout=0.5) as mine:
            with pytest.raises(StoreFull) as caught:
                mine.put(bytes(8 << 20))
            assert caught.value.asked_bytes == 8 << 20
            mine.put(bytes(1 << 20), "fits beside")

    with start(stop_while_growing) as process:
        wait_until(lambda: is_stopped(process.pid), what="the process stops")
        child(others)
        os.kill(process.pid, signal.SIGCONT)
        process.result()
    assert store.get("grown").nbytes == 12 << 20


def test_a_growth_cut_off_at_any_point_is_returned(store: flightstore.Store) -> None:
    """An interrupt between two instructions of making room: this process lives on, and lost nothing."""
    conn = store._conn
    arena = conn.arena
    reserve, punch = arena.reserve, arena.punch

    def interrupt(*args: int) -> None:
        raise KeyboardInterrupt

    arena.reserve, arena.punch = interrupt, interrupt  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            store.put(bytes(10 << 20))
    finally:
        arena.reserve, arena.punch = reserve, punch  # type: ignore[method-assign]
    assert conn.write(lambda tx: len(tx.transits())) == 1
    store.put(bytes(16 << 20), "all of it")  # needs what was in transit
    assert store.get("all of it").nbytes == 16 << 20
    assert store.fsck() == []
