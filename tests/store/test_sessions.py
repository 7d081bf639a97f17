"""Sessions: ids and names of their own; beginning, joining, attaching, ending."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable

import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.testing.children import child

ID = fs.ObjectID(b"the same id")


def value_of(store: fs.Store, ref: fs.Ref) -> bytes:
    return bytes(store.get(ref).value())


# --- apart ---


@pytest.mark.req("ISO-1")
def test_equal_names_and_ids_are_different_objects(store: fs.Store) -> None:
    places = [store, store.session("a"), store.session("b"), store.session()]
    for number, place in enumerate(places):
        place.put(b"%d" % number, "name", object_id=ID)
    for number, place in enumerate(places):
        assert value_of(place, "name") == value_of(place, ID) == b"%d" % number
        assert [bytes(obj.value()) for obj in place.get_many(["name", ID])] == [b"%d" % number] * 2
        assert [info.id for info in place.list()] == [ID]
        assert place.stat("name").nbytes == 1
    assert [info.objects for info in store.sessions()] == [1, 1, 1]


@pytest.mark.req("ISO-1")
def test_no_call_sees_another_sessions_objects(store: fs.Store) -> None:
    one, two = store.session("one"), store.session("two")
    one.put(b"x", "name", object_id=ID)
    for place in (store, two):
        for ref in ("name", ID):
            assert not place.contains(ref)
            assert place.wait([ref], timeout=0) == ([], [ref])
            for look in (place.get, place.stat, place.holders):
                with pytest.raises(fs.ObjectNotFound):
                    look(ref)
            with pytest.raises(fs.ObjectNotFound):
                place.get_many([ref])
            assert place.delete(ref) == place.delete(ref, if_unused=True) == 0
        assert place.list() == place.list("*") == []
    assert value_of(one, "name") == b"x"


@pytest.mark.req("ISO-1")
def test_overwriting_and_deleting_stay_within_a_session(store: fs.Store) -> None:
    one, two = store.session("one"), store.session("two")
    for place in (store, one, two):
        place.put(b"old", "name")
    one.put(b"new", "name")
    assert two.delete("name", if_unused=True) == 1
    assert [value_of(store, "name"), value_of(one, "name")] == [b"old", b"new"]
    with one.create(3, "name") as blob:
        blob.buffer[:] = b"3rd"
    aborted = one.create(3, "name", object_id=ID)
    assert not two.abort(ID)
    assert not store.abort(ID)
    assert one.abort(ID)
    with pytest.raises(fs.StoreClosed):
        aborted.seal()
    assert [value_of(store, "name"), value_of(one, "name")] == [b"old", b"3rd"]


@pytest.mark.req("ISO-1", "API-12")
def test_a_wait_ends_with_the_object_of_its_own_session(store: fs.Store) -> None:
    one, two = store.session("one"), store.session("two")
    found: list[bytes] = []
    waiting = threading.Thread(target=lambda: found.append(value_of_waiting(one)))
    waiting.start()
    two.put(b"two", "later")
    store.put(b"store", "later")
    one.put(b"one", "later")
    waiting.join(30)
    assert found == [b"one"]


def value_of_waiting(store: fs.Store) -> bytes:
    return bytes(store.get("later", timeout=30).value())


@pytest.mark.req("ISO-1", "O-2")
def test_tables_composed_of_another_sessions(store: fs.Store) -> None:
    """Objects of any session of the store may be used; their memory is shared; they are no members."""
    one, two = store.session("one"), store.session("two")
    base = one.get(one.put(pa.table({"x": list(range(1000))}), "base"))
    before = [info.used_bytes for info in store.sessions()]
    made = two.with_columns(base, {"y": list(range(1000))}, "made")
    again = store.concat([made, made], "again")
    after = [info.used_bytes for info in store.sessions()]
    assert after[0] == before[0], "what is shared goes on counting against the first"
    assert 8000 <= after[1] < 12000
    assert one.delete("base", if_unused=True) == 0, "it is held"
    del base
    assert one.delete("base", if_unused=True) == 1
    store.recover()
    assert store.sessions()[0].used_bytes == before[0], "its memory is still in use"
    assert again.to_arrow()["x"].to_pylist() == list(range(1000)) * 2
    with pytest.raises(fs.ObjectNotFound):
        two.with_columns("base", {})
    one.end()
    two.end()
    del made
    store.recover()
    assert store.fsck() == []
    assert again.to_arrow()["x"].to_pylist() == list(range(1000)) * 2
    del again
    store.delete("again")
    store.recover()
    assert store.stats().used_bytes == 0


@pytest.mark.req("ISO-1", "API-11")
def test_a_pickled_object_arrives_in_its_session(store: fs.Store) -> None:
    session = store.session("job")
    store.put(b"of the store", object_id=ID)
    data = pickle.dumps(session.get(session.put(b"of the session", object_id=ID)))
    assert child(lambda: bytes(pickle.loads(data).value())) == b"of the session"
    session.end()
    with pytest.raises(fs.ObjectNotFound):
        pickle.loads(data)


@pytest.mark.req("ISO-1")
def test_names_of_sessions_are_any_string(store: fs.Store) -> None:
    long = "n" * 1000
    sessions = [store.session(name) for name in ("a", "a\0b", long, long[:-1] + "m", "7")]
    assert len({session.number for session in sessions}) == 5
    assert [info.name for info in store.sessions()] == ["a", "a\0b", long, long[:-1] + "m", "7"]
    assert store.session(long).number == sessions[2].number
    assert store.fsck() == []


# --- joining, attaching ---


@pytest.mark.req("ISO-1")
def test_a_session_of_a_living_owner_is_joined(store: fs.Store, another: Callable[[], fs.Store]) -> None:
    owned = store.session("job", quota="1MiB")
    joined = another().session("job")
    assert joined.number == owned.number
    assert joined.session("job").number == owned.number, "sessions do not nest"
    joined.put(b"x", "name")
    joined.close()
    assert value_of(owned, "name") == b"x"
    brief = another()
    kept = brief.session("job")
    brief.close()
    assert value_of(kept, "name") == b"x", "it is a handle of its own"
    assert value_of(store.session(owned.number), "name") == b"x"
    assert (owned.session_name, store.session().session_name) == ("job", None)


@pytest.mark.req("ISO-2")
def test_what_cannot_be_joined_or_attached_to(store: fs.Store) -> None:
    plain, limited = store.session("plain"), store.session("limited", quota=1000)
    assert store.session("limited", quota=1000).number == limited.number
    with pytest.raises(fs.InvalidArgument, match="has a quota of 1,000 bytes, not of 2,000"):
        store.session("limited", quota=2000)
    with pytest.raises(fs.InvalidArgument, match="has no quota"):
        store.session("plain", quota=2000)
    with pytest.raises(fs.InvalidArgument, match="is not ephemeral"):
        store.session(plain.number, ephemeral=True)
    for call in (
        lambda: store.session("unknown", attach=True),
        lambda: store.session(attach=77),
        lambda: store.session(77),
        lambda: store.session(1 << 40),
    ):
        with pytest.raises(fs.SessionNotFound, match="there is no session"):
            call()
    plain.end()
    for how in ({"attach": plain.number}, {"name": "plain", "attach": True}):
        for _ in "before", "after":
            with pytest.raises(fs.SessionNotFound):
                store.session(**how)  # type: ignore[arg-type]
            store.recover()


@pytest.mark.parametrize(
    "arguments",
    [
        {"attach": True},
        {"name": "a", "attach": 3},
        {"name": 0},
        {"name": -1},
        {"name": True},
        {"name": ""},
        {"name": "id:00"},
        {"name": b"bytes"},
        {"name": "a", "quota": 0},
        {"name": "a", "quota": "much"},
        {"name": "a", "quota": -5},
    ],
    ids=str,
)
def test_arguments_that_mean_nothing(store: fs.Store, arguments: dict[str, object]) -> None:
    with pytest.raises(fs.InvalidArgument):
        store.session(**arguments)  # type: ignore[arg-type]
    assert store.sessions() == []


# --- the end ---


@pytest.mark.req("ISO-2")
def test_an_ended_session_is_over_for_everybody(store: fs.Store) -> None:
    session = store.session("job")
    session.put(b"x" * 100_000, "large")
    session.put(b"x", "small", object_id=ID)
    held = session.get("large")
    table = session.put(pa.table({"x": [1]}))
    table_held = session.get(table)
    builder = session.create(100, "built")
    other = store.session(session.number)
    session.end()
    session.end()
    for handle in (session, other):
        assert handle.list() == []
        assert (handle.contains("small"), handle.contains(ID)) == (False, False)
        assert handle.delete(["small", ID]) == handle.delete("large", if_unused=True) == 0
        with pytest.raises(fs.ObjectNotFound):
            handle.get("small")
        for waiting in (handle.get, handle.get_many, handle.wait):
            with pytest.raises(fs.SessionEnded):
                waiting(["small"] if waiting != handle.get else "small", timeout=None)
        for write, value in (
            (handle.put, b"x"),
            (handle.put, b"x" * 100_000),
            (handle.put_many, [b"", b"x" * 100_000]),
            (handle.create, 10),
        ):
            with pytest.raises(fs.SessionEnded, match=r"'job' \(number 1\)"):
                write(value)
        with pytest.raises(fs.SessionEnded):
            handle.with_columns(table_held, {"y": [1]})
    with pytest.raises(fs.SessionEnded):
        builder.seal()
    builder.abort()
    del builder
    assert [info.state for info in store.sessions()] == ["ended"]
    store.recover()
    assert store.sessions() == []
    assert bytes(held.value()) == b"x" * 100_000
    assert session.list() == []
    with pytest.raises(fs.SessionEnded):
        session.put(b"x")
    assert store.session("job").number != session.number
    del held, table_held
    store.recover()
    assert store.stats().used_bytes == 0


@pytest.mark.req("ISO-2")
def test_what_an_ended_session_left_is_reclaimed_by_puts(store: fs.Store) -> None:
    session = store.session("job")
    session.put_many({f"{number}": b"x" * 100 for number in range(100)})
    held = session.get("50")
    session.end()
    for _ in range(3):
        store.put(b"")
    assert store.sessions() == []
    assert (store.stats().dying, store.stats().used_bytes) == (1, 128), "what is held"
    assert bytes(held.value()) == b"x" * 100


@pytest.mark.req("ISO-2")
def test_what_an_ended_session_left_makes_room(store: fs.Store) -> None:
    session = store.session("job")
    for number in range(3):
        session.put(bytes(4 << 20), f"{number}")
    session.end()
    store.put(bytes(15 << 20), "all of it")
    assert store.sessions() == []


@pytest.mark.req("ISO-2")
def test_composed_and_folded_objects_are_reclaimed(store: fs.Store) -> None:
    session = store.session("job")
    parts = [session.put(pa.table({"x": [number]}), f"{number}") for number in range(60)]
    session.concat(parts, "0")
    session.with_columns("0", {"y": list(range(60))}, "0")
    session.select("0", ["y"], "selected")
    held = session.get("0")
    session.end()
    store.recover()
    assert store.fsck() == []
    assert held.to_arrow()["x"].to_pylist() == list(range(60))
    del held
    store.recover()
    assert (store.stats().used_bytes, store.stats().dying) == (0, 0)


@pytest.mark.req("ISO-2")
def test_closing(store: fs.Store) -> None:
    with store.session("stays") as stays:
        stays.put(b"x", "name")
    with pytest.raises(fs.StoreClosed):
        stays.get("name")
    assert value_of(store.session("stays"), "name") == b"x"
    with store.session("goes", ephemeral=True) as goes:
        goes.put(b"x", "name")
        with store.session("goes") as joined:
            joined.put(b"y", "other")
        assert value_of(goes, "other") == b"y", "closing a handle that joined ends nothing"
    assert [info.state for info in store.sessions()] == ["active", "ended"]
    forgotten = store.session("forgotten", ephemeral=True)
    forgotten.put(b"x", "name")
    del forgotten
    store.put(b"the next write")
    store.recover()
    assert [info.name for info in store.sessions()] == ["stays"]


@pytest.mark.req("ISO-2")
def test_an_ephemeral_session_that_another_handle_attached_to(store: fs.Store) -> None:
    def begin_and_leave() -> int:
        with fs.connect(store.path) as there, there.session("job", ephemeral=True) as session:
            return session.number

    over = child(begin_and_leave)
    with pytest.raises(fs.SessionNotFound):
        store.session(attach=over)
    first = store.session("job", ephemeral=True)
    taken = child(lambda: taken_over(store.path, first.number))
    assert taken == "active"
    assert not first.contains("name"), "its new owner is gone"


def taken_over(path: str, number: int) -> str:
    with fs.connect(path) as there:
        session = there.session(attach=number)
        session.put(b"x", "name")
        return there.sessions()[-1].state


@pytest.mark.req("ISO-1", "API-10")
def test_what_is_told_of_sessions(store: fs.Store) -> None:
    session = store.session("job", quota="2MiB", ephemeral=True)
    session.put(b"x" * 1000)
    session.put(b"x" * 100_000)
    (info,) = store.sessions()
    assert (info.id, info.name, info.state) == (session.number, "job", "active")
    assert (info.owner_alive, info.ephemeral, info.quota_bytes) == (True, True, 2 << 20)
    assert info.used_bytes == store.stats().used_bytes == session.stats().used_bytes == 1024 + 100_032
    assert info.objects == 2
    assert repr(session) == f"<Session {session.number} 'job' of {store.path}>"
    session.end()
    assert store.sessions()[0].state == "ended"
    assert session.sessions() == store.sessions()
