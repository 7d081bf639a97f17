"""INV-4: only unreferenced objects are evicted; a pinned one never."""

from __future__ import annotations

import contextlib

import pyarrow as pa
import pytest
from every_call import PIECE, fill

import flightstore as fs
from flightstore.testing.children import child, start
from flightstore.testing.events import Gate

pytestmark = pytest.mark.req("INV-4")


def left(store: fs.Store) -> set[str]:
    return {info.name or "" for info in store.list()}


def is_as_put(store: fs.Store, name: str) -> bool:
    return bytes(store.get(name).value()) == bytes([int(name[-2:])]) * PIECE


def make_room(store: fs.Store, how: str) -> None:
    """Ask for all that there is, in the given way."""
    if how == "evict":
        store.evict(recursive=True)
        return
    with contextlib.suppress(fs.StoreFull):
        while True:  # until it is full of what nobody may drop
            if how == "put":
                store.put(bytes(PIECE))
            else:
                store.create_now(PIECE).seal()


@pytest.mark.parametrize("how", ["evict", "put", "create_now"])
def test_what_is_held_or_pinned_in_whatever_way_stays(store: fs.Store, how: str) -> None:
    first, second, *others = sorted(fill(store, evictable=True))
    with Gate("one holds") as one_holds, Gate("two holds") as two_holds, Gate("go on") as go_on:

        def holds(name: str, ready: Gate, view_only: bool) -> bool:
            obj = store.get(name)
            view = memoryview(obj.value())
            if view_only:
                obj.release()
            ready.open()
            go_on.wait()
            return bytes(view) == bytes([int(name[-2:])]) * PIECE

        mine = store.get(first)
        view = memoryview(store.get(second).value())
        store.pin(others[0])
        store.pin([others[1]] * 2)
        store.unpin(others[1])
        child(lambda: store.pin(others[2]))  # a pin outlives the process that set it
        with (
            start(holds, others[3], one_holds, False) as one,
            start(holds, others[4], two_holds, True) as two,
        ):
            one_holds.wait()
            two_holds.wait()
            protected = {first, second, *others[:5]}
            make_room(store, how)
            assert left(store) & {first, second, *others} == protected
            assert store.stats().evictable_bytes == 0
            go_on.open()
            assert one.result()
            assert two.result()
    assert bytes(view) == b"\1" * PIECE
    del view
    mine.release()
    assert all(is_as_put(store, name) for name in protected)
    store.unpin(others[:3])
    store.recover()  # the two that are gone inherited references, which keep memory until then
    make_room(store, how)
    assert left(store).isdisjoint(protected), "nothing keeps them any more"


def test_a_plan_that_is_old_by_the_time_it_is_carried_out(store: fs.Store) -> None:
    """Taken up, or pinned, after the policy has chosen: they stay all the same."""
    pieces = sorted(fill(store, evictable=True))
    held = []

    def policy(candidates: list[fs.EvictionCandidate]) -> list[fs.EvictionCandidate]:
        if not held:
            held.append(store.get(pieces[0]))
            child(lambda: store.pin(pieces[1]))
        return list(candidates)

    store.set_policy(policy)
    store.evict()
    assert left(store) == set(pieces[:2])
    assert is_as_put(store, pieces[0])
    store.set_policy("marked-first")


def test_members_that_are_held_or_pinned_stay(store: fs.Store) -> None:
    """``evict(recursive=True)`` takes the members of what it drops, but not these; nor what a held object is
    made of.
    """
    for name in "free", "held", "pinned":
        store.put(pa.table({name: [1, 2]}), name)
        store.select(name, [name], f"of {name}").release()
    kept = store.get("held")
    store.pin("pinned")
    store.free(["of free", "of held", "of pinned"])
    store.evict(recursive=True)
    # The two that would free nothing stay, too: their bytes are their members'.
    assert left(store) == {"held", "pinned", "of held", "of pinned"}
    kept.release()
    made = store.get("of held")
    store.free("held")
    store.evict(recursive=True)
    assert made.to_arrow().num_rows == 2
    assert {"held", "of held", "pinned"} <= left(store)
