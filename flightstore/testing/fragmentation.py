"""Does the arena ever say full when it is not? ``python -m flightstore.testing.fragmentation`` tells.

Lives here: workloads and the measurement; the arena is a Simulation, so no memory is used and the policy
alone is measured. Exit code 1 when a request failed that need not have (an avoidable or address-bound full).
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import click
from rich.console import Console
from rich.table import Table

from flightstore.testing.arena_simulation import Fragmentation, Simulation

__all__ = ["MIXES", "Report", "main", "run"]

SAMPLES = 200
"""How often in a run the fragmentation is looked at."""

Sizer = Callable[[random.Random, int], int]


def _log_uniform(rng: random.Random, low: int, high: int) -> int:
    return int(math.exp(rng.uniform(math.log(low), math.log(high))))


def _realistic(rng: random.Random, capacity: int) -> int:
    """Half log-uniform from 64 bytes to 1/50 of the capacity, half equal sizes (rows, batches, columns)."""
    if rng.random() < 0.5:
        return _log_uniform(rng, 64, capacity // 50)
    return rng.choice((1_000, 16_000, 262_144, capacity // 200))


def _tiny(rng: random.Random, capacity: int) -> int:
    """The hardest for pages: extents below a page, and now and then one of 1/50 of the capacity."""
    return capacity // 50 if rng.random() < 0.0001 else _log_uniform(rng, 64, 4096)


MIXES: dict[str, Sizer] = {"realistic": _realistic, "tiny": _tiny}
"""Workloads by name."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one run saw."""

    mix: str
    operations: int
    capacity_bytes: int
    address_factor: int
    load: float
    allocations: int
    full: dict[str, int]
    """Failed requests by kind; see allocator.py."""
    growths: int
    punched_ranges: int
    last_resorts: int
    objects: int
    """Extents at the end."""
    unpunchable_mean: float
    """Share of the capacity in free pieces of occupied pages: mean over samples."""
    unpunchable_max: float
    warm_ranges_max: int
    cold_ranges_max: int
    largest_hole_mean: float
    """Largest warm hole over all warm bytes: mean over samples."""
    last: Fragmentation
    seconds: float

    @property
    def false_full(self) -> int:
        """Failures that break the allocator's promise."""
        return self.full["avoidable"] + self.full["address-bound"]


def run(
    operations: int,
    *,
    capacity_bytes: int = 256 << 20,
    address_factor: int = 4,
    load: float = 0.9,
    mix: str = "realistic",
    seed: int = 0,
) -> Report:
    """Allocate and free at random, keeping `load` of the capacity in use, and count every failure by kind.

    An operation is one allocation or one release. The tiling is checked at every sample.

    Raises:
        AssertionError: the tiling is broken.
    """
    rng = random.Random(seed)
    simulation = Simulation(capacity_bytes, capacity_bytes * address_factor, max(4096, capacity_bytes // 64))
    full = {"real": 0, "page-bound": 0, "address-bound": 0, "avoidable": 0}
    live: list[int] = []
    samples: list[Fragmentation] = []
    allocations = 0
    sizer = MIXES[mix]
    every = max(1, operations // SAMPLES)
    begun = time.perf_counter()
    for operation in range(operations):
        if live and simulation.used_bytes >= load * capacity_bytes:
            at = rng.randrange(len(live))
            live[at], live[-1] = live[-1], live[at]
            simulation.free(live.pop())
        else:
            nbytes = sizer(rng, capacity_bytes)
            offset = simulation.allocate(nbytes)
            allocations += 1
            if offset is None:
                full[simulation.why_full(nbytes)] += 1
            else:
                live.append(offset)
        if operation % every == every - 1:
            samples.append(simulation.fragmentation())
            if problems := simulation.problems():
                raise AssertionError("; ".join(problems[:5]))
    seconds = time.perf_counter() - begun
    steady = samples[len(samples) // 4 :] or samples
    return Report(
        mix=mix,
        operations=operations,
        capacity_bytes=capacity_bytes,
        address_factor=address_factor,
        load=load,
        allocations=allocations,
        full=full,
        growths=simulation.growths,
        punched_ranges=simulation.punched_ranges,
        last_resorts=simulation.last_resorts,
        objects=len(live),
        unpunchable_mean=sum(s.unpunchable_bytes for s in steady) / len(steady) / capacity_bytes,
        unpunchable_max=max(s.unpunchable_bytes for s in steady) / capacity_bytes,
        warm_ranges_max=max(s.warm_ranges for s in steady),
        cold_ranges_max=max(s.cold_ranges for s in steady),
        largest_hole_mean=sum(s.largest_warm_bytes / max(1, s.warm_bytes) for s in steady) / len(steady),
        last=samples[-1],
        seconds=seconds,
    )


def _rows(report: Report) -> list[tuple[str, str]]:
    last, full = report.last, report.full
    pieces = f"mean {report.unpunchable_mean:.3%} of the capacity, max {report.unpunchable_max:.3%}"
    holes = f"warm {last.largest_warm_bytes:,}, cold {last.largest_cold_bytes:,} bytes"
    return [
        ("operations (allocations)", f"{report.operations:,} ({report.allocations:,})"),
        ("capacity, addresses", f"{report.capacity_bytes:,} bytes, {report.address_factor} x"),
        ("load, extents at the end", f"{report.load:.0%}, {report.objects:,}"),
        (
            "failures that need not be",
            f"{full['avoidable']} avoidable, {full['address-bound']} address-bound",
        ),
        ("other failures", f"{full['page-bound']} page-bound, {full['real']} really full"),
        ("growths, punched ranges", f"{report.growths:,}, {report.punched_ranges:,}"),
        ("last resorts", f"{report.last_resorts:,}"),
        ("free bytes in occupied pages", pieces),
        ("largest warm hole / warm bytes", f"mean {report.largest_hole_mean:.1%}"),
        ("warm ranges, cold ranges", f"max {report.warm_ranges_max:,}, {report.cold_ranges_max:,}"),
        ("at the end: used, warm", f"{last.used_bytes:,}, {last.warm_bytes:,} bytes"),
        ("at the end: largest holes", holes),
        ("time per operation", f"{report.seconds / report.operations * 1e6:.1f} us"),
    ]


@click.command()
@click.option("--operations", default=1_000_000, show_default=True, help="Allocations and releases in all.")
@click.option("--capacity", default=256 << 20, show_default=True, help="Capacity in bytes.")
@click.option("--addresses", default=4, show_default=True, help="Length of the arena in capacities.")
@click.option("--load", default=0.9, show_default=True, help="Share of the capacity kept in use.")
@click.option(
    "--mix", type=click.Choice(sorted(MIXES)), default="realistic", show_default=True, help="Sizes."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the random numbers.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def main(
    operations: int, capacity: int, addresses: int, load: float, mix: str, seed: int, as_json: bool
) -> None:
    """Run random allocations against the arena's policy and report failures and fragmentation."""
    report = run(operations, capacity_bytes=capacity, address_factor=addresses, load=load, mix=mix, seed=seed)
    if as_json:
        click.echo(json.dumps(asdict(report) | {"false_full": report.false_full}))
    else:
        table = Table(title=f"fragmentation: {mix}", show_header=False)
        for row in _rows(report):
            table.add_row(*row)
        Console().print(table)
    raise SystemExit(1 if report.false_full else 0)


if __name__ == "__main__":
    main()
