"""Where payload goes in the arena: pure functions from free ranges to plans.

Lives here: allocate, release, plan_growth, plan_punch, and the size classes. Nothing here reads a file, takes
a lock or keeps state; it calls nothing else of flightstore. The caller applies a plan in the write
transaction in which it asked for it, so plans are never stale.

**The tiling.** Ranges of four kinds tile the arena (``[start, end)``, bytes) without gap or overlap:

- EXTENT  allocated;
- WARM    free, backed by memory;
- COLD    free, not backed;
- TRANSIT being grown or punched by one process; belongs to nobody else.

EXTENT, WARM and TRANSIT bytes are *backed*, at most the capacity. EXTENT and WARM begin and end at multiples
of UNIT (64), COLD and TRANSIT at multiples of PAGE (4096), so backed bytes are whole pages. No two WARM
ranges touch, nor two COLD ones.

**How free ranges are kept.** Two spaces, ``W`` (WARM) and ``C`` (COLD), each with a table and an index::

    table   'W' | 'C', then end (8 bytes)                          -> start (8 bytes)
    index   'w' | 'c', then size class (2 bytes), end (8 bytes)    -> empty

all big-endian, so that keys sort like numbers.

A range is keyed by its END, because allocation takes from its front: then only the value changes, and no key
moves. The index entry changes only when the range leaves its size class: usually one write per allocation. An
Edit that removes and adds ranges with the same end is such a rewrite.

**Order of attempts** (the caller's loop; flightstore.testing.arena_simulation is the reference):

1. `allocate` from WARM: two look-ups when there is a large warm range.
2. `plan_growth`; when ``lacking_bytes`` is 0: COLD -> TRANSIT, commit, fallocate, TRANSIT -> WARM by
   `release`, again 1.
3. Otherwise `plan_punch(lacking_bytes, keep_end=growth.start)`; when it frees enough: WARM -> TRANSIT,
   commit, punch, then in one transaction plan the growth again (backed bytes being fewer now), and only then
   give the punched ranges to COLD, so that the growth is planned where the kept warm range is; on with 2.
4. No COLD range is long enough: punch all there is and try 2 once more (punched pages join their cold
   neighbours).
5. `allocate` with ``looks=None``; only when that finds nothing is the arena full.

**What is never a false full.** A page that any extent touches cannot be given back: it is *occupied*, and its
free bytes serve only requests that fit between the extents. So "used + size <= capacity" cannot be kept in
full by any allocator that does not move extents. What is promised: a request succeeds when

    occupied pages * PAGE + (size rounded up to pages) <= capacity

and some run of free addresses (WARM and COLD together) has that many whole pages; also whenever it fits a
WARM range. A failure of such a request is an *avoidable* full (a bug); a failure with used + size <= capacity
where the first condition does not hold is *page-bound*; where only the second does not hold it is
*address-bound*.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeAlias

__all__ = [
    "PAGE",
    "UNIT",
    "Allocation",
    "Edit",
    "FreeRanges",
    "Growth",
    "Punch",
    "Range",
    "allocate",
    "plan_growth",
    "plan_punch",
    "release",
    "size_class",
]

UNIT = 64
"""Every extent and every warm range begins and ends at a multiple of this many bytes."""
PAGE = 4096
"""Memory is backed and given back in multiples of this many bytes."""
LOOKS = 8
"""How many ranges that may be slightly too small are looked at before one is taken that surely fits."""

Range: TypeAlias = tuple[int, int]
"""``(start, end)``, bytes of the arena; never empty."""


class FreeRanges(Protocol):
    """The free ranges of one space, at one moment."""

    def first_at_least(self, klass: int, end: int, /) -> tuple[int, int] | None:
        """The smallest ``(size class, end)`` of the index that is not below ``(klass, end)``."""

    def start_of(self, end: int, /) -> int:
        """Start of the range that ends at `end`.

        Raises:
            LookupError: there is none (the index contradicts the table).
        """
        ...

    def ending_at(self, end: int, /) -> int | None:
        """Start of the range that ends exactly at `end`, if there is one."""

    def starting_at(self, start: int, /) -> int | None:
        """End of the range that starts exactly at `start`, if there is one.

        The first range of the table with an end above `start` is the only candidate.
        """


class Edit(NamedTuple):
    """A change of one space: first these ranges go, then those come."""

    removed: tuple[Range, ...]
    added: tuple[Range, ...]


class Allocation(NamedTuple):
    """An extent to be: ``length`` bytes from ``offset``, and the edit of WARM that takes them."""

    offset: int
    length: int
    edit: Edit


class Growth(NamedTuple):
    """A range of COLD to back with memory, and the edit of COLD that takes it.

    ``lacking_bytes`` is how much must be punched elsewhere first, so that the capacity holds; while it is not
    0, the plan must not be carried out.
    """

    start: int
    end: int
    edit: Edit
    lacking_bytes: int


class Punch(NamedTuple):
    """Page-aligned ranges to give back to the system, the edit of WARM that takes them, and their bytes."""

    ranges: tuple[Range, ...]
    edit: Edit
    freed_bytes: int


def size_class(nbytes: int) -> int:
    """The size class of `nbytes`: 8 steps per power of two, in units of 64 bytes.

    Monotone: ``size_class(n) <= size_class(m)`` for ``n <= m``; consecutive; 0 for 0 bytes; below 2**16 for
    anything an address can name. Sizes below 16 units have a class of their own, so they fit exactly.
    """
    units = (nbytes + 63) >> 6
    # Four leading bits tell the class: the first is always 1, the other three are the 8 steps. Adding the
    # leading bits (8 to 15) to 8 * shift makes each power of two continue where the one before ended.
    shift = units.bit_length() - 4
    return (shift << 3) + (units >> shift) if shift > 0 else units


def allocate(
    free: FreeRanges, nbytes: int, *, align: int = UNIT, looks: int | None = LOOKS
) -> Allocation | None:
    """Plan an extent of at least `nbytes` bytes in `free`: good fit, lowest address among equals.

    The length is `nbytes` rounded up to `align`, and the extent begins at a multiple of `align`. With
    ``align=PAGE`` the extent shares no page with another one; what lies between the start of the range and
    the extent stays free, as a range of its own. Takes two look-ups when no range has the size class of the
    request, at most ``2 * looks + 2``.

    Args:
        free: Usually WARM.
        nbytes: At least 1: an empty payload needs no extent.
        align: A power of two, at least UNIT; UNIT or PAGE in practice.
        looks: How many ranges to look at that may be too small; None looks at all of them, for the last
            attempt
            before giving up.

    Returns:
        The plan, or None when nothing that fits was found.
    """
    length = (nbytes + align - 1) & -align
    found = _find(free, length, align, looks)
    if found is None:
        return None
    start, end, offset = found
    stop = offset + length
    if offset == start:
        added: tuple[Range, ...] = ((stop, end),) if stop != end else ()
    else:
        added = ((start, offset), (stop, end)) if stop != end else ((start, offset),)
    return Allocation(offset, length, Edit(((start, end),), added))


def _find(free: FreeRanges, length: int, align: int, looks: int | None) -> tuple[int, int, int] | None:
    """A range with room for `length` bytes at a multiple of `align`: (start, end, where they would begin)."""
    klass = size_class(length)
    end = 0
    while looks is None or looks > 0:
        entry = free.first_at_least(klass, end)
        if entry is None:
            return None
        klass, end = entry
        start = free.start_of(end)
        offset = (start + align - 1) & -align
        if offset + length <= end:
            return start, end, offset
        end += 1
        if looks is not None:
            looks -= 1
    # Every range of this class has room wherever it starts: the class below it holds the largest that may
    # not.
    entry = free.first_at_least(size_class(length + align - 2 * UNIT) + 1, 0)
    if entry is None:
        return None
    end = entry[1]
    start = free.start_of(end)
    return start, end, (start + align - 1) & -align


def release(free: FreeRanges, start: int, end: int) -> Edit:
    """Plan to give ``[start, end)`` to `free`, joined with both its neighbours there. Two look-ups.

    Used for every way a range becomes free: EXTENT to WARM, TRANSIT to WARM, TRANSIT to COLD.

    Requires:
        No byte of it is in `free`, ``start < end``, and both have the space's alignment.
    """
    left = free.ending_at(start)
    right = free.starting_at(end)
    if left is None:
        if right is None:
            return Edit((), ((start, end),))
        return Edit(((end, right),), ((start, right),))
    if right is None:
        return Edit(((left, start),), ((left, end),))
    return Edit(((left, start), (end, right)), ((left, right),))


def plan_growth(
    cold: FreeRanges,
    nbytes: int,
    *,
    warm: FreeRanges,
    backed_bytes: int,
    capacity_bytes: int,
    step_bytes: int,
    align: int = UNIT,
) -> Growth | None:
    """Plan which part of COLD to back, so that `nbytes` (as for `allocate`) fit there.

    Takes the front of the shortest suitable range (by size class; the lowest address among equals): one in
    which a whole step fits, else one in which the request fits. A warm range that ends where the cold one
    begins is counted in, so that only what it lacks is backed. At least `step_bytes` are backed where
    capacity and range have room for them, since growing costs a transaction and a system call whatever its
    size.

    Args:
        cold: The COLD space.
        nbytes: What could not be allocated.
        warm: The WARM space.
        backed_bytes: Backed now, TRANSIT included; a multiple of PAGE.
        capacity_bytes: Its upper bound.
        step_bytes: The usual growth.
        align: As for `allocate`.

    Returns:
        The plan (see `Growth` on ``lacking_bytes``), or None when no COLD range is long enough.
    """
    length = (nbytes + align - 1) & -align
    room = max(0, capacity_bytes - backed_bytes) & -PAGE
    step = min(_pages(step_bytes), room)
    found = _find(cold, _pages(max(length, step)), PAGE, LOOKS) or _find(cold, _pages(length), PAGE, None)
    if found is None:
        return None
    start, end, _ = found
    head = warm.ending_at(start)
    in_front = 0 if head is None else max(0, start - ((head + align - 1) & -align))
    need = max(PAGE, _pages(length - in_front))
    stop = min(end, start + max(need, step))
    edit = Edit(((start, end),), ((stop, end),) if stop != end else ())
    return Growth(start, stop, edit, max(0, need - room))


def plan_punch(warm: Iterable[Range], nbytes: int, *, keep_end: int | None = None) -> Punch:
    """Plan which whole pages of WARM to give back, at least `nbytes` in all, from as few ranges as possible.

    Never more than `nbytes` rounded up to pages. The pages go from the high end of a range, so that what
    stays is where allocation begins; pieces of pages at both ends stay WARM.

    Args:
        warm: The WARM ranges by descending size class; read only as far as needed.
        nbytes: Bytes to give back.
        keep_end: The range that ends there stays whole (a planned growth counts on it).

    Returns:
        The plan; ``freed_bytes`` is below `nbytes` when there is no more to give.
    """
    left = _pages(nbytes)
    punched: list[Range] = []
    removed: list[Range] = []
    added: list[Range] = []
    for start, end in warm:
        if left <= 0 or end - start < PAGE:
            break
        high = end & -PAGE
        low = max(_pages(start), high - left)
        if low >= high or end == keep_end:
            continue
        left -= high - low
        punched.append((low, high))
        removed.append((start, end))
        added += [piece for piece in ((start, low), (high, end)) if piece[0] != piece[1]]
    freed = sum(high - low for low, high in punched)
    return Punch(tuple(punched), Edit(tuple(removed), tuple(added)), freed)


def _pages(nbytes: int) -> int:
    """`nbytes` rounded up to whole pages."""
    return (nbytes + PAGE - 1) & -PAGE
