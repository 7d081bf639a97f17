"""What every benchmark needs: interleaved repetitions, medians with their spread, targets, scratch space.

Calls nothing of flightstore, and needs the standard library alone: it is imported in the peers' environments
too. The rule that makes figures comparable on a noisy machine: one repetition measures every contender once,
back to back, and a ratio is taken within a repetition, never between two medians. All figures of a row are in
the row's own unit, and a ratio is ours divided by the other's in that unit: below 1 is good for durations,
above 1 is good for rates.
"""

from __future__ import annotations

import gc
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

OURS = "flightstore"
GIB = 1 << 30
MIB = 1 << 20

_start_s = time.monotonic()

T = TypeVar("T")

Contender = Callable[[], Mapping[str, float]]
"""Runs one repetition of one contender and returns its measures by name."""

Values = Sequence["float | None"]
"""One value per repetition; None where a contender did not measure that."""

Samples = Mapping[str, Mapping[str, Values]]
"""contender -> measure -> values."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the ends of one figure over the repetitions."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        """The spread of at least one value."""
        ordered = sorted(value for value in values if value is not None)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])

    @classmethod
    def of_ratio(cls, left: Values, right: Values) -> Spread | None:
        """The spread of left / right, repetition by repetition; None where no repetition has both."""
        pairs = zip(left, right, strict=True)
        found = [mine / theirs for mine, theirs in pairs if mine is not None and theirs is not None]
        return cls.of(found) if found else None


@dataclass(frozen=True, slots=True)
class Target:
    """What a row must reach: a bound on our figure, or on its ratio to a baseline."""

    limit: float
    """The bound, in the row's unit, or a ratio when `against` is set."""
    at_most: bool
    """True for an upper bound, False for a lower one."""
    against: str | None = None
    """Label of the baseline that the ratio is taken against."""

    def met(self, row: Row) -> bool | None:
        """Whether the row's median meets it; None when our figure was not measured."""
        figure = row.ratios.get(self.against) if self.against else row.ours
        if figure is None:
            return None
        return bool(figure.median <= self.limit if self.at_most else figure.median >= self.limit)

    def text(self, unit: str) -> str:
        """The target as a person writes it."""
        sign = "<=" if self.at_most else ">="
        return f"{sign} {self.limit:g} x {self.against}" if self.against else f"{sign} {self.limit:,g} {unit}"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of ours, what was measured beside it, and what it should be."""

    group: str
    name: str
    unit: str
    ours: Spread | None
    baselines: Mapping[str, Spread]
    ratios: Mapping[str, Spread]
    target: Target | None = None
    note: str = ""
    of_memcpy: Mapping[str, Spread] = field(default_factory=dict)
    """Every store's figure divided by that of the row's memcpy in the same repetitions."""
    memcpy: str | None = None
    """Which memcpy that is."""
    measure: str = ""
    """What of the group is measured: with it, the row's key."""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target or without a figure."""
        return self.target.met(self) if self.target else None


@dataclass(frozen=True, slots=True)
class Settings:
    """How much to measure, and where."""

    scratch: Path
    """Directory on a memory file system; emptied at the end."""
    size_bytes: int = GIB
    """Payload of the large table."""
    quick: bool = False
    """Few repetitions of little work: shows that it runs, says nothing about speed."""
    baselines_only: bool = False
    """Measure memcpy and the stores of others alone."""
    environments: Path = Path()
    """Directory of the peers' environments."""

    def scaled(self, full: int, quick: int) -> int:
        """`full`, or `quick` in a quick run."""
        return quick if self.quick else full


def say(text: str) -> None:
    """Tell people what is being measured, and how long it has been going on."""
    print(f"{time.monotonic() - _start_s:5.0f} s  {text}", file=sys.stderr, flush=True)


def interleave(contenders: Mapping[str, Contender], repetitions: int, *, warmups: int = 1) -> Samples:
    """Run A B C, A B C, ... and collect every measure; the first `warmups` rounds are thrown away."""
    samples: dict[str, dict[str, list[float | None]]] = {name: {} for name in contenders}
    for repetition in range(-warmups, repetitions):
        for name, run in contenders.items():
            for measure, value in run().items():
                if repetition >= 0:
                    samples[name].setdefault(measure, [None] * repetitions)[repetition] = value
    return samples


def make_row(
    group: str,
    name: str,
    unit: str,
    runs: Sequence[Samples],
    measure: str,
    beside: Mapping[str, tuple[str, str]],
    *,
    target: Target | None = None,
    note: str = "",
    memcpy: str | None = None,
    compare: bool = True,
) -> Row:
    """Build a row from our `measure` and from `beside`: label -> (contender, measure).

    Each run interleaved its own contenders, and a ratio never crosses runs. What several runs have measured
    is quoted from the first of them. Contenders that no run has are left out.

    Args:
        memcpy: The label of `beside` that stands for memcpy in ``Row.of_memcpy``.
        compare: Whether ratios mean anything; they do not where a figure may be nothing at all.
    """
    ours = next((run[OURS][measure] for run in runs if measure in run.get(OURS, {})), None)
    baselines: dict[str, Spread] = {}
    ratios: dict[str, Spread] = {}
    of_memcpy: dict[str, Spread] = {}
    for run in runs:
        found = _beside(run, {OURS: (OURS, measure), **beside})
        mine, copied = found.get(OURS), found.get(memcpy or "")
        for label, values in found.items():
            if copied is not None and label not in of_memcpy and label != memcpy:
                _set(of_memcpy, label, Spread.of_ratio(values, copied))
            if label == OURS or label in baselines:
                continue
            baselines[label] = Spread.of(values)
            if mine is not None and compare:
                _set(ratios, label, Spread.of_ratio(mine, values))
    return Row(
        group,
        name,
        unit,
        Spread.of(ours) if ours else None,
        baselines,
        ratios,
        target,
        note,
        of_memcpy,
        memcpy,
        measure,
    )


def _set(found: dict[str, Spread], label: str, spread: Spread | None) -> None:
    if spread is not None:
        found[label] = spread


def _beside(run: Samples, beside: Mapping[str, tuple[str, str]]) -> dict[str, Values]:
    return {
        label: run[contender][measure]
        for label, (contender, measure) in beside.items()
        if measure in run.get(contender, {})
    }


@contextmanager
def quiet_gc() -> Iterator[None]:
    """Collect now and hold the cyclic collector off inside, as timeit does; for timing single operations.

    Throughput is measured with the collector on, as a program runs.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def median_us(operation: Callable[[T], object], items: Iterable[T], keep: list[Any] | None = None) -> float:
    """Median duration of `operation(item)` in microseconds, up to the moment its result exists.

    Results are dropped after the clock has stopped, or appended to `keep`.
    """
    clock = time.perf_counter_ns
    durations = []
    with quiet_gc():
        for item in items:
            start = clock()
            result = operation(item)
            durations.append(clock() - start)
            if keep is not None:
                keep.append(result)
            del result
    return statistics.median(durations) / 1e3


def seconds(operation: Callable[[], object]) -> float:
    """Duration of one call, its result dropped after the clock has stopped."""
    with quiet_gc():
        start = time.perf_counter()
        result = operation()
        elapsed = time.perf_counter() - start
    del result
    return elapsed


def gib_per_s(size_bytes: int, elapsed_s: float) -> float:
    """Bandwidth in GiB/s."""
    return size_bytes / GIB / elapsed_s


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


@contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """A directory of our own in `parent`, removed at the end, after Ctrl-C and SIGTERM too."""
    previous = signal.signal(signal.SIGTERM, _leave)
    path = Path(tempfile.mkdtemp(prefix="flightstore-bench-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        signal.signal(signal.SIGTERM, previous)
