"""What a create does when nothing else makes room: evict, and only when that is not enough, spill.

Nothing is dropped in vain: a request that could not be met by all that is evictable and spillable together
changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from flightstore.lifecycle import eviction, spilling
from flightstore.lifecycle.choosing import Policy, Usage, marked_first, plan_eviction, plan_spill
from flightstore.lifecycle.connection import Connection

__all__ = ["Effort", "evictable_bytes", "policy_of", "relieve", "relieve_session", "spillable_bytes"]

# Looking at all objects is not worth it for a few bytes, nor for a few small objects.
_LEAST_SHARE = 7  # a hundred-and-twenty-eighth of the capacity
_LEAST_OBJECTS = 512
_SMALL_BYTES = 16 << 10
_MOST_SHARE = 3


@dataclass(frozen=True, slots=True)
class Effort:
    """On whose behalf room is made, and how far that may go."""

    session: int = 0
    """Whose policy decides."""
    may_spill: bool = True
    """Whether objects may be spilled: `create_now` does not wait for a disk."""


def policy_of(conn: Connection, session: int) -> Policy:
    """The eviction policy that this process uses for a session."""
    policy: Policy = conn.policies.get(session, marked_first)
    return policy


def relieve(conn: Connection, nbytes: int, effort: Effort) -> bool:
    """Evict, or else spill, towards room for `nbytes`; whether memory became free.

    Raises:
        SpillFailed: only spilling could have helped, and it failed.
    """
    usage = eviction.read_usage(conn)
    used = conn.control.usage()[0]
    lacking = nbytes - (conn.capacity_bytes - used)
    mean = used // max(len(usage), 1)
    several = min(mean * _LEAST_OBJECTS, conn.capacity_bytes >> _MOST_SHARE) if mean < _SMALL_BYTES else 0
    wanted = max(lacking if lacking > 0 else nbytes, conn.capacity_bytes >> _LEAST_SHARE, several)
    return _relieve(conn, usage, lacking, wanted, None, effort)


def _relieve(
    conn: Connection, usage: list[Usage], lacking: int, wanted: int, session: int | None, effort: Effort
) -> bool:
    """Evict or spill towards `wanted` bytes, unless even `lacking` ones are not to be had."""
    policy = policy_of(conn, effort.session)
    evictable = evictable_bytes(usage, policy) if any(one.evictable for one in usage) else 0
    may_spill = effort.may_spill and spilling.spill_url(conn) is not None
    if lacking > evictable and not (may_spill and _can_spill(usage, lacking - evictable, policy)):
        return False
    if evictable and eviction.evict(conn, wanted, policy, session=session):
        return True
    return may_spill and spilling.spill(conn, wanted, policy, session=session) > 0


def _can_spill(usage: list[Usage], nbytes: int, policy: Policy) -> bool:
    """Whether spilling could free so much."""
    return sum([unit.place.length for unit in plan_spill(usage, nbytes, policy)]) >= nbytes


def relieve_session(conn: Connection, lacking_bytes: int, effort: Effort) -> bool:
    """The same within a session's quota: only its own objects go; whether memory became free."""
    usage = eviction.read_usage(conn, effort.session)
    return _relieve(conn, usage, lacking_bytes, lacking_bytes, effort.session, effort)


def evictable_bytes(usage: list[Usage], policy: Policy = marked_first) -> int:
    """What evicting everything that may be evicted would free."""
    plan = plan_eviction(usage, None, policy)
    going = {one.serial for one in plan}
    kept = {place for one in usage if one.serial not in going for place in one.places}
    return sum(place.length for place in {place for one in plan for place in one.places} - kept)


def spillable_bytes(usage: list[Usage], policy: Policy = marked_first) -> int:
    """What spilling everything that may be spilled would free."""
    return sum(unit.place.length for unit in plan_spill(usage, None, policy))
