"""FAIL-2, FAIL-5: processes that grow, punch and reserve at once, close to the capacity."""

from __future__ import annotations

import random
import time

import pytest

import flightstore.store  # all of it now: not in every child
from flightstore.catalog import keys
from flightstore.catalog.environment import scan
from flightstore.catalog.space import FreeSpace
from flightstore.catalog.transaction import extent_of
from flightstore.errors import StoreFull
from flightstore.lifecycle.connection import Connection
from flightstore.memory.allocator import PAGE, UNIT, size_class
from flightstore.testing.arena_simulation import Simulation
from flightstore.testing.faults import Barrier, start

pytestmark = [pytest.mark.req("FAIL-2", "FAIL-5"), pytest.mark.slow]

MIB = 1 << 20
CAPACITY = 24 * MIB
SIZES = (100, 1000, 5000, 16_000, 70_000, 262_144, CAPACITY // 50, CAPACITY // 20)
PROCESSES, SECONDS, LOAD = 3, 6.0, 0.9


def picture(conn: Connection) -> Simulation:
    """The arena as the catalog has it, as one that can tell why a request failed."""
    simulation = Simulation(conn.capacity_bytes, conn.arena.arena_bytes, MIB)
    catalog = conn.catalog
    with catalog.gate:
        txn = catalog.begin()
        try:
            warm = list(FreeSpace(txn, keys.WARM, size_class).ranges())
            cold = list(FreeSpace(txn, keys.COLD, size_class).ranges())
            extents = [extent_of(key, raw)[0] for key, raw in scan(txn, keys.EXTENT)]
        finally:
            txn.abort()
    simulation.warm, simulation.cold = type(simulation.warm)(warm), type(simulation.cold)(cold)
    simulation.extents = {extent.offset: extent.length for extent in extents}
    simulation.used_bytes = sum(simulation.extents.values())
    simulation.backed_bytes = simulation.used_bytes + sum(end - start for start, end in warm)
    return simulation


def churn(path: str, seed: int, together: Barrier, deadline_s: float) -> tuple[int, int]:
    """Put and delete at random, this process's share of the load; returns operations and refusals."""
    rng = random.Random(seed)
    share = LOAD * CAPACITY / PROCESSES
    live: list[tuple[flightstore.ObjectID, int, int]] = []
    used = operations = refused = 0
    with flightstore.connect(path, busy_timeout=60) as store:
        together.wait()
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            operations += 1
            nbytes = rng.choice(SIZES)
            if live and used + nbytes > share:
                one, size, fill = live.pop(rng.randrange(len(live)))
                assert bytes(store.get(one)) == bytes([fill]) * size
                store.delete(one)
                used -= size
                continue
            fill = rng.randrange(256)
            try:
                live.append((store.put(bytes([fill]) * nbytes), nbytes, fill))
                used += nbytes
            except StoreFull as error:
                refused += 1
                assert error.asked_bytes == nbytes  # noqa: PT017 - not raised each time
        for one, size, fill in live:
            assert bytes(store.get(one)) == bytes([fill]) * size
    return operations, refused


def test_growing_punching_and_reserving_at_once(store_dir: str) -> None:
    store = flightstore.connect(store_dir, capacity=CAPACITY)
    with Barrier(PROCESSES) as together:
        workers = [start(churn, store_dir, seed, together, SECONDS) for seed in range(PROCESSES)]
        results = [worker.result(deadline_s=120) for worker in workers]
    conn = store._conn
    store.recover()
    assert store.fsck() == []
    simulation = picture(conn)
    assert simulation.problems() == []
    assert conn.arena.backed_bytes() == store.stats().backed_bytes == simulation.backed_bytes
    assert simulation.backed_bytes <= CAPACITY
    store.close()
    operations, refused = (sum(numbers) for numbers in zip(*results, strict=True))
    print(f"\n{operations:,} operations, {refused} refused; {simulation.fragmentation()}")


def test_one_process_meets_no_false_full(store: flightstore.Store) -> None:
    """Alone, so that the picture at the refusal is the one that the request met (see allocator.py)."""
    rng = random.Random(5)
    live: list[tuple[flightstore.ObjectID, int]] = []
    used, kinds = 0, {"real": 0, "page-bound": 0}
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        nbytes = rng.choice(SIZES)
        if live and used + nbytes > 0.95 * store.capacity_bytes:
            one, size = live.pop(rng.randrange(len(live)))
            store.delete(one)
            used -= size
            continue
        try:
            live.append((store.put(bytes(nbytes)), nbytes))
            used += nbytes
        except StoreFull as error:
            kind = picture(store._conn).why_full(nbytes)
            assert kind in kinds, (kind, str(error))  # noqa: PT017 - not raised each time
            kinds[kind] += 1
    print(f"\nrefused: {kinds}; pages {PAGE}, units {UNIT}; {picture(store._conn).fragmentation()}")
