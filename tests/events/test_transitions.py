"""INV-11: every transition gives its event, once, in the order of the commits; nothing else gives one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from flightstore import EventsMissed, InvalidArgument, ObjectExists, ObjectID, Store, StoreFull, Subscription
from flightstore.catalog.scopes import SPILLED
from flightstore.testing.children import ChildDied, start

pytestmark = pytest.mark.req("INV-11")

Told = Callable[[], list[tuple[str, str | None]]]


@pytest.fixture
def follower(store: Store) -> Iterator[Subscription]:
    """A subscription to everything that the test does."""
    with store.subscribe() as subscription:
        yield subscription


@pytest.fixture
def told(follower: Subscription) -> Told:
    """(kind, name) of all events since the last call."""

    def read() -> list[tuple[str, str | None]]:
        found = list(iter(follower.poll, None))
        numbers = [event.number for event in found]
        assert numbers == sorted(set(numbers))
        return [(event.kind, event.name) for event in found]

    return read


def test_put_and_delete(store: Store, told: Told) -> None:
    store.put(b"1", "a")
    store.put(bytes(100_000), "large")
    assert told() == [("added", "a"), ("added", "large")]
    assert store.delete(["a", "never", "large"]) == 2
    assert told() == [("deleted", "a"), ("deleted", "large")]
    store.recover()  # the memory is given back: that is no event
    assert store.delete("a") == 0
    assert told() == []


def test_what_an_event_tells(store: Store, follower: Subscription) -> None:
    before = time.time_ns()
    object_id = store.put(b"12345", "a")
    event = follower.poll()
    assert event is not None
    assert (event.kind, event.id, event.name, event.nbytes) == ("added", object_id, "a", 5)
    assert before <= event.time_ns <= time.time_ns()
    store.put(b"12", object_id=ObjectID(b"mine"))
    unnamed = follower.poll()
    assert unnamed is not None
    assert (unnamed.number, unnamed.id, unnamed.name) == (event.number + 1, b"mine", None)
    assert follower.position == unnamed.number


def test_an_overwritten_name_is_deleted_then_added(store: Store, follower: Subscription) -> None:
    first = store.put(b"1", "a")
    second = store.put(b"2", "a")
    found = [(event.kind, event.id) for event in iter(follower.poll, None)]
    assert found == [("added", first), ("deleted", first), ("added", second)]


def test_delete_if_unused(store: Store, told: Told) -> None:
    store.put_many({"held": b"1", "free": b"2"})
    told()
    obj = store.get("held")
    assert store.delete(["held", "free"], if_unused=True) == 1
    assert told() == [("deleted", "free")]
    obj.release()
    assert store.delete("held", if_unused=True) == 1
    assert told() == [("deleted", "held")]


def test_what_is_deleted_while_it_is_read_is_told_once(store: Store, told: Told) -> None:
    store.put(b"1", "a")
    obj = store.get("a")
    store.delete("a")
    obj.release()
    store.recover()
    assert told() == [("added", "a"), ("deleted", "a")]


def test_put_many_in_the_order_given(store: Store, told: Told) -> None:
    names = [f"n{i}" for i in range(20)]
    store.put_many(dict.fromkeys(names, b"x"))
    assert told() == [("added", name) for name in names]


def test_nothing_is_told_of_what_came_to_nothing(store: Store, told: Told) -> None:
    store.put(b"1", object_id=ObjectID(b"taken"))
    told()
    with pytest.raises(ObjectExists):
        store.put(b"2", object_id=ObjectID(b"taken"))
    builder = store.create(5000, "built")
    assert told() == []
    builder.abort()
    store.create(70_000, "forgotten")
    store.put(b"", "after")  # undoes what was forgotten
    assert told() == [("added", "after")]


def test_create_is_told_when_it_is_sealed(store: Store, told: Told) -> None:
    with store.create(5000, "built"):
        assert told() == []
    assert told() == [("added", "built")]
    with store.create_table(pa.schema([("n", pa.int64()), ("s", pa.string())]), 2, "table") as table:
        table["s"] = ["x", "y"]
        assert told() == []
    assert told() == [("added", "table")]


def test_composed_tables_and_their_members(store: Store, told: Told) -> None:
    store.put(pa.table({"n": [1, 2]}), "base")
    store.with_columns("base", {"m": [3, 4]}, "base").release()  # the old one stays, as a member
    assert told() == [("added", "base"), ("added", "base")]
    store.delete("base")
    assert told() == [("deleted", "base"), ("deleted", None)]


def test_dead_clients_leave_no_events(store: Store, told: Told) -> None:
    def die() -> None:
        store.put(b"1", "lives on")
        store.create(100_000, "pending")
        os.kill(os.getpid(), signal.SIGKILL)

    with start(die) as process, pytest.raises(ChildDied):
        process.result()
    assert store.recover().aborted_objects == 1
    assert told() == [("added", "lives on")]


def test_full(store: Store, follower: Subscription) -> None:
    """One event for each create that found no room, however it was asked for."""
    with pytest.raises(StoreFull):
        store.put(bytes(17 << 20), "too large for the store")
    store.put(bytes(10 << 20), "most")
    for timeout in (0, 0.1):
        with pytest.raises(StoreFull):
            store.put(bytes(9 << 20), "no room", timeout=timeout)
    with pytest.raises(StoreFull):
        store.create_now(8 << 20)
    with pytest.raises(StoreFull):
        store.put_many({"small": b"x", "no room": bytes(8 << 20)})
    found = [(event.kind, event.id, event.name, event.nbytes >> 20) for event in iter(follower.poll, None)]
    full = [("full", None, None, size) for size in (17, 9, 9, 8, 8)]
    assert [one[0] for one in found[:2]] == ["full", "added"]
    assert [one for one in found if one[0] == "full"] == full
    assert len(found) == 6


def test_spilled(store: Store, follower: Subscription) -> None:
    """Whoever begins to spill notes it in the transaction that says so."""
    object_id = store.put(b"123", "a")
    conn = store._conn

    def note(tx: object) -> None:
        record = tx.sealed(0, object_id)  # type: ignore[attr-defined]
        tx.note(SPILLED, 0, object_id, record)  # type: ignore[attr-defined]

    conn.write(note)
    assert [(event.kind, event.name) for event in iter(follower.poll, None)] == [
        ("added", "a"),
        ("spilled", "a"),
    ]


def test_a_transaction_that_fails_tells_nothing(store: Store, told: Told) -> None:
    store.put(b"1", "a")
    told()

    def fail(tx: object) -> None:
        record = tx.sealed(0, store.get("a").id)  # type: ignore[attr-defined]
        tx.retire(0, store.get("a").id, record)  # type: ignore[attr-defined]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store._conn.write(fail)
    assert told() == []
    assert "a" in store


# --- which events ---


def test_patterns_ids_and_kinds(store: Store) -> None:
    by_name = store.subscribe("a*")
    by_kind = store.subscribe(kinds=["deleted"])
    one_kind = store.subscribe(kinds="added")
    chosen = ObjectID(b"chosen")
    by_id = store.subscribe(chosen)
    store.put(b"1", "a1")
    store.put(b"1", "b1", object_id=chosen)
    store.put(b"1")
    store.delete(["a1", "b1"])

    def names(subscription: Subscription) -> list[tuple[str, str | None]]:
        return [(event.kind, event.name) for event in iter(subscription.poll, None)]

    assert names(by_name) == [("added", "a1"), ("deleted", "a1")]
    assert names(by_kind) == [("deleted", "a1"), ("deleted", "b1")]
    assert names(one_kind) == [("added", "a1"), ("added", "b1"), ("added", None)]
    assert names(by_id) == [("added", "b1"), ("deleted", "b1")]


def test_only_events_of_the_own_session(store: Store, told: Told) -> None:
    store._conn.write(lambda tx: tx.add_event(_event_of_session(7)))
    store.put(b"1", "a")
    assert told() == [("added", "a")]


def _event_of_session(session: int) -> object:
    from flightstore.catalog.scopes import ADDED, EventRecord

    return EventRecord(ADDED, session, b"id", "a", 1, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kinds": ["added", "gone"]}, "kind 'gone'"),
        ({"since": 5}, "since=5"),
        ({"since": -1}, "since=-1"),
        ({"since": "1"}, "since='1'"),
        ({"pattern": b"bytes"}, "pattern is a str"),
        ({"timeout": -1}, "timeout of -1"),
    ],
)
def test_what_is_refused(store: Store, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        store.subscribe(**arguments)  # type: ignore[arg-type]


# --- since, position, being too slow ---


def test_since(store: Store) -> None:
    store.put_many({f"n{i}": b"x" for i in range(5)})
    everything = [event.number for event in store.subscribe(since=0, timeout=0)]
    assert everything == [1, 2, 3, 4, 5]
    assert [event.number for event in store.subscribe(since=3, timeout=0)] == [4, 5]
    assert list(store.subscribe(since=5, timeout=0)) == []
    from_now = store.subscribe(timeout=0)
    store.put(b"", "between the call and the first look")
    assert [event.number for event in from_now] == [6]


def test_a_position_passes_over_what_is_not_wanted(store: Store) -> None:
    rare = store.subscribe("rare")
    store.put_many({f"n{i}": b"x" for i in range(700)})
    store.put(b"", "rare")
    store.put_many({f"m{i}": b"x" for i in range(5)})
    assert rare.position == 0
    event = rare.poll()
    assert event is not None
    assert event.number == 701
    assert rare.position >= 701
    assert rare.poll() is None
    assert rare.position == 706


def test_a_position_stands_before_what_was_not_handed_out(store: Store) -> None:
    subscription = store.subscribe()
    store.put_many({f"n{i}": b"x" for i in range(5)})
    for number in (1, 2):
        event = subscription.poll()
        assert event is not None
        assert (event.number, subscription.position) == (number, number)


def test_a_subscriber_that_is_too_slow_hears_it_once(store: Store) -> None:
    kept = store._conn.events_kept
    slow = store.subscribe()
    for _ in range(3):
        store.put_many([b"x"] * (kept // 2))
    written = 3 * (kept // 2)
    with pytest.raises(EventsMissed) as caught:
        next(slow)
    error = caught.value
    there = written - error.missed
    assert kept <= there <= kept + 64, "dropped some at a time"
    assert error.first_kept == error.missed + 1
    assert f"you missed {error.missed:,} events" in str(error)
    assert f"{there:,} are still kept" in str(error)
    assert isinstance(error, LookupError)
    rest = [event.number for event in iter(slow.poll, None)]
    assert rest == list(range(error.first_kept, written + 1))
    assert [event.number for event in store.subscribe(since=0, timeout=0)] == rest, "0: what is kept"
    with pytest.raises(EventsMissed):
        next(store.subscribe(since=1))


def test_one_transaction_of_more_events_than_are_kept(store: Store) -> None:
    kept = store._conn.events_kept
    slow = store.subscribe()
    store.put_many([b"x"] * (kept + 100))
    with pytest.raises(EventsMissed):
        slow.poll()
    assert kept <= len(list(iter(slow.poll, None))) <= kept + 64
