"""Sessions and the lives of their owners: killed, gone, forked, restarted, several at once."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import pytest

import flightstore as fs
from flightstore.catalog.records import Extent
from flightstore.lifecycle import sealing
from flightstore.lifecycle.connection import Connection
from flightstore.objects.base import Payload
from flightstore.testing.children import ChildDied, child, start
from flightstore.testing.events import Barrier, Gate

ID = fs.ObjectID(b"the same id")


def killed_owner(path: str, *, ephemeral: bool = False) -> int:
    """Begin the session "job", put something, and be killed; returns the session's number."""
    put, never = Gate(), Gate()

    def own() -> NoReturn:
        session = fs.connect(path).session("job", ephemeral=ephemeral)
        session.put(b"first life", "name", object_id=ID)
        _builder = session.create(100_000, "half")
        put.open()
        never.wait()
        raise AssertionError

    with start(own) as owner:
        put.wait()
        with fs.connect(path) as here:
            number = here.session("job").number
        owner.kill()
    return number


@pytest.mark.req("INV-10", "ISO-1", "ISO-2")
def test_an_owner_that_restarts_is_isolated_from_its_earlier_life(store: fs.Store) -> None:
    first = killed_owner(store.path)
    again = store.session("job")
    assert again.number != first
    assert again.list() == []
    again.put(b"second life", "name", object_id=ID)
    assert bytes(again.get("name").value()) == bytes(again.get(ID).value()) == b"second life"
    earlier = store.session(attach=first)
    assert bytes(earlier.get("name").value()) == bytes(earlier.get(ID).value()) == b"first life"
    assert store.session("job", attach=True).number == again.number, "the name leads to the latest"
    assert [info.owner_pid for info in store.sessions()] == [os.getpid()] * 2
    store.recover()
    assert [len(session.list()) for session in (earlier, again)] == [1, 1]
    assert store.stats().pending == 0
    earlier.end()
    store.recover()
    assert store.session("job").number == again.number, "the name is not the earlier one's any more"


@pytest.mark.req("INV-10", "ISO-2", "FAIL-1")
def test_a_session_is_attached_to_after_a_crash(store: fs.Store) -> None:
    number = killed_owner(store.path)
    store.recover()
    (info,) = store.sessions()
    assert (info.state, info.owner_alive, info.objects) == ("active", False, 1)
    session = store.session("job", attach=True)
    assert session.number == number
    assert bytes(session.get(ID).value()) == b"first life"
    session.put(b"more", "more")
    assert store.sessions()[0].owner_alive
    assert child(lambda: names_in(store.path, "job")) == ["more", "name"], "it has an owner again: joined"


def names_in(path: str, session: str) -> list[str | None]:
    with fs.connect(path) as here:
        return [info.name for info in here.session(session).list()]


@pytest.mark.req("ISO-2", "FAIL-1")
def test_an_ephemeral_session_goes_with_its_owner(store: fs.Store) -> None:
    """Killed: nobody sees it from that instant, though nobody has recovered."""
    put, never = Gate(), Gate()

    def own() -> None:
        session = fs.connect(store.path).session("job", ephemeral=True)
        session.put(b"x" * 1_000_000, "name")
        put.open()
        never.wait()

    with start(own) as owner:
        put.wait()
        session = store.session("job")
        assert session.contains("name")
        held = session.get("name")
        owner.kill()
        assert not session.contains("name")
        assert session.list() == []
        with pytest.raises(fs.ObjectNotFound):
            session.get("name")
        with pytest.raises(fs.SessionEnded):
            session.put(b"x")
        with pytest.raises(fs.SessionNotFound):
            store.session("job", attach=True)
        assert bytes(held.value()) == b"x" * 1_000_000
    assert [info.state for info in store.sessions()] == ["ended"]
    report = store.recover()
    assert (report.ended_sessions, report.dead_clients) == (1, 1)
    assert store.sessions() == []
    assert bytes(held.value()) == b"x" * 1_000_000
    del held
    store.recover()
    assert store.stats().used_bytes == 0


@pytest.mark.req("ISO-2")
def test_an_ephemeral_session_changes_hands(store: fs.Store) -> None:
    """Its first owner's end is nothing to it any more; its new owner's is."""
    attached, leave = Gate(), Gate()
    session = store.session("job", ephemeral=True)

    def take_over() -> None:
        with fs.connect(store.path) as there:
            mine = there.session("job", attach=True)
            mine.put(b"x", "name")
            attached.open()
            leave.wait()

    with start(take_over) as owner:
        attached.wait()
        session.close()
        store.recover()
        joined = store.session("job")
        assert joined.contains("name")
        leave.open()
        owner.result()
    assert not joined.contains("name")


@pytest.mark.req("ISO-2")
def test_the_memory_of_a_dead_ephemeral_session_makes_room(store: fs.Store) -> None:
    def own() -> None:
        fs.connect(store.path).session(ephemeral=True).put(bytes(12 << 20))
        os._exit(1)

    with start(own) as owner, pytest.raises(ChildDied):
        owner.result()
    store.put(bytes(15 << 20))
    assert store.sessions() == []


@pytest.mark.req("ISO-2", "API-1")
def test_an_owner_exits_as_programs_do(store: fs.Store) -> None:
    """Without closing anything: ephemeral sessions are over, others stay."""
    program = (
        "import sys, flightstore as fs; store = fs.connect(sys.argv[1])\n"
        "goes, stays = store.session('goes', ephemeral=True), store.session('stays')\n"
        "goes.put(b'x', 'name'); stays.put(b'x', 'name'); held = goes.get('name').value()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program, store.path], check=True)
    assert {info.name: (info.state, info.owner_alive) for info in store.sessions()} == {
        "goes": ("ended", False),
        "stays": ("active", False),
    }
    store.recover()
    assert [info.name for info in store.session("stays", attach=True).list()] == ["name"]
    assert [info.name for info in store.sessions()] == ["stays"]


@pytest.mark.req("ISO-2", "FAIL-4")
def test_a_forked_child_is_no_owner(store: fs.Store) -> None:
    """It goes on with its parent's handle. Closing that, or its end, ends nothing; its parent's does."""
    leave, look = Gate(), Gate()
    session = store.session("job", ephemeral=True)
    session.put(b"parent", "by-parent")

    def live_as_child() -> list[str | None]:
        session.put(b"child", "by-child")
        names = [info.name for info in session.list()]
        session.close()
        return names

    assert child(live_as_child) == ["by-child", "by-parent"]
    assert len(session.list()) == 2
    assert child(lambda: store.session("job").number) == session.number, "joined: its owner lives"

    def parent() -> tuple[str, bool]:
        mine = fs.connect(store.path).session("short", ephemeral=True)
        mine.put(b"x", "name")
        if os.fork() == 0:
            leave.open()
            look.wait()
            try:
                with pytest.raises(fs.ObjectNotFound):
                    mine.get("name")
                store.put(b"", "the child saw it")
            finally:
                os._exit(0)
        leave.wait()
        os._exit(0)

    with start(parent) as dying:
        leave.wait()
        joined = None
        while joined is None or joined.contains("name"):
            # Its owner ends by itself, and there is no event for that.
            joined = joined or store.session("short", attach=None)
        look.open()
        store.get("the child saw it", timeout=30)
        dying.kill()


@pytest.mark.req("ISO-2", "API-14")
def test_waiting_in_a_session_ends_with_it(store: fs.Store) -> None:
    """However it waits, and for however long: nothing can appear any more."""
    session = store.session("job")
    waits: list[Callable[[], object]] = [
        lambda: session.get("never", timeout=None),
        lambda: session.get_many(["never"], timeout=None),
        lambda: session.wait(["never"]),
        lambda: asyncio.run(session.get_async("never")),
        lambda: asyncio.run(session.wait_async(["never"])),
    ]
    errors: list[BaseException] = []
    begun = Barrier(len(waits) + 1)

    def wait(how: Callable[[], object]) -> None:
        begun.wait()
        try:
            how()
        except fs.SessionEnded as error:
            errors.append(error)

    threads = [threading.Thread(target=wait, args=(how,)) for how in waits]
    for thread in threads:
        thread.start()
    begun.wait()
    session.end()
    for thread in threads:
        thread.join(30)
    assert len(errors) == len(waits)


@pytest.mark.req("ISO-1")
def test_many_begin_or_join_one_session_at_once(store: fs.Store) -> None:
    barrier, done = Barrier(4), Gate()

    def enter(number: int) -> int:
        with fs.connect(store.path) as here:
            barrier.wait()
            session = here.session("job", quota="1MiB")
            session.put(b"%d" % number, f"by-{number}")
            done.wait()
            return session.number

    children = [start(enter, number) for number in range(3)]
    barrier.wait()
    session = store.session("job", quota="1MiB")
    for number in range(3):
        session.get(f"by-{number}", timeout=30)
    done.open()
    assert {one.result() for one in children} == {session.number}
    assert len(store.sessions()) == 1


@pytest.mark.req("ISO-2")
def test_several_end_and_reclaim_one_session_at_once(store: fs.Store) -> None:
    session = store.session("job")
    session.put_many([b"x" * 100 for _ in range(500)])
    barrier = Barrier(3)

    def end() -> None:
        with fs.connect(store.path) as here:
            mine = here.session(session.number)
            barrier.wait()
            mine.end()
            here.recover()

    children = [start(end) for _ in range(3)]
    for one in children:
        one.result()
    assert (store.sessions(), store.stats().used_bytes) == ([], 0)


@pytest.mark.req("ISO-2", "INV-9")
def test_readers_of_sessions_that_end_read_right_values(store: fs.Store, churn: Callable[[], None]) -> None:
    """Sessions are begun, filled, read by others, ended and reclaimed, and their memory is written over."""
    stop, read_many = Gate(), [Gate(), Gate()]

    def read(much: Gate) -> None:
        found = 0
        with fs.connect(store.path) as here:
            while not stop.is_open:
                for info in here.sessions():
                    try:
                        obj = here.session(info.id).get("name")
                    except (fs.SessionNotFound, fs.ObjectNotFound):
                        continue
                    assert bytes(obj.value()) == b"%d" % info.id * 20_000
                    found += 1
                    if found == 50:
                        much.open()

    readers = [start(read, gate) for gate in read_many]
    end = time.monotonic() + 60
    for turn in itertools.count():
        late = time.monotonic() > end  # a reader may not be run for a while
        if turn >= 60 and (late or all(gate.is_open for gate in read_many)):
            break
        with store.session("job", ephemeral=bool(turn % 2)) as session:
            session.put(b"%d" % session.number * 20_000, "name")
            if not turn % 2:
                session.end()
        store.put(b"\xff" * 100_000, "over it")
        if turn % 20 == 0:
            churn()
    stop.open()
    for reader in readers:
        reader.result()
    assert all(gate.is_open for gate in read_many)
    store.recover()
    assert store.sessions() == []


@pytest.mark.req("ISO-2", "FAIL-2")
def test_a_put_in_a_session_that_ends_meanwhile(store: fs.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused; the extent it is copying into is not given to another meanwhile."""
    session = store.session("job")
    copy = sealing._copy

    def copy_late(conn: Connection, payload: Payload, extent: Extent) -> None:
        monkeypatch.setattr(sealing, "_copy", copy)
        session.end()
        store.recover()
        ids = [store.put(b"\x01" * 1_000_000) for _ in range(10)]
        copy(conn, payload, extent)
        assert all(bytes(store.get(one).value()) == b"\x01" * 1_000_000 for one in ids)
        store.delete(ids)

    monkeypatch.setattr(sealing, "_copy", copy_late)
    with pytest.raises(fs.SessionEnded):
        session.put(b"\x02" * 1_000_000)
    store.recover()
    assert (store.stats().used_bytes, store.sessions()) == (0, [])
