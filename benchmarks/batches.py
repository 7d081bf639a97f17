"""Many short jobs beside a long one: what batches cost, and what they save a store that is far too small.

    python benchmarks/batches.py [--json FILE] [--jobs 1000] [--objects 300] [--quick]

A long job holds objects in one batch. Short jobs, one after the other, make small objects in a batch each and
end it. All of them together would fill the store many times over. Measured are, per job: the put of an
object, the call that ends a batch, and the put with and without batches to reclaim; the store's use over
time; and that the long job's objects are what they were. Prints a table, and writes JSON where asked. Exit
status 1 when the long job lost something, or somebody was refused.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from command import console_for, options, write_json
from harness import MIB, scratch_directory
from report import describe_machine, load_average
from rich.console import Console
from rich.table import Table

import flightstore as fs

CAPACITY = 16 * MIB
LONG_OBJECTS, LONG_BYTES = 50, 100_000
SMALL_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table."""

    name: str
    unit: str
    median: float
    low: float
    high: float
    target: float | None = None
    """What the median is to stay below."""

    @classmethod
    def of(cls, name: str, unit: str, values: Sequence[float], target: float | None = None) -> Figure:
        return cls(name, unit, statistics.median(values), min(values), max(values), target)

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None without one."""
        return None if self.target is None else self.median < self.target


@dataclass(slots=True)
class Job:
    """What one short job took."""

    puts_ms: float
    end_ms: float
    used_bytes: int


def run_job(store: fs.Store, number: int, objects: int, value: bytes) -> Job:
    """One short job."""
    batch = store.new_batch(f"short {number}")
    began = time.perf_counter()
    with batch.activate():
        for index in range(objects):
            store.put(value, f"{number}/{index}")
    done = time.perf_counter()
    batch.end()
    ended = time.perf_counter()
    return Job((done - began) * 1e3, (ended - done) * 1e3, store._conn.control.usage()[0])


def reclaim_ms(store: fs.Store, objects: int, value: bytes) -> float:
    """What it takes to reclaim one ended batch, by itself."""
    with store.batch():
        for _ in range(objects):
            store.put(value)
    began = time.perf_counter()
    store.recover()
    return (time.perf_counter() - began) * 1e3


def idle_recover_ms(store: fs.Store) -> float:
    """What `recover` takes when there is nothing to do."""
    began = time.perf_counter()
    store.recover()
    return (time.perf_counter() - began) * 1e3


def measure(directory: Path, jobs: int, objects: int) -> tuple[list[Figure], bool, int]:
    """(figures, whether the long job's objects are untouched, bytes that went through)."""
    value = bytes(range(250)) * (SMALL_BYTES // 250)
    with fs.connect(directory / "store", capacity=CAPACITY) as store:
        for _ in range(3):
            reclaim_ms(store, objects, value)  # everything is loaded, and memory is warm
        idle = [idle_recover_ms(store) for _ in range(30)]
        alone = [reclaim_ms(store, objects, value) - statistics.median(idle) for _ in range(30)]
        plain = [run_plain(store, objects, value) for _ in range(10)]
        with store.batch("long"):
            mine = {f"long/{index}": bytes([index]) * LONG_BYTES for index in range(LONG_OBJECTS)}
            store.put_many(mine)
            done = [run_job(store, number, objects, value) for number in range(jobs)]
            untouched = all(bytes(store.get(name).value()) == content for name, content in mine.items())
        store.destroy()
    hundred = 100 / objects
    # The last half only: a store that leaks would not be flat there.
    used = [job.used_bytes / MIB for job in done[len(done) // 2 :]]
    figures = [
        Figure.of(f"end of a batch of {objects}", "ms", [job.end_ms for job in done], 3.0),
        Figure.of("reclaiming, per 100 objects", "ms", [ms * hundred for ms in alone], 1.0),
        Figure.of("puts in a batch, reclaiming, per 100", "ms", [job.puts_ms * hundred for job in done[1:]]),
        Figure.of("puts without a batch, per 100", "ms", [ms * hundred for ms in plain]),
        Figure.of("store in use", "MiB", used),
    ]
    store_bytes = jobs * objects * SMALL_BYTES
    return figures, untouched, store_bytes


def run_plain(store: fs.Store, objects: int, value: bytes) -> float:
    """The same puts outside of any batch, in ms; deleted afterwards."""
    began = time.perf_counter()
    ids = [store.put(value, f"plain/{index}") for index in range(objects)]
    took = (time.perf_counter() - began) * 1e3
    store.delete(ids)
    store.recover()
    return took


def print_table(figures: Sequence[Figure], console: Console) -> None:
    """What people read."""
    table = Table(title="medians, each with its lowest and highest")
    for heading in ("", "median", "lowest", "highest", "target", ""):
        table.add_column(heading, no_wrap=True, justify="left" if not heading else "right")
    for one in figures:
        verdict = {None: "", True: "[green]pass[/green]", False: "[red]MISS[/red]"}[one.met]
        target = "" if one.target is None else f"< {one.target:g} {one.unit}"
        cells = (f"{number:.3g} {one.unit}" for number in (one.median, one.low, one.high))
        table.add_row(one.name, *cells, target, verdict)
    console.print(table)


@click.command()
@options
@click.option("--jobs", default=1000, show_default=True, help="Short jobs.")
@click.option("--objects", default=300, show_default=True, help="Objects of each.")
def main(json_to: str | None, jobs: int, objects: int, quick: bool, parent: Path) -> None:
    """Measure many short jobs beside a long one."""
    jobs = min(jobs, 20) if quick else jobs
    machine = describe_machine() | {"load_average_start": load_average()}
    with scratch_directory(parent) as scratch:
        figures, untouched, nbytes = measure(scratch, jobs, objects)
    machine["load_average_end"] = load_average()
    console = console_for(json_to)
    print_table(figures, console)
    said = "untouched" if untouched else "NOT WHAT THEY WERE"
    console.print(
        f"{jobs:,} jobs put {nbytes / MIB:,.0f} MiB through a store of {CAPACITY // MIB} MiB; "
        f"the long job's {LONG_OBJECTS} objects are {said}"
    )
    for key, text in machine.items():
        console.print(f"{key}: {text}", highlight=False, markup=False)
    content = {
        "machine": machine,
        "settings": {"jobs": jobs, "objects": objects, "capacity_bytes": CAPACITY, "quick": quick},
        "long_job_untouched": untouched,
        "rows": [asdict(one) | {"met": one.met} for one in figures],
    }
    write_json(json_to, content)
    if not untouched:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
