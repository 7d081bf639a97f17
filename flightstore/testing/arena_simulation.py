"""The whole policy of the arena on paper: allocate, grow, punch, release, without any memory behind it.

Lives here: Simulation, the reference for the order in which the store asks the allocator, one transaction per
method whose name does not begin with an underscore, except `allocate`, which is the loop over them. Calls
flightstore.memory only. Between two transactions anybody else may act; tests do.

Invariant (``problems()`` checks it): the ranges tile the arena, and ``backed_bytes`` is what is neither COLD
nor more than the capacity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from flightstore.memory import allocator
from flightstore.memory.allocator import PAGE, UNIT, Range
from flightstore.memory.rangemap import RangeMap, tiling_problems

__all__ = ["Fragmentation", "FullKind", "Simulation"]

FullKind: TypeAlias = Literal["real", "page-bound", "address-bound", "avoidable"]
"""Why a request failed, see allocator.py; ``real``: used + size > capacity."""


@dataclass(frozen=True, slots=True)
class Fragmentation:
    """How scattered the free memory is, at one moment."""

    used_bytes: int
    """In extents."""
    backed_bytes: int
    """In extents, WARM and TRANSIT."""
    warm_bytes: int
    """Free and backed."""
    warm_ranges: int
    """How many ranges that is."""
    largest_warm_bytes: int
    """The longest of them."""
    unpunchable_bytes: int
    """WARM bytes in pages that an extent touches: they serve small requests only."""
    cold_ranges: int
    """How many ranges are not backed."""
    largest_cold_bytes: int
    """The longest of them."""


@dataclass(slots=True)
class Simulation:
    """An arena of ``arena_bytes`` addresses, of them at most ``capacity_bytes`` backed (whole pages)."""

    capacity_bytes: int
    arena_bytes: int
    step_bytes: int
    warm: RangeMap = field(default_factory=RangeMap)
    extents: dict[int, int] = field(default_factory=dict)
    """Offset -> length."""
    transit: dict[Range, str] = field(default_factory=dict)
    """Range -> ``growing`` or ``punching``."""
    used_bytes: int = 0
    backed_bytes: int = 0
    growths: int = 0
    punched_ranges: int = 0
    last_resorts: int = 0
    """How often no COLD range was long enough, and everything was punched."""
    cold: RangeMap = field(init=False)

    def __post_init__(self) -> None:
        self.cold = RangeMap([(0, self.arena_bytes)])

    # --- transactions

    def take_warm(self, nbytes: int, *, align: int = UNIT, looks: int | None = allocator.LOOKS) -> int | None:
        """WARM -> EXTENT; the offset, or None."""
        plan = allocator.allocate(self.warm, nbytes, align=align, looks=looks)
        if plan is None:
            return None
        self.warm.apply(plan.edit)
        self.extents[plan.offset] = plan.length
        self.used_bytes += plan.length
        return plan.offset

    def free(self, offset: int) -> None:
        """EXTENT -> WARM."""
        length = self.extents.pop(offset)
        self.used_bytes -= length
        self.warm.apply(allocator.release(self.warm, offset, offset + length))

    def begin_growth(
        self, nbytes: int, *, align: int = UNIT, punched: tuple[Range, ...] = ()
    ) -> Range | None:
        """End of the punching of `punched`, then COLD -> TRANSIT; None when that needs (more) punching.

        The growth is planned before the punched ranges become COLD: so it comes out as it was planned when
        they were chosen, next to the warm range that was kept for it.
        """
        self.backed_bytes -= sum(end - start for start, end in punched)
        plan = self._plan_growth(nbytes, align)
        grown: Range | None = None
        if plan is not None and plan.lacking_bytes == 0:
            grown = (plan.start, plan.end)
            self.cold.apply(plan.edit)
            self.transit[grown] = "growing"
            self.backed_bytes += plan.end - plan.start
            self.growths += 1
        for piece in punched:
            del self.transit[piece]
            self.cold.apply(allocator.release(self.cold, *piece))
        return grown

    def end_growth(self, grown: Range) -> None:
        """TRANSIT -> WARM, when the memory is there."""
        del self.transit[grown]
        self.warm.apply(allocator.release(self.warm, *grown))

    def begin_punch(self, nbytes: int, *, align: int = UNIT) -> tuple[Range, ...]:
        """WARM -> TRANSIT, as much as the growth for `nbytes` lacks; nothing when all of it would not do."""
        growth = self._plan_growth(nbytes, align)
        if growth is None:  # no run of addresses: whatever becomes cold may make one
            self.last_resorts += 1
            plan = allocator.plan_punch(self.warm.largest_first(), self.arena_bytes)
        else:
            plan = allocator.plan_punch(
                self.warm.largest_first(), growth.lacking_bytes, keep_end=growth.start
            )
            if plan.freed_bytes < growth.lacking_bytes:
                return ()
        self.warm.apply(plan.edit)
        self.transit.update(dict.fromkeys(plan.ranges, "punching"))
        self.punched_ranges += len(plan.ranges)
        return plan.ranges

    def _plan_growth(self, nbytes: int, align: int) -> allocator.Growth | None:
        return allocator.plan_growth(
            self.cold,
            nbytes,
            warm=self.warm,
            backed_bytes=self.backed_bytes,
            capacity_bytes=self.capacity_bytes,
            step_bytes=self.step_bytes,
            align=align,
        )

    # --- the policy

    def allocate(self, nbytes: int, *, align: int = UNIT) -> int | None:
        """An extent of at least `nbytes` bytes: its offset, or None when the arena is full (`why_full`)."""
        offset = self.take_warm(nbytes, align=align)
        if offset is not None:
            return offset
        grown = self.begin_growth(nbytes, align=align)
        if grown is None:
            punched = self.begin_punch(nbytes, align=align)
            if punched:
                grown = self.begin_growth(nbytes, align=align, punched=punched)
                # After a last resort the addresses exist only now that the punched pages are COLD.
                grown = grown or self.begin_growth(nbytes, align=align)
        if grown is not None:
            self.end_growth(grown)
        return self.take_warm(nbytes, align=align, looks=None)

    # --- what it says of itself

    def occupied_bytes(self) -> int:
        """Bytes of the pages that an extent touches (and of TRANSIT)."""
        return self.backed_bytes - sum(_whole_pages(piece) for piece in self.warm)

    def why_full(self, nbytes: int, *, align: int = UNIT) -> FullKind:
        """Which kind of full the failure of a request is; see allocator.py for the definitions."""
        length = (nbytes + align - 1) & -align
        if self.used_bytes + length > self.capacity_bytes:
            return "real"
        if any(((start + align - 1) & -align) + length <= end for start, end in self.warm):
            return "avoidable"
        paged = (length + PAGE - 1) & -PAGE
        if self.occupied_bytes() + paged > self.capacity_bytes:
            return "page-bound"
        return "avoidable" if self._longest_page_run() >= paged else "address-bound"

    def _longest_page_run(self) -> int:
        """The longest run of whole free pages, WARM and COLD together."""
        longest = 0
        run: Range = (0, 0)
        for start, end in sorted([*self.warm, *self.cold]):
            run = (run[0], end) if start == run[1] else (start, end)
            longest = max(longest, _whole_pages(run))
        return longest

    def fragmentation(self) -> Fragmentation:
        """The state of the free memory now."""
        warm = self.warm.total_bytes
        return Fragmentation(
            used_bytes=self.used_bytes,
            backed_bytes=self.backed_bytes,
            warm_bytes=warm,
            warm_ranges=len(self.warm),
            largest_warm_bytes=self.warm.largest_bytes(),
            unpunchable_bytes=warm - sum(_whole_pages(piece) for piece in self.warm),
            cold_ranges=len(self.cold),
            largest_cold_bytes=self.cold.largest_bytes(),
        )

    def problems(self) -> list[str]:
        """Every broken invariant; empty when all is well."""
        found = tiling_problems(
            self.arena_bytes,
            extents=((start, start + length) for start, length in self.extents.items()),
            warm=self.warm,
            cold=self.cold,
            transit=self.transit,
        )
        backed = self.arena_bytes - sum(end - start for start, end in self.cold)
        if backed != self.backed_bytes:
            found.append(f"{backed} bytes are backed, {self.backed_bytes} are counted")
        if backed > self.capacity_bytes:
            found.append(f"{backed} bytes are backed, the capacity is {self.capacity_bytes}")
        if sum(self.extents.values()) != self.used_bytes:
            found.append("used_bytes is not the sum of the extents")
        return found


def _whole_pages(piece: Range) -> int:
    """Bytes of the whole pages within a range."""
    start, end = piece
    return max(0, (end & -PAGE) - ((start + PAGE - 1) & -PAGE))
