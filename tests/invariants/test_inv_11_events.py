"""INV-11: added when an object is sealed, deleted when a sealed one is deleted, spilled when a spill starts,
full when a create cannot be met: each once, to subscribers and callbacks, of every process.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.testing.children import child
from flightstore.testing.events import wait_until

pytestmark = pytest.mark.req("INV-11")

MIB = 1 << 20
Told = list[tuple[str, str | None]]


class Heard:
    """All that is told of a store, twice: through a subscription, and through the four kinds of callbacks."""

    def __init__(self, store: fs.Store) -> None:
        self._store = store
        self._subscription = store.subscribe()
        self._called: Told = []
        registrations = {
            "added": store.on_added,
            "deleted": store.on_deleted,
            "spilled": store.on_spilled,
            "full": store.on_full,
        }
        for kind, register in registrations.items():
            register(lambda event, kind=kind: self._called.append((kind, event.name)))

    def since(self) -> Told:
        """What was told since the last call; both ways, the same."""
        told = [(event.kind, event.name) for event in iter(self._subscription.poll, None)]
        wait_until(lambda: len(self._called) >= len(told), what="the callbacks are called")
        called, self._called = self._called, []
        assert called == told
        return told


@pytest.fixture
def heard(store: fs.Store) -> Heard:
    return Heard(store)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_life(store: fs.Store, heard: Heard, elsewhere: bool) -> None:
    def life() -> None:
        store.put(b"", "put")
        store.put_many({"one": b"", "two": b""})
        with store.create(10, "created"):
            pass
        store.create(10, "aborted").abort()
        store.put(b"anew", "put")
        store.delete(["one", "created", "absent"])
        store.delete("two", if_unused=True)

    child(life) if elsewhere else life()
    assert heard.since() == [
        ("added", "put"),
        ("added", "one"),
        ("added", "two"),
        ("added", "created"),
        ("deleted", "put"),
        ("added", "put"),
        ("deleted", "one"),
        ("deleted", "created"),
        ("deleted", "two"),
    ]


def test_not_before_it_is_sealed_and_not_again(store: fs.Store, heard: Heard) -> None:
    builder = store.create(10, "built")
    assert heard.since() == []
    assert not store.contains("built")
    builder.seal()
    assert heard.since() == [("added", "built")]
    builder.seal()
    with store.get("built"):
        store.delete("built")
        assert heard.since() == [("deleted", "built")]
    del builder
    store.delete("built")
    store.recover()
    assert heard.since() == []


def test_composed_and_freed_with_their_scopes(store: fs.Store, heard: Heard) -> None:
    with store.batch():
        store.put(pa.table({"x": [1]}), "base")
        store.select("base", ["x"], "made").release()
    store.recover()
    assert sorted(heard.since()) == [
        ("added", "base"),
        ("added", "made"),
        ("deleted", "base"),
        ("deleted", "made"),
    ]


def test_evicted_is_deleted_and_spilled_is_told_as_it_starts(
    store: fs.Store, spilled: Path, heard: Heard
) -> None:
    store.put(bytes(MIB), "evictable", evictable=True)
    store.put(bytes(3 * MIB), "primary")
    heard.since()
    store.put(bytes(MIB), "first")
    assert heard.since() == [("deleted", "evictable"), ("added", "first")]
    store.put(bytes(3 * MIB), "second")
    assert heard.since() == [("spilled", "primary"), ("added", "second")]
    store.get("first").release()
    store.spill("second")
    with store.get("primary"):  # coming back is no event; nor is a second spill that writes nothing
        assert heard.since() == [("spilled", "second")]
    store.set_spill("/proc/no/such/place")
    with pytest.raises(fs.SpillFailed):
        store.spill("first")
    assert heard.since() == [("spilled", "first")], "it started, though it failed"


def test_full_when_a_create_cannot_be_met(store: fs.Store, heard: Heard) -> None:
    store.put(bytes(3 * MIB), "large")
    heard.since()
    for create in (
        lambda: store.put(bytes(2 * MIB)),
        lambda: store.create(2 * MIB),
        lambda: store.create_now(2 * MIB),
        lambda: store.create(5 * MIB, timeout=30),
        lambda: store.put(bytes(2 * MIB), timeout=0.01),
    ):
        with pytest.raises(fs.StoreFull):
            create()
        assert heard.since() == [("full", None)]
    store.put(bytes(MIB), "fits")
    assert heard.since() == [("added", "fits")]
