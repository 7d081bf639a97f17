"""API-2: creates that wait for room are served in the order in which they came; nobody holds others up."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable

import pytest

import flightstore
from flightstore import Store, StoreFull
from flightstore.catalog import keys
from flightstore.catalog.records import decode_record, encode_record
from flightstore.catalog.scopes import WaiterRecord, decode_waiter
from flightstore.catalog.transaction import decode_counters
from flightstore.memory import kernel
from flightstore.testing.children import Child, start
from flightstore.testing.crashevents import leave_ticket
from flightstore.testing.events import Barrier, wait_until
from flightstore.testing.faults import stopped

pytestmark = pytest.mark.req("API-2")

MIB = 1 << 20


def waiters(store: Store) -> dict[int, WaiterRecord]:
    """Tickets, the first one first."""
    found = store._conn.catalog.items(keys.WAITER)
    return {int.from_bytes(key[1:], "big"): decode_waiter(raw) for key, raw in found}


def waiting(store: Store) -> int:
    raw = store._conn.catalog.get(keys.COUNTERS)
    assert raw is not None
    return decode_counters(raw).waiting


def wait_for_waiters(store: Store, count: int) -> None:
    wait_until(lambda: waiting(store) == count, what=f"{count} creates wait")


@pytest.fixture
def queued(store: Store) -> Callable[[int, str], Child[None]]:
    """Begins a put of so many bytes that waits for room for ever, and returns once it is in the queue."""
    store.put(bytes(12 * MIB), "in the way")

    def begin(nbytes: int, name: str) -> Child[None]:
        before = waiting(store)
        process = start(lambda: store.put(bytes(nbytes), name, timeout=None) and None)
        wait_for_waiters(store, before + 1)
        return process

    return begin


Queued = Callable[[int, str], "Child[None]"]


def in_order_of_creation(store: Store, pattern: str) -> list[str | None]:
    return [info.name for info in sorted(store.list(pattern), key=lambda info: info.created_ns)]


def test_a_small_create_does_not_pass_a_large_one(store: Store, queued: Queued) -> None:
    with queued(8 * MIB, "w/large") as large, queued(MIB, "w/small") as small:
        with queued(3 * MIB, "w/medium") as medium:
            store.put(bytes(MIB), "does not wait", timeout=0)  # takes what is free at this moment
            store.delete("does not wait")
            store.recover()
            assert waiting(store) == 3, "small and medium would fit, and wait"
            store.delete("in the way")
            for process in (large, small, medium):
                process.result()
    assert in_order_of_creation(store, "w/*") == ["w/large", "w/small", "w/medium"]
    assert waiting(store) == 0


def test_a_create_that_comes_later_queues_at_once(store: Store, queued: Queued) -> None:
    """Not even its first attempt takes what an earlier one waits for."""
    with queued(8 * MIB, "large"):
        with pytest.raises(StoreFull, match="1 create waits ahead of it") as caught:
            store.put(b"small", "small", timeout=0.1)
        assert caught.value.waiting_ahead == 1
        with pytest.raises(StoreFull, match="1 create waits ahead of it"):
            store.put(bytes(7 * MIB), timeout=0)
        assert waiting(store) == 1
        with queued(MIB, "second"), pytest.raises(StoreFull, match="2 creates wait ahead of it"):
            store.create(100, "third", timeout=0.1)
    store.recover()
    assert waiting(store) == 0


@pytest.mark.req("FAIL-2", "FAIL-3")
def test_a_killed_head_is_skipped(store: Store, queued: Queued) -> None:
    with queued(8 * MIB, "large") as large, queued(MIB, "small") as small:
        large.kill()
        small.result()
    assert store.contains("small")
    assert waiting(store) == 0, "its ticket was removed by who came upon it"
    store.recover()


@pytest.mark.req("FAIL-2", "FAIL-3")
def test_tickets_of_the_dead_are_left_overs(store: Store, queued: Queued) -> None:
    with queued(8 * MIB, "large") as large:
        large.kill()
    findings = [finding for finding in store.fsck() if "ticket" in finding.message]
    assert [finding.recoverable for finding in findings] == [True]
    leave_ticket(store)
    store.recover()
    assert store.fsck() == []
    assert waiting(store) == 0


def test_a_stopped_head_is_passed_over_and_served_later(store: Store, queued: Queued) -> None:
    with queued(8 * MIB, "large") as large, queued(MIB, "small") as small:
        began = time.monotonic()
        with stopped(large.pid):
            small.result()
            assert time.monotonic() - began > 0.5, "it keeps its turn for a second"
            assert len(waiters(store)) == 1, "and its ticket"
            # Its turn comes after a second: it may be gone before anybody has seen it in the queue.
            with start(lambda: store.put(bytes(2 * MIB), "another", timeout=None) and None) as another:
                another.result()
        store.delete("in the way")
        large.result()
    assert in_order_of_creation(store, "[sal]*") == ["small", "another", "large"]
    assert waiting(store) == 0


def test_an_interrupted_head_gives_its_place_up(store: Store, queued: Queued) -> None:
    def interrupted() -> str:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            store.put(bytes(8 * MIB), "large", timeout=None)
        except KeyboardInterrupt:
            return "interrupted"
        return "stored"

    with start(interrupted) as large:
        wait_for_waiters(store, 1)
        with queued(MIB, "small") as small:
            os.kill(large.pid, signal.SIGINT)
            assert large.result() == "interrupted"
            small.result()
    assert waiting(store) == 0


def test_who_times_out_gives_its_place_up(store: Store, queued: Queued) -> None:
    # A second time where somebody was not run for so long.
    assert any(both_wait_until_one_times_out(store, timeout) for timeout in (0.5, 2, 8, 32))


def both_wait_until_one_times_out(store: Store, timeout: float) -> bool:
    """Two wait, the first in vain; whether the second came into the queue while the first was there."""

    def wait(nbytes: int, name: str, timeout: float | None) -> Child[None]:
        process = start(lambda: store.put(bytes(nbytes), name, timeout=timeout) and None)
        wait_until(lambda: kernel.has_ended(process.pid) or process.pid in queue(), what=f"{name} waits")
        return process

    def queue() -> set[int]:
        return {record.pid for record in waiters(store).values()}

    with wait(8 * MIB, "large", timeout) as large, wait(MIB, "small", None) as small:
        both = {large.pid, small.pid} <= queue()
        with pytest.raises(StoreFull) as caught:
            large.result()
        assert caught.value.waiting_ahead == 0
        small.result()
    assert not store.contains("large")
    assert waiting(store) == 0
    return both


def test_a_ticket_that_nobody_took_back_lapses(store: Store, queued: Queued) -> None:
    """Its owner lives, and had no chance to remove it: its time is over, and it holds nobody up."""

    def work(tx: object) -> None:
        record = WaiterRecord(store._conn.client, os.getpid(), MIB, 0, 1)
        tx.txn.put(keys.waiter_key(tx.counters.next_ticket), encode_record(record))  # type: ignore[attr-defined]
        tx.counters.next_ticket += 1  # type: ignore[attr-defined]
        tx.counters.waiting += 1  # type: ignore[attr-defined]

    store._conn.write(work)
    with start(lambda: store.put(bytes(MIB), "small", timeout=20) and None) as process:
        process.result()
    assert waiting(store) == 0


def test_what_fails_for_another_reason_gives_its_place_up(store: Store, queued: Queued) -> None:
    """The id is taken while it waits."""
    chosen = flightstore.ObjectID(b"chosen")

    def put() -> str:
        try:
            store.put(bytes(8 * MIB), object_id=chosen, timeout=None)
        except flightstore.ObjectExists:
            return "taken"
        return "stored"

    with start(put) as process:
        wait_for_waiters(store, 1)
        store.put(b"", object_id=chosen)
        assert process.result() == "taken"
    assert waiting(store) == 0


@pytest.mark.req("FAIL-4")
def test_a_fork_while_a_thread_waits(store: Store, queued: Queued) -> None:
    """The child has no place in the queue; the parent keeps its own."""
    thread = threading.Thread(target=lambda: store.put(bytes(8 * MIB), "w/parent", timeout=None))
    thread.start()
    wait_for_waiters(store, 1)
    with queued(MIB, "w/child") as child:
        assert [record.pid for record in waiters(store).values()] == [os.getpid(), child.pid]
        store.delete("in the way")
        child.result()
        thread.join(60)
    assert in_order_of_creation(store, "w/*") == ["w/parent", "w/child"]


def test_threads_of_one_process_queue_too(store: Store, queued: Queued) -> None:
    def put(nbytes: int, name: str) -> threading.Thread:
        before = waiting(store)
        thread = threading.Thread(target=lambda: store.put(bytes(nbytes), name, timeout=None))
        thread.start()
        wait_for_waiters(store, before + 1)
        return thread

    threads = [put(8 * MIB, "w/1"), put(MIB, "w/2"), put(2 * MIB, "w/3")]
    store.delete("in the way")
    for thread in threads:
        thread.join(60)
    assert in_order_of_creation(store, "w/*") == ["w/1", "w/2", "w/3"]


@pytest.mark.slow
def test_many_of_all_sizes_are_served_in_order(store: Store) -> None:
    # Once more where this process was not run while the others waited, and saw nothing of it.
    assert any(seen_waiting(store, lap) > 5 for lap in range(10)), "hardly anybody had to wait"


def seen_waiting(store: Store, lap: int) -> int:
    """Eight processes put more than fits, each deleting what it put: all are served, as their tickets say.

    How many were seen to wait.
    """
    rounds, together = 8, Barrier(9)

    def work(seed: int) -> None:
        chance = random.Random(8 * lap + seed)
        together.wait()
        for number in range(rounds):
            nbytes = chance.randrange(1, 6 * MIB // 8) * 8 + seed  # tells whose it is
            store.put(bytes(nbytes), f"{seed}/{number}", timeout=60)
            store.delete(f"{seed}/{number}")

    subscription = store.subscribe(kinds=["added"])
    processes = [start(work, seed) for seed in range(8)]
    seen: dict[int, int] = {}
    served: dict[int, int] = {}
    try:
        together.wait()
        while not all(kernel.has_ended(process.pid) for process in processes):
            seen.update((ticket, record.nbytes) for ticket, record in waiters(store).items())
            for raw in (*store._conn.catalog.items(keys.PENDING), *store._conn.catalog.items(keys.OBJECT)):
                record = decode_record(raw[1])
                served[record.nbytes] = record.serial
            time.sleep(0.001)
        for process in processes:
            process.result()
    finally:
        for process in processes:
            process.kill()
    assert len(list(iter(subscription.poll, None))) == 8 * rounds
    order = [served[nbytes] for _, nbytes in sorted(seen.items()) if nbytes in served]
    assert order == sorted(order)
    assert waiting(store) == 0
    return len(order)
