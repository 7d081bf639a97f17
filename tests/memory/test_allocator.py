"""The allocator: properties of each plan, and the whole policy against a naive model of the arena.

The model is a list with one letter per UNIT of the arena; it knows nothing of ranges, classes or coalescing.
"""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flightstore.memory.allocator import (
    LOOKS,
    PAGE,
    UNIT,
    Edit,
    Range,
    allocate,
    plan_growth,
    plan_punch,
    release,
    size_class,
)
from flightstore.memory.rangemap import RangeMap, tiling_problems
from flightstore.testing.arena_simulation import Simulation
from flightstore.testing.fragmentation import main, run

ALIGNMENTS = st.sampled_from([UNIT, PAGE])


@st.composite
def free_ranges(draw: st.DrawFn, unit: int = UNIT, most: int = 400) -> list[Range]:
    """Disjoint ranges that do not touch, at multiples of `unit`."""
    ranges: list[Range] = []
    at = 0
    for gap, length in draw(st.lists(st.tuples(st.integers(1, 30), st.integers(1, most)), max_size=30)):
        at += gap * unit
        ranges.append((at, at + length * unit))
        at += length * unit
    return ranges


def covered(ranges: list[Range] | RangeMap) -> set[int]:
    return {unit for start, end in ranges for unit in range(start // UNIT, end // UNIT)}


def after(ranges: list[Range], edit: Edit) -> list[Range]:
    """The ranges once the edit is carried out, by the book."""
    assert set(edit.removed) <= set(ranges)
    return sorted((set(ranges) - set(edit.removed)) | set(edit.added))


def assert_same(free: RangeMap, ranges: list[Range]) -> None:
    """The map holds exactly these ranges, in its table and in its index."""
    assert list(free) == sorted(ranges)
    assert free.total_bytes == sum(end - start for start, end in ranges)
    index = []
    entry = free.first_at_least(0, 0)
    while entry is not None:
        index.append(entry)
        entry = free.first_at_least(entry[0], entry[1] + 1)
    assert index == sorted((size_class(end - start), end) for start, end in ranges)


# --- size classes


@given(st.integers(0, 1 << 50), st.integers(0, 1 << 50))
def test_size_class_is_monotone(a: int, b: int) -> None:
    low, high = sorted((a, b))
    assert size_class(low) <= size_class(high) < 1 << 16


def test_size_classes_are_consecutive_and_an_eighth_wide() -> None:
    first_of_class = [0]
    for units in range(1, 5000):
        klass = size_class(units * UNIT)
        if klass != len(first_of_class) - 1:
            assert klass == len(first_of_class)
            first_of_class.append(units)
    for low, high in pairwise(first_of_class[1:]):
        assert (high - low) * 8 <= max(low, 8)


# --- allocate


@given(free_ranges(), st.integers(1, 30_000), ALIGNMENTS)
def test_allocate_takes_free_bytes_and_changes_nothing_else(
    ranges: list[Range], nbytes: int, align: int
) -> None:
    free = RangeMap(ranges)
    plan = allocate(free, nbytes, align=align, looks=None)
    fits = any(-(-start // align) * align + -(-nbytes // align) * align <= end for start, end in ranges)
    assert (plan is not None) == fits
    if plan is None:
        return
    assert plan.length == -(-nbytes // align) * align
    assert plan.offset % align == 0
    taken = covered([(plan.offset, plan.offset + plan.length)])
    assert taken <= covered(ranges)
    left = after(ranges, plan.edit)
    assert covered(left) == covered(ranges) - taken
    assert all(start < end for start, end in left)
    assert len(plan.edit.removed) == 1
    assert len(plan.edit.added) <= (1 if align == UNIT else 2)
    free.apply(plan.edit)
    assert_same(free, left)


@given(free_ranges(), st.integers(1, 30_000), ALIGNMENTS)
def test_a_bounded_search_finds_whatever_is_well_above_the_size(
    ranges: list[Range], nbytes: int, align: int
) -> None:
    """With few looks, only ranges within two classes (a quarter) of what surely fits may be overlooked."""
    plan = allocate(RangeMap(ranges), nbytes, align=align, looks=1)
    if plan is None:
        sure = (-(-nbytes // align) * align + align - UNIT) * 5 // 4 + UNIT
        assert all(end - start < sure for start, end in ranges)


def test_allocate_prefers_the_class_of_the_size_and_there_the_lowest_address() -> None:
    free = RangeMap([(0, 1 << 20), (2 << 20, (2 << 20) + 640), (3 << 20, (3 << 20) + 640)])
    plan = allocate(free, 600)
    assert plan is not None
    assert (plan.offset, plan.length) == (2 << 20, 640)
    assert plan.edit == Edit((((2 << 20), (2 << 20) + 640),), ())


def test_page_alignment_leaves_the_fragment_in_front_free() -> None:
    plan = allocate(RangeMap([(64, 5 * PAGE)]), 5000, align=PAGE)
    assert plan is not None
    assert (plan.offset, plan.length) == (PAGE, 2 * PAGE)
    assert plan.edit.added == ((64, PAGE), (3 * PAGE, 5 * PAGE))


class Counting(RangeMap):
    """A RangeMap that counts look-ups."""

    __slots__ = ("looks",)

    def __init__(self, ranges: list[Range]) -> None:
        super().__init__(ranges)
        self.looks = 0

    def first_at_least(self, klass: int, end: int, /) -> tuple[int, int] | None:
        self.looks += 1
        return super().first_at_least(klass, end)

    def start_of(self, end: int, /) -> int:
        self.looks += 1
        return super().start_of(end)

    def ending_at(self, end: int, /) -> int | None:
        self.looks += 1
        return super().ending_at(end)

    def starting_at(self, start: int, /) -> int | None:
        self.looks += 1
        return super().starting_at(start)


def test_few_lookups() -> None:
    one = Counting([(0, 1 << 30)])
    assert allocate(one, 1000) is not None
    assert one.looks == 2
    one.looks = 0
    release(one, 2 << 30, (2 << 30) + 64)
    assert one.looks == 2
    # A thousand ranges of the right class, all one unit too small, and one large range behind them.
    crowd = Counting([(at << 20, (at << 20) + 128 * UNIT) for at in range(1000)] + [(1 << 40, 1 << 41)])
    plan = allocate(crowd, 129 * UNIT)
    assert plan is not None
    assert plan.offset == 1 << 40
    assert crowd.looks == 2 * LOOKS + 2


# --- release


@given(free_ranges(), st.data())
def test_release_joins_both_neighbours(ranges: list[Range], data: st.DataObject) -> None:
    limit = max((end for _, end in ranges), default=0) + 50 * UNIT
    bounds = [0, *(bound for piece in ranges for bound in piece), limit]
    gaps = [(a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=True) if a < b]
    low, high = data.draw(st.sampled_from(gaps))
    start = data.draw(st.integers(low // UNIT, high // UNIT - 1)) * UNIT
    end = data.draw(st.integers(start // UNIT + 1, high // UNIT)) * UNIT
    edit = release(RangeMap(ranges), start, end)
    left = after(ranges, edit)
    assert covered(left) == covered(ranges) | covered([(start, end)])
    assert all(a[1] < b[0] for a, b in pairwise(left))
    assert len(edit.added) == 1
    assert set(edit.removed) == {piece for piece in ranges if piece[1] == start or piece[0] == end}
    free = RangeMap(ranges)
    free.apply(edit)
    assert_same(free, left)


# --- growth and punching


@given(free_ranges(unit=PAGE, most=40), st.data())
def test_growth_backs_enough_and_no_more_than_the_capacity(cold: list[Range], data: st.DataObject) -> None:
    nbytes = data.draw(st.integers(1, 50 * PAGE))
    step = data.draw(st.integers(0, 20)) * PAGE
    backed = data.draw(st.integers(0, 60)) * PAGE
    capacity = data.draw(st.integers(backed // PAGE, 120)) * PAGE
    heads = [(start - UNIT * n, start) for start, _ in cold if (n := data.draw(st.integers(0, 60)))]
    heads = [head for head in heads if not covered([head]) & covered(cold) and head[0] >= 0]
    warm = RangeMap(heads)
    plan = plan_growth(
        RangeMap(cold), nbytes, warm=warm, backed_bytes=backed, capacity_bytes=capacity, step_bytes=step
    )
    paged = -(-nbytes // PAGE) * PAGE
    assert (plan is None) == all(end - start < paged for start, end in cold)
    if plan is None:
        return
    grown = (plan.start, plan.end)
    assert plan.start % PAGE == plan.end % PAGE == 0
    assert covered(after(cold, plan.edit)) == covered(cold) - covered([grown])
    assert covered([grown]) <= covered(cold)
    warm.apply(release(warm, *grown))
    assert allocate(warm, nbytes, looks=None) is not None
    if plan.lacking_bytes == 0:
        assert backed + plan.end - plan.start <= capacity
    else:
        assert backed + plan.end - plan.start == capacity + plan.lacking_bytes
        assert plan.end - plan.start <= paged


def test_growth_counts_the_warm_tail_in_and_takes_a_step() -> None:
    cold = RangeMap([(10 * PAGE, 100 * PAGE)])
    warm = RangeMap([(PAGE, 10 * PAGE)])
    rest = {"warm": warm, "backed_bytes": 10 * PAGE, "capacity_bytes": 25 * PAGE}
    small = plan_growth(cold, 11 * PAGE, step_bytes=0, **rest)
    assert small is not None
    assert (small.start, small.end, small.lacking_bytes) == (10 * PAGE, 12 * PAGE, 0)
    stepped = plan_growth(cold, 11 * PAGE, step_bytes=40 * PAGE, **rest)
    assert stepped is not None
    assert stepped.end == 25 * PAGE, "a step as far as the capacity has room"
    beyond = plan_growth(cold, 30 * PAGE, step_bytes=0, **rest)
    assert beyond is not None
    assert (beyond.end, beyond.lacking_bytes) == (31 * PAGE, 6 * PAGE)


@given(free_ranges(most=1000), st.integers(1, 300 * PAGE), st.integers(0, 29))
def test_punch_frees_what_is_asked_and_keeps_pieces_of_pages(
    ranges: list[Range], nbytes: int, kept: int
) -> None:
    keep_end = ranges[kept][1] if kept < len(ranges) else None
    plan = plan_punch(RangeMap(ranges).largest_first(), nbytes, keep_end=keep_end)
    assert plan.freed_bytes == sum(end - start for start, end in plan.ranges)
    assert all(start < end and start % PAGE == end % PAGE == 0 for start, end in plan.ranges)
    assert covered(after(ranges, plan.edit)) == covered(ranges) - covered(list(plan.ranges))
    assert all(start < end for start, end in plan.edit.added)
    assert keep_end not in [end for _, end in plan.edit.removed]
    pages = [end // PAGE + -(-start // PAGE) * -1 for start, end in ranges if end != keep_end]
    possible = sum(n for n in pages if n > 0) * PAGE
    assert plan.freed_bytes == min(-(-nbytes // PAGE) * PAGE, possible)


def test_punch_takes_the_largest_first() -> None:
    free = RangeMap([(0, 4 * PAGE), (8 * PAGE, 40 * PAGE), (50 * PAGE, 54 * PAGE)])
    assert plan_punch(free.largest_first(), 8 * PAGE).ranges == ((32 * PAGE, 40 * PAGE),)


# --- the check itself


def test_tiling_problems_names_each_kind_of_damage() -> None:
    def problems(**kinds: list[Range]) -> str:
        return "; ".join(tiling_problems(4 * PAGE, **{"extents": [], "warm": [], "cold": [], **kinds}))

    assert problems(extents=[(0, 64)], warm=[(64, PAGE)], cold=[(PAGE, 4 * PAGE)]) == ""
    assert "nothing covers 0-4096" in problems(cold=[(PAGE, 4 * PAGE)])
    assert "overlaps" in problems(extents=[(0, 128)], warm=[(64, PAGE)], cold=[(PAGE, 4 * PAGE)])
    assert "not joined" in problems(warm=[(0, 64), (64, PAGE)], cold=[(PAGE, 4 * PAGE)])
    assert "not aligned to 4096" in problems(warm=[(0, 64)], cold=[(64, 4 * PAGE)])
    assert "is empty" in problems(warm=[(0, 0)], cold=[(0, 4 * PAGE)])
    assert "ends at 4096" in problems(cold=[(0, PAGE)])


def test_a_rangemap_refuses_an_edit_of_another_state() -> None:
    for edit in (Edit(((0, 64),), ()), Edit(((64, 192),), ((128, 192),)), Edit((), ((64, 128),))):
        free = RangeMap([(0, 128), (256, 320)])
        with pytest.raises(KeyError):
            free.apply(edit)


# --- the whole policy


class ArenaMachine(RuleBasedStateMachine):
    """The simulation, with growing and punching of others in the middle, against one letter per unit."""

    CAPACITY = 24 * PAGE
    ARENA = 4 * CAPACITY

    def __init__(self) -> None:
        super().__init__()
        self.arena = Simulation(self.CAPACITY, self.ARENA, step_bytes=2 * PAGE)
        self.letters = ["-"] * (self.ARENA // UNIT)
        self.growing: list[Range] = []
        self.punching: list[tuple[int, tuple[Range, ...]]] = []

    @rule(nbytes=st.one_of(st.integers(1, 300), st.integers(1, 26 * PAGE)), align=ALIGNMENTS)
    def allocate(self, nbytes: int, align: int) -> None:
        offset = self.arena.allocate(nbytes, align=align)
        if offset is None:
            # Others hold TRANSIT ranges; those are occupied while they last.
            assert self.arena.why_full(nbytes, align=align) != "avoidable"
            return
        length = self.arena.extents[offset]
        assert offset % align == 0
        assert nbytes <= length < nbytes + align
        units = range(offset // UNIT, (offset + length) // UNIT)
        assert all(self.letters[unit] == "-" for unit in units), "memory of another extent"
        for unit in units:
            self.letters[unit] = "E"

    @precondition(lambda self: self.arena.extents)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.arena.extents)))
        length = self.arena.extents[offset]
        self.arena.free(offset)
        for unit in range(offset // UNIT, (offset + length) // UNIT):
            self.letters[unit] = "-"

    @rule(nbytes=st.integers(1, 8 * PAGE))
    def another_begins_to_grow(self, nbytes: int) -> None:
        grown = self.arena.begin_growth(nbytes)
        if grown is not None:
            self.growing.append(grown)
            self._mark(grown, "-", "T")

    @precondition(lambda self: self.growing)
    @rule()
    def another_has_grown(self) -> None:
        grown = self.growing.pop()
        self.arena.end_growth(grown)
        self._mark(grown, "T", "-")

    @rule(nbytes=st.integers(1, 8 * PAGE))
    def another_begins_to_punch(self, nbytes: int) -> None:
        punched = self.arena.begin_punch(nbytes)
        if punched:
            self.punching.append((nbytes, punched))
            for piece in punched:
                self._mark(piece, "-", "T")

    @precondition(lambda self: self.punching)
    @rule()
    def another_has_punched(self) -> None:
        nbytes, punched = self.punching.pop()
        grown = self.arena.begin_growth(nbytes, punched=punched)
        for piece in punched:
            self._mark(piece, "T", "-")
        if grown is not None:
            self.growing.append(grown)
            self._mark(grown, "-", "T")

    def _mark(self, piece: Range, old: str, new: str) -> None:
        for unit in range(piece[0] // UNIT, piece[1] // UNIT):
            assert self.letters[unit] == old
            self.letters[unit] = new

    @invariant()
    def holds(self) -> None:
        assert self.arena.problems() == []
        units = covered([(at, at + length) for at, length in self.arena.extents.items()])
        assert units == {at for at, letter in enumerate(self.letters) if letter == "E"}
        assert covered(self.arena.warm) | covered(self.arena.cold) == {
            at for at, letter in enumerate(self.letters) if letter == "-"
        }


TestArenaMachine = pytest.mark.req("API-2", "FAIL-5")(ArenaMachine.TestCase)
TestArenaMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


@pytest.mark.req("API-2", "API-10")
def test_the_whole_capacity_can_be_used_and_not_a_byte_more() -> None:
    arena = Simulation(64 * PAGE, 256 * PAGE, step_bytes=4 * PAGE)
    for _ in range(64):
        assert arena.allocate(PAGE) is not None
    assert arena.allocate(1) is None
    assert arena.why_full(1) == "real"
    for offset in list(arena.extents)[::2]:
        arena.free(offset)
    assert arena.allocate(32 * PAGE) is not None, "half the pages, none of them adjacent: punched and grown"
    assert arena.used_bytes == arena.backed_bytes == arena.capacity_bytes
    assert arena.problems() == []


@pytest.mark.req("FAIL-5")
def test_what_pages_make_impossible_is_told_apart() -> None:
    """One small extent in every page: 1/64 of the capacity in use, and not two pages can be had."""
    arena = Simulation(64 * PAGE, 256 * PAGE, step_bytes=PAGE)
    offsets = [arena.allocate(UNIT) for _ in range(64 * PAGE // UNIT)]
    assert None not in offsets
    for offset in offsets:
        if offset is not None and offset % PAGE:
            arena.free(offset)
    assert arena.used_bytes == arena.capacity_bytes // 64
    assert arena.allocate(2 * PAGE) is None
    assert arena.why_full(2 * PAGE) == "page-bound"
    assert arena.fragmentation().unpunchable_bytes == arena.capacity_bytes - arena.used_bytes
    assert arena.allocate(PAGE - UNIT) is not None, "between the extents there is room"


@pytest.mark.slow
@pytest.mark.req("FAIL-5", "API-2")
@pytest.mark.parametrize("mix", ["realistic", "tiny"])
def test_no_false_full_at_ninety_per_cent_load(mix: str) -> None:
    report = run(100_000, mix=mix, capacity_bytes=64 << 20 if mix == "realistic" else 4 << 20)
    print(report)
    assert report.allocations > 50_000
    assert report.false_full == 0
    if mix == "realistic":
        assert sum(report.full.values()) == 0


def test_the_measurement_notices_too_few_addresses() -> None:
    """With addresses equal to the capacity the same load fails: the count of false fulls is not blind."""
    report = run(10_000, capacity_bytes=16 << 20, address_factor=1)
    assert report.full["address-bound"] > 0


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--operations", "2000", "--json"], standalone_mode=False)
    assert stop.value.code == 0
    assert '"false_full": 0' in capsys.readouterr().out


def test_allocating_and_releasing_stays_cheap() -> None:
    """Well below 10 us for both with a thousand ranges around (best of several rounds)."""
    free = RangeMap(
        [(at << 20, (at << 20) + (at % 50 + 1) * UNIT) for at in range(1000)] + [(1 << 40, 1 << 41)]
    )
    rng = random.Random(1)
    best = float("inf")
    for _ in range(20):
        nbytes = rng.randrange(5_000, 100_000)
        begun = time.perf_counter()
        for _ in range(200):
            plan = allocate(free, nbytes)
            assert plan is not None
            free.apply(plan.edit)
            free.apply(release(free, plan.offset, plan.offset + plan.length))
        best = min(best, (time.perf_counter() - begun) / 200)
    print(f"allocate and release, applied: {best * 1e6:.1f} us")
    assert best < 40e-6
