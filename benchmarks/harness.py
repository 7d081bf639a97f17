"""What every benchmark needs: interleaved repetitions, medians with their spread, targets, scratch space.

Calls nothing of flightstore. The rule that makes figures comparable on a noisy machine: one repetition
measures every contender once, back to back, and a ratio is taken within a repetition, never between two
medians. All figures of a row are in the row's own unit, and a ratio is ours divided by the other's in that
unit: below 1 is good for durations, above 1 is good for rates.
"""

from __future__ import annotations

import gc
import shutil
import signal
import statistics
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

T = TypeVar("T")

Contender = Callable[[], Mapping[str, float]]
"""Runs one repetition of one contender and returns its measures by name."""

Samples = Mapping[str, Mapping[str, Sequence[float]]]
"""contender -> measure -> one value per repetition."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the ends of one figure over the repetitions."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one value."""
        ordered = sorted(values)
        return cls(statistics.median(ordered), ordered[0], ordered[-1])


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
    """Measure memcpy and LMDB alone."""
    say: Callable[[str], None] = field(default=lambda text: None)
    """Told what is being measured."""

    def scaled(self, full: int, quick: int) -> int:
        """`full`, or `quick` in a quick run."""
        return quick if self.quick else full


def interleave(contenders: Mapping[str, Contender], repetitions: int, *, warmups: int = 1) -> Samples:
    """Run A B C, A B C, ... and collect every measure; the first `warmups` rounds are thrown away."""
    samples: dict[str, dict[str, list[float]]] = {name: {} for name in contenders}
    for repetition in range(-warmups, repetitions):
        for name, run in contenders.items():
            for measure, value in run().items():
                if repetition >= 0:
                    samples[name].setdefault(measure, []).append(value)
    return samples


def make_row(
    group: str,
    name: str,
    unit: str,
    samples: Samples,
    measure: str,
    beside: Mapping[str, tuple[str, str]],
    *,
    target: Target | None = None,
    note: str = "",
) -> Row:
    """Build a row from our `measure` and from `beside`: label -> (contender, measure)."""
    ours = samples.get(OURS, {}).get(measure)
    baselines: dict[str, Spread] = {}
    ratios: dict[str, Spread] = {}
    for label, (contender, other) in beside.items():
        values = samples.get(contender, {}).get(other)
        if values is None:
            continue
        baselines[label] = Spread.of(values)
        if ours is not None:
            ratios[label] = Spread.of(mine / theirs for mine, theirs in zip(ours, values, strict=True))
    return Row(group, name, unit, Spread.of(ours) if ours else None, baselines, ratios, target, note)


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
