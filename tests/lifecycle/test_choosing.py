"""Whom to evict and what to spill: the plans, for generated populations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightstore.errors import InvalidArgument
from flightstore.lifecycle.choosing import (
    Place,
    Usage,
    least_recently_used,
    marked_first,
    plan_eviction,
    plan_spill,
    policy_named,
)
from flightstore.types import EvictionCandidate, ObjectID

pytestmark = pytest.mark.req("INV-4", "INV-7", "BAT-9", "BAT-10")


def usage(
    serial: int,
    places: tuple[int, ...],
    *,
    evictable: bool = True,
    spillable: bool = True,
    idle: bool = True,
    freed: bool = False,
    accessed: int = 0,
    members: tuple[int, ...] = (),
    used_by: int = 0,
) -> Usage:
    """An object of extents of 100 bytes each."""
    candidate = EvictionCandidate(
        ObjectID(b"%d" % serial), 0, None, 100 * len(places), serial, accessed, freed, evictable
    )
    found = tuple(Place(100 * at, 100, 0) for at in places)
    return Usage(candidate, 0, serial, found, evictable, spillable, idle, members, used_by)


@st.composite
def populations(draw: st.DrawFn) -> list[Usage]:
    """Objects that share extents, in any mixture."""
    flags = st.booleans()
    return [
        usage(
            serial,
            tuple(draw(st.lists(st.integers(0, 8), max_size=3, unique=True))),
            evictable=draw(flags),
            spillable=draw(flags),
            idle=draw(flags),
            freed=draw(flags),
            accessed=draw(st.integers(0, 5)),
        )
        for serial in range(1, draw(st.integers(1, 10)))
    ]


def freed_by(population: list[Usage], gone: set[int]) -> int:
    """Bytes of the extents that nobody uses once those are gone."""
    before = {place for one in population for place in one.places}
    after = {place for one in population if one.serial not in gone for place in one.places}
    return sum(place.length for place in before - after)


@given(populations(), st.integers(0, 1000))
def test_evictions_take_only_what_may_go_and_what_helps(population: list[Usage], wanted: int) -> None:
    plan = plan_eviction(population, wanted, marked_first)
    assert all(one.evictable and one.idle for one in plan)
    gone = {one.serial for one in plan}
    assert len(gone) == len(plan)
    everything = plan_eviction(population, None, marked_first)
    most = freed_by(population, {one.serial for one in everything})
    assert most == freed_by(population, {one.serial for one in population if one.evictable and one.idle})
    assert freed_by(population, gone) >= min(wanted, most)
    for one in plan:  # nobody goes for nothing
        assert any(
            all(user.serial in gone for user in population if place in user.places) for place in one.places
        )


@given(populations(), st.integers(0, 1000))
def test_spills_take_only_bytes_whose_users_all_may_be_spilled(population: list[Usage], wanted: int) -> None:
    plan = plan_spill(population, wanted, marked_first)
    places = [unit.place for unit in plan]
    assert len(set(places)) == len(places)
    for unit in plan:
        assert unit.users == [one for one in population if unit.place in one.places]
        assert all(one.spillable and one.idle for one in unit.users)
    most = sum(unit.place.length for unit in plan_spill(population, None, marked_first))
    total = sum(place.length for place in places)
    assert min(wanted, most) <= total
    assert total < wanted + 100 or not plan


def test_the_order() -> None:
    population = [
        usage(1, (1,), accessed=9),
        usage(2, (2,), accessed=5),
        usage(3, (3,), accessed=7, freed=True),
        usage(4, (4,), accessed=5),
    ]
    assert [one.serial for one in plan_eviction(population, 300, marked_first)] == [3, 2, 4]
    assert [one.serial for one in plan_eviction(population, 300, least_recently_used)] == [2, 4, 3]
    assert policy_named("lru") is least_recently_used
    with pytest.raises(InvalidArgument, match="no eviction policy 'fifo'"):
        policy_named("fifo")


def test_a_policy_may_leave_out_and_cannot_make_up() -> None:
    population = [usage(1, (1,)), usage(2, (2,)), usage(3, (3,), idle=False)]
    stranger = usage(9, (9,)).candidate
    plan = plan_eviction(
        population, None, lambda found: [stranger, found[1], found[1], population[2].candidate]
    )
    assert [one.serial for one in plan] == [2]


def test_members_go_only_when_asked_and_unused() -> None:
    population = [
        usage(1, (1,), evictable=False, used_by=1),
        usage(2, (2,), evictable=False, used_by=2),
        usage(3, (3,), evictable=False, used_by=1, idle=False),
        usage(4, (1, 2, 3, 4), members=(1, 2, 3)),
        usage(5, (2, 5), evictable=False, members=(2,)),
    ]
    assert [one.serial for one in plan_eviction(population, None, marked_first)] == [4]
    plan = plan_eviction(population, None, marked_first, recursive=True)
    assert [one.serial for one in plan] == [4, 1]
