"""INV-10: after the owner of a session restarts, the earlier session's ids are isolated from the new one,
which may re-attach to the earlier one.
"""

from __future__ import annotations

import pytest

import flightstore as fs
from flightstore.testing.children import start
from flightstore.testing.events import Gate

pytestmark = pytest.mark.req("INV-10")

ID = fs.ObjectID(b"the same id")


def owner(store: fs.Store, put: bytes, ready: Gate) -> None:
    """What the owner's process does each time it is started, until it is killed."""
    session = store.session("job")
    session.put(put, "name", object_id=ID)
    ready.open()
    Gate("never").wait()


def crashed(store: fs.Store, put: bytes) -> int:
    """Start the owner and kill it; returns the number of its session."""
    with Gate("ready") as ready, start(owner, store, put, ready) as process:
        ready.wait()
        number = store.sessions()[-1].id
        process.kill()
    assert not store.sessions()[-1].owner_alive
    return number


def value(store: fs.Store, ref: fs.Ref = ID) -> bytes:
    return bytes(store.get(ref).value())


def test_the_new_one_sees_nothing_of_the_earlier(store: fs.Store) -> None:
    earlier = crashed(store, b"earlier")
    session = store.session("job")
    assert session.number != earlier
    for ref in ("name", ID):
        assert not session.contains(ref)
        assert session.wait([ref], timeout=0)[0] == []
        assert session.delete(ref) == session.delete(ref, if_unused=True) == session.pin(ref) == 0
        assert session.free(ref) == 0
        for read in (session.get, session.stat, lambda ref: session.get_many([ref])):
            with pytest.raises(fs.ObjectNotFound):
                read(ref)
    assert session.list() == session.batches() == []
    assert list(iter(session.subscribe(since=0).poll, None)) == []


def test_what_the_new_one_does_leaves_the_earlier_alone(store: fs.Store) -> None:
    earlier = crashed(store, b"earlier")
    with store.session("job") as session:
        session.put(b"new", "name", object_id=ID)
        assert value(session) == value(session, "name") == b"new"
        with pytest.raises(fs.ObjectExists):
            session.put(b"newer", object_id=ID)
        before = store.session(earlier)
        assert value(before) == value(before, "name") == b"earlier"
        session.delete(ID)
        session.end()
        store.recover()
        assert value(before) == value(before, "name") == b"earlier"


@pytest.mark.parametrize("how", ["by number", "by name"])
def test_it_may_attach_to_the_earlier_one(store: fs.Store, how: str) -> None:
    """Attaching makes it the owner; from then on the name leads there."""
    earlier = crashed(store, b"earlier")
    session = store.session("job", attach=True) if how == "by name" else store.session(attach=earlier)
    assert session.number == earlier
    assert value(session) == value(session, "name") == b"earlier"
    session.put(b"added", "name")
    assert value(session, "name") == b"added"
    assert store.session("job").number == earlier, "its owner lives again"


def test_each_restart_is_one_more(store: fs.Store) -> None:
    """Every incarnation has ids of its own, and all of them can be attached to."""
    numbers = [crashed(store, b"%d" % restart) for restart in range(3)]
    assert len(set(numbers)) == 3
    store.recover()
    assert [value(store.session(attach=number)) for number in numbers] == [b"0", b"1", b"2"]


def test_an_ephemeral_one_is_gone_with_its_owner(store: fs.Store) -> None:
    """It leaves nothing to attach to, and nothing to see for those who had joined it."""
    with Gate("ready") as ready:

        def begins() -> None:
            session = store.session("job", ephemeral=True)
            session.put(b"earlier", "name", object_id=ID)
            ready.open()
            Gate("never").wait()

        with start(begins) as process:
            ready.wait()
            joined = store.session("job")
            assert value(joined) == b"earlier"
            process.kill()
    assert not joined.contains(ID)
    with pytest.raises(fs.SessionNotFound):
        store.session(attach=joined.number)
    assert store.session("job").number != joined.number
