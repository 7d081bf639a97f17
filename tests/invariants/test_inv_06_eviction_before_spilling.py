"""INV-6: spilling happens only when eviction cannot meet the request."""

from __future__ import annotations

from pathlib import Path

import pytest

import flightstore as fs

pytestmark = pytest.mark.req("INV-6")

MIB = 1 << 20
ROOM = 4
"""Objects of one MiB that the store holds."""


def filled(store: fs.Store, evictable: int) -> None:
    """So many evictable objects, the others not; the latter are the older ones."""
    for number in range(ROOM - evictable):
        store.put(bytes(MIB), f"primary {number}")
    for number in range(evictable):
        store.put(bytes(MIB), f"evictable {number}", evictable=True)


def outcome(store: fs.Store) -> tuple[int, int]:
    """(objects evicted, objects spilled) so far."""
    with store.subscribe(since=0, kinds=["deleted", "spilled"]) as subscription:
        kinds = [event.kind for event in iter(subscription.poll, None)]
    return kinds.count("deleted"), kinds.count("spilled")


@pytest.mark.parametrize("evictable", range(ROOM + 1))
@pytest.mark.parametrize("asked", range(1, ROOM + 1))
def test_all_proportions(store: fs.Store, spilled: Path, evictable: int, asked: int) -> None:
    """What may be evicted goes first, and no more than is asked for; only what then lacks is spilled."""
    filled(store, evictable)
    store.put(bytes(asked * MIB), "new")
    assert outcome(store) == (min(asked, evictable), max(asked - evictable, 0))
    assert store.contains("new")


def test_one_after_the_other(store: fs.Store, spilled: Path) -> None:
    """Several creates use up what may be evicted before the first is spilled."""
    filled(store, 3)
    seen = []
    for number in range(5):
        with store.create(MIB, f"new {number}"):
            pass
        seen.append(outcome(store))
    assert seen == [(1, 0), (2, 0), (3, 0), (3, 1), (3, 2)]


def test_what_is_freed_meanwhile_goes_first(store: fs.Store, spilled: Path) -> None:
    filled(store, 0)
    store.free("primary 2")
    store.put(bytes(MIB), "new")
    assert outcome(store) == (1, 0)
    assert not store.contains("primary 2")


def test_what_is_held_or_pinned_is_no_reason_to_wait_with_spilling(store: fs.Store, spilled: Path) -> None:
    """Eviction cannot meet the request when all that is evictable is in use."""
    filled(store, 2)
    held = store.get("evictable 0")
    store.pin("evictable 1")
    store.put(bytes(2 * MIB), "new")
    assert outcome(store) == (0, 2)
    assert {info.name for info in store.list("primary*") if info.state == "spilled"} == {
        "primary 0",
        "primary 1",
    }
    held.release()


def test_within_the_quota_of_a_session(store: fs.Store, spilled: Path) -> None:
    """The same for a request that its session has no room for: of its own objects."""
    with store.session(quota="2MiB") as session:
        session.put(bytes(MIB), "primary")
        session.put(bytes(MIB), "evictable", evictable=True)
        session.put(bytes(MIB), "new")
        assert outcome(session) == (1, 0)
        session.put(bytes(MIB), "newer")
        assert outcome(session) == (1, 1)
        session.end()
