"""Quotas: what counts against a session, what it may take, and that nobody else notices."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.testing.children import start
from flightstore.testing.events import Gate, wait_until

pytestmark = pytest.mark.req("ISO-3")

MIB = 1 << 20


def used(session: fs.Session) -> int:
    return next(info.used_bytes for info in session.sessions() if info.id == session.number)


def test_to_the_byte(store: fs.Store) -> None:
    """Extents are multiples of 64 bytes; an empty payload has none."""
    session = store.session(quota=64 * 10)
    session.put(b"")
    for number in range(10):
        session.put(b"x" * (64 - number), f"{number}")
    with pytest.raises(fs.QuotaExceeded, match="has a quota of 640 bytes: 640 are used, 64 more") as caught:
        session.put(b"x")
    error = caught.value
    assert (error.session, error.quota_bytes) == (session.number, 640)
    assert (error.used_bytes, error.asked_bytes, error.capacity_bytes) == (640, 64, store.capacity_bytes)
    session.put(b"")
    session.delete("3")
    session.put(b"x")
    assert used(session) == 640


def write_small(session: fs.Session) -> None:
    session.put(b"x" * 60_000)


def write_large(session: fs.Session) -> None:
    session.put(b"x" * 600_000)


def write_many(session: fs.Session) -> None:
    session.put_many([b"x" * 40_000, b"x" * 400_000, b"x" * 40_000])


def create(session: fs.Session) -> None:
    with session.create(300_000) as blob:
        blob.buffer[:] = bytes(300_000)


def create_table(session: fs.Session) -> None:
    schema = pa.schema([("n", pa.int64()), ("s", pa.string())])
    with session.create_table(schema, 20_000) as builder:
        builder["n"][:] = np.arange(20_000)
        builder["s"] = ["some text"] * 20_000


def add_column(session: fs.Session) -> None:
    if not session.contains("base"):
        session.put(pa.table({"x": np.arange(10_000)}), "base")
    session.with_columns("base", {"y": np.arange(10_000)})


@pytest.mark.parametrize("write", [write_small, write_large, write_many, create, create_table, add_column])
def test_every_way_of_making_objects_counts(store: fs.Store, write: Callable[[fs.Session], None]) -> None:
    session = store.session(quota=2 * MIB)
    store.put(bytes(MIB), "of the store")
    done = 0
    with contextlib.suppress(fs.QuotaExceeded):
        while True:
            write(session)
            done += 1
    assert done >= 3
    assert used(session) == store.stats().used_bytes - MIB <= 2 * MIB
    objects = [info.id for info in session.list()]
    store.recover()
    assert store.stats().pending == 0
    assert [info.id for info in session.list()] == objects, "what was refused left nothing"
    assert session.delete(objects) == len(objects)
    write(session)


def test_what_is_never_to_be_had_is_refused_at_once(store: fs.Store) -> None:
    session = store.session(quota=MIB)
    with pytest.raises(fs.QuotaExceeded):
        session.put(bytes(MIB + 1), timeout=None)
    with pytest.raises(fs.StoreFull):
        session.create_now(MIB + 1)
    with session.create_now(MIB) as blob:
        blob.buffer[:] = bytes(MIB)


def test_deleted_objects_count_until_their_last_reader_is_done(store: fs.Store) -> None:
    session = store.session(quota=MIB)
    session.put(bytes(600_000), "a")
    held = session.get("a")
    session.delete("a")
    with pytest.raises(fs.QuotaExceeded):
        session.put(bytes(600_000), "b")
    del held
    session.put(bytes(600_000), "b")


def test_a_put_waits_for_its_session_and_is_woken(store: fs.Store) -> None:
    session = store.session("job", quota=MIB)
    session.put(bytes(MIB), "full")
    refused, deleting = Gate(), Gate()

    def wait_for_room() -> None:
        with fs.connect(store.path) as there:
            mine = there.session("job")
            with pytest.raises(fs.QuotaExceeded):
                mine.put(bytes(MIB), "next", timeout=0.05)
            refused.open()
            deleting.wait()
            mine.put(bytes(MIB), "next", timeout=60)

    with start(wait_for_room) as waiting:
        refused.wait()
        store.put(bytes(MIB), "another's")
        deleting.open()
        session.delete("full")
        waiting.result()
    assert [info.name for info in session.list()] == ["next"]


def test_a_put_waits_for_a_reader(store: fs.Store) -> None:
    session = store.session(quota=MIB)
    session.put(bytes(MIB), "full")
    held = [session.get("full")]
    session.delete("full")
    waiting = threading.Thread(target=lambda: session.put(bytes(MIB), "next", timeout=60))
    waiting.start()
    wait_until(lambda: store.stats().dying == 1, what="it is dying")
    held.clear()
    waiting.join(60)
    assert session.contains("next")


def test_what_a_dead_client_was_making_makes_room(store: fs.Store) -> None:
    session = store.session("job", quota=MIB)
    ready, never = Gate(), Gate()

    def build() -> None:
        _builder = fs.connect(store.path).session("job").create(MIB)
        ready.open()
        never.wait()

    with start(build) as building:
        ready.wait()
        with pytest.raises(fs.QuotaExceeded):
            session.put(b"x")
        building.kill()
    session.put(b"x")


def test_a_greedy_session_does_not_touch_the_others(store: fs.Store) -> None:
    """One session asks for all it can get, without end; another and the store put as if it were not there."""
    stop, started = Gate(), Gate()

    def be_greedy() -> int:
        with fs.connect(store.path) as there:
            session = there.session("greedy", quota=4 * MIB)
            asked = 0
            while not stop.is_open:
                asked += 1
                try:
                    session.put(bytes(300_000))
                except fs.QuotaExceeded:
                    started.open()
            return asked

    modest = store.session("modest")
    with start(be_greedy) as greedy:
        started.wait()
        for number in range(30):
            modest.put(bytes(200_000), f"{number}")
            store.put(bytes(100_000), f"{number}")
        stop.open()
        assert greedy.result() > 13
    assert len(modest.list()) == len(store.list()) == 30
    assert used(store.session("greedy", attach=True)) <= 4 * MIB


def test_a_quota_ends_with_the_last_byte_of_its_session(store: fs.Store) -> None:
    session = store.session(quota=MIB)
    session.put(pa.table({"x": np.arange(1000)}), "base")
    shared = store.with_columns(session.get("base"), {"y": np.arange(1000)}, "made")
    session.end()
    store.recover()
    assert store.fsck() == []
    assert shared.to_arrow().num_rows == 1000
    del shared
    store.delete("made")
    store.recover()
    assert store.stats().used_bytes == 0
    assert store._conn.catalog.items(b"Q") == []


def test_in_a_full_store_a_session_at_its_quota_is_told_of_the_quota(store: fs.Store) -> None:
    """It is refused before it asks for room: nobody else has to give anything up for it."""
    session = store.session(quota=MIB)
    session.put(bytes(600_000))
    with contextlib.suppress(fs.StoreFull):
        while True:
            store.put(bytes(300_000))
    deleted = [info.id for info in store.list()][:2]
    store.delete(deleted)
    before = store.stats()
    with pytest.raises(fs.QuotaExceeded):
        session.put(bytes(500_000))
    assert store.stats().backed_bytes == before.backed_bytes
    assert store.stats().objects == before.objects
    session.put(bytes(400_000))
