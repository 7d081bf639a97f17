"""Free ranges in memory, and the rules of the tiling as a check.

Lives here: RangeMap, which keeps one space as the catalog does (allocator.py tells how), for tests,
simulation and fsck; and tiling_problems, which says what is wrong with a tiling. Calls nothing but the
allocator's values.

Invariants of a RangeMap: ``_ends`` ascends and has the keys of ``_starts``; ``_index`` ascends and has one
entry per range. An index entry is one integer, ``class << 56 | end``, which sorts like the pair.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator

from flightstore.memory.allocator import PAGE, UNIT, Edit, Range, size_class

__all__ = ["RangeMap", "tiling_problems"]

_SHIFT = 56
_END_MASK = (1 << _SHIFT) - 1


class RangeMap:
    """One space of free ranges, in memory; implements FreeRanges."""

    __slots__ = ("_ends", "_index", "_starts", "total_bytes")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: dict[int, int] = {end: start for start, end in ranges}
        self._ends = sorted(self._starts)
        self._index = sorted(size_class(end - start) << _SHIFT | end for end, start in self._starts.items())
        self.total_bytes = sum(end - start for end, start in self._starts.items())
        """Bytes of all ranges."""

    def first_at_least(self, klass: int, end: int, /) -> tuple[int, int] | None:
        """The smallest (size class, end) not below ``(klass, end)``."""
        at = bisect_left(self._index, klass << _SHIFT | end)
        if at == len(self._index):
            return None
        entry = self._index[at]
        return entry >> _SHIFT, entry & _END_MASK

    def start_of(self, end: int, /) -> int:
        """Start of the range that ends at `end`; KeyError if there is none."""
        return self._starts[end]

    def ending_at(self, end: int, /) -> int | None:
        """Start of the range that ends at `end`, if there is one."""
        return self._starts.get(end)

    def starting_at(self, start: int, /) -> int | None:
        """End of the range that starts at `start`, if there is one."""
        at = bisect_right(self._ends, start)
        if at == len(self._ends):
            return None
        end = self._ends[at]
        return end if self._starts[end] == start else None

    def apply(self, edit: Edit) -> None:
        """Carry out a plan made for this space.

        Raises:
            KeyError: a range to be removed is not there; the map is then damaged.
        """
        removed, added = edit
        if len(removed) == 1 and len(added) == 1 and removed[0][1] == added[0][1]:
            self._restart(removed[0], added[0][0])
            return
        for piece in removed:
            self._remove(*piece)
        for piece in added:
            self._add(*piece)

    def _restart(self, old: Range, start: int) -> None:
        """Move the start of one range: the rewrite of one value that keying by end is for."""
        old_start, end = old
        if self._starts[end] != old_start:
            raise KeyError(old)
        self._starts[end] = start
        self.total_bytes += old_start - start
        before, after = size_class(end - old_start), size_class(end - start)
        if before != after:
            del self._index[bisect_left(self._index, before << _SHIFT | end)]
            insort(self._index, after << _SHIFT | end)

    def _remove(self, start: int, end: int) -> None:
        if self._starts.pop(end) != start:
            raise KeyError((start, end))
        del self._ends[bisect_left(self._ends, end)]
        del self._index[bisect_left(self._index, size_class(end - start) << _SHIFT | end)]
        self.total_bytes -= end - start

    def _add(self, start: int, end: int) -> None:
        if end in self._starts:
            raise KeyError((start, end))
        self._starts[end] = start
        insort(self._ends, end)
        insort(self._index, size_class(end - start) << _SHIFT | end)
        self.total_bytes += end - start

    def largest_first(self) -> Iterator[Range]:
        """The ranges by descending size class, as `plan_punch` wants them."""
        for entry in reversed(self._index):
            end = entry & _END_MASK
            yield self._starts[end], end

    def largest_bytes(self) -> int:
        """Length of the longest range, 0 if there is none."""
        top = self._index[-1] >> _SHIFT if self._index else 0
        longest = 0
        for start, end in self.largest_first():
            if size_class(end - start) < top:
                break
            longest = max(longest, end - start)
        return longest

    def __iter__(self) -> Iterator[Range]:
        """The ranges by ascending address."""
        for end in self._ends:
            yield self._starts[end], end

    def __len__(self) -> int:
        return len(self._ends)


def tiling_problems(
    arena_bytes: int,
    *,
    extents: Iterable[Range],
    warm: Iterable[Range],
    cold: Iterable[Range],
    transit: Iterable[Range] = (),
) -> list[str]:
    """Everything that breaks the rules of the tiling (allocator.py); empty when all is well."""
    kinds = (
        ("extent", extents, UNIT),
        ("warm", warm, UNIT),
        ("cold", cold, PAGE),
        ("transit", transit, PAGE),
    )
    tiles = sorted((start, end, kind, unit) for kind, ranges, unit in kinds for start, end in ranges)
    problems: list[str] = []
    at = 0
    before = ""
    for start, end, kind, unit in tiles:
        what = f"{kind} {start}-{end}"
        if start >= end:
            problems.append(f"{what} is empty")
        if start % unit or end % unit:
            problems.append(f"{what} is not aligned to {unit}")
        if start > at:
            problems.append(f"nothing covers {at}-{start}")
        elif start < at:
            problems.append(f"{what} overlaps the {before} range before it by {at - start} bytes")
        elif kind == before and kind in ("warm", "cold"):
            problems.append(f"{what} is not joined with the {kind} range before it")
        at, before = max(at, end), kind
    if at != arena_bytes:
        problems.append(f"the tiling ends at {at}, the arena at {arena_bytes}")
    return problems
