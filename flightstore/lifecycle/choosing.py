"""Whom to evict and what to spill: pure functions from what there is to plans.

Nothing here reads the store or changes it; it calls nothing of flightstore but plain values. A plan is made
from a picture that may be old by the time it is carried out, so whoever does that (lifecycle.eviction,
lifecycle.spilling) checks each step in the transaction that takes it.

- **Evicted** is an object that was put as evictable, was freed, or is a replica, if nobody holds it and it is
  not pinned. Its bytes come back when every object that uses them goes: a plan counts an extent only when all
  its users are in the plan, and leaves out what would free nothing.
- **Spilled** is an extent: its bytes move to a file, and the objects that use it stay. That needs all of them
  to be sealed primaries that nobody holds and that are not pinned.

A **policy** decides the order: a function from candidates to the same candidates in another order, the first
to go first. It sees `Candidate` values only. What it leaves out is not taken.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from flightstore.errors import InvalidArgument
from flightstore.types import EvictionCandidate

__all__ = [
    "POLICIES",
    "Place",
    "Policy",
    "Unit",
    "Usage",
    "least_recently_used",
    "marked_first",
    "plan_eviction",
    "plan_spill",
    "policy_named",
]

Policy: TypeAlias = Callable[[Sequence[EvictionCandidate]], Iterable[EvictionCandidate]]


class Place(NamedTuple):
    """Bytes in memory: an extent of the arena, and the spill record that it belongs to, or 0."""

    offset: int
    length: int
    spill: int


@dataclass(slots=True)
class Usage:
    """An object and the memory it uses."""

    candidate: EvictionCandidate
    """The object as policies see it."""
    session: int
    serial: int
    places: tuple[Place, ...]
    """Where its payload is in memory."""
    evictable: bool
    """Whether it may be dropped: put so, freed, or a replica."""
    spillable: bool
    """Whether it may be spilled: a sealed primary that nobody is spilling at this moment. Pending and dying
    objects are neither."""
    idle: bool
    """Whether nobody holds it, and it is not pinned."""
    members: tuple[int, ...] = ()
    """Serials of the objects that it lists as members."""
    used_by: int = 0
    """How many objects list it as a member."""


@dataclass(slots=True)
class Unit:
    """Bytes to spill, and the objects that use them."""

    place: Place
    users: list[Usage] = field(default_factory=list)


def least_recently_used(candidates: Sequence[EvictionCandidate]) -> list[EvictionCandidate]:
    """Those that were not got for the longest time come first; among equals, the older ones."""
    return sorted(candidates, key=lambda one: (one.last_access_ns, one.created_ns))


def marked_first(candidates: Sequence[EvictionCandidate]) -> list[EvictionCandidate]:
    """Those marked by ``free`` come first, then the least recently used. The default."""
    return sorted(candidates, key=lambda one: (not one.freed, one.last_access_ns, one.created_ns))


POLICIES: dict[str, Policy] = {"marked-first": marked_first, "lru": least_recently_used}
"""The policies that are known by name."""


def policy_named(policy: str | Policy) -> Policy:
    """The policy itself, or the one of that name.

    Raises:
        InvalidArgument: there is none.
    """
    if callable(policy):
        return policy
    if policy not in POLICIES:
        raise InvalidArgument(f"there is no eviction policy {policy!r}", hint=f"choose of {sorted(POLICIES)}")
    return POLICIES[policy]


def plan_eviction(
    objects: Sequence[Usage], wanted_bytes: int | None, policy: Policy, *, recursive: bool = False
) -> list[Usage]:
    """The objects to evict, so that `wanted_bytes` (all that is evictable, for None) come back, or less.

    With `recursive`, members go too that nobody else uses, evictable or not.
    """
    chosen = _in_order(
        _that_free_something(objects, [one for one in objects if one.evictable and one.idle], recursive),
        policy,
    )
    users = Counter(place for one in objects for place in one.places)
    by_serial = {one.serial: one for one in objects}
    plan: list[Usage] = []
    planned: set[int] = set()
    freed = 0
    for one in chosen:
        if wanted_bytes is not None and freed >= wanted_bytes:
            break
        group = [one, *(_orphans(one, by_serial, planned) if recursive else ())]
        for member in group:
            if member.serial not in planned:
                planned.add(member.serial)
                plan.append(member)
                users.subtract(member.places)
                freed += sum(place.length for place in member.places if users[place] == 0)
    useless = {one.serial for one in plan if all(users[place] > 0 for place in one.places)}
    return [one for one in plan if one.serial not in useless]


def _that_free_something(objects: Sequence[Usage], candidates: list[Usage], recursive: bool) -> list[Usage]:
    """The candidates of which some extent has no other users than candidates (and, with `recursive`, their
    members).
    """
    counted = {one.serial: one for one in candidates}
    if recursive:
        by_serial = {one.serial: one for one in objects}
        for one in candidates:
            counted.update((orphan.serial, orphan) for orphan in _orphans(one, by_serial, set()))
    others = Counter(place for one in objects if one.serial not in counted for place in one.places)
    return [one for one in candidates if any(not others[place] for place in one.places)]


def _orphans(one: Usage, by_serial: dict[int, Usage], planned: set[int]) -> list[Usage]:
    """Members of an object, and theirs, that nobody else uses, holds or pins."""
    found = []
    for serial in one.members:
        member = by_serial.get(serial)
        if member is not None and member.idle and member.used_by == 1 and serial not in planned:
            found += [member, *_orphans(member, by_serial, planned)]
    return found


def plan_spill(
    objects: Sequence[Usage],
    wanted_bytes: int | None,
    policy: Policy,
    *,
    fits: Callable[[Place], bool] | None = None,
) -> list[Unit]:
    """The bytes to spill, so that `wanted_bytes` (all, for None) come back, or less; only what `fits`, if
    that is given.
    """
    units: defaultdict[Place, list[Usage]] = defaultdict(list)
    blocked = set()
    for one in objects:
        for place in one.places:
            units[place].append(one)
            if not (one.spillable and one.idle and (fits is None or fits(place))):
                blocked.add(place)
    chosen = [one for one in objects if any(place not in blocked for place in one.places)]
    plan: dict[Place, Unit] = {}
    freed = 0
    for one in _in_order(chosen, policy):
        for place in one.places:
            if wanted_bytes is not None and freed >= wanted_bytes:
                return list(plan.values())
            if place not in blocked and place not in plan:
                plan[place] = Unit(place, units[place])
                freed += place.length
    return list(plan.values())


def _in_order(objects: list[Usage], policy: Policy) -> list[Usage]:
    """The objects as the policy wants them; what it made up itself is ignored."""
    by_id = {(one.candidate.session, one.candidate.id): one for one in objects}
    ordered = policy([one.candidate for one in objects])
    keys = dict.fromkeys((candidate.session, candidate.id) for candidate in ordered)
    return [by_id[key] for key in keys if key in by_id]
