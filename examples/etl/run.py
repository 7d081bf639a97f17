"""An ETL pipeline of several processes, handing over by a store, and the same by Parquet files beside it.

    python examples/etl/run.py [--rows 2000000] [--files 4] [--partitions 4] [--workers 2] [--json]

Parquet in; partitioned by customer; enriched with polars; a model in pandas; a query in DuckDB; Parquet out.
With the store, everything in between goes with one batch: when it ends, or the program dies, nothing is left.
Prints how long both take in all, and how long their processes were busy with handing over. Exit status 1 if
the two reports differ.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

sys.path.insert(0, str(Path(__file__).parent))
import steps
from places import FilePlace, Place, StorePlace

import flightstore as fs

ROW_BYTES = 64
"""Of an order, in memory."""


@dataclass(frozen=True)
class Sizes:
    """How much is done, by how many."""

    rows: int
    files: int
    partitions: int
    workers: int


@dataclass(frozen=True)
class Outcome:
    """What one way of handing over took."""

    all_s: float
    """From the first file in to the report out."""
    hand_over_s: float
    """What all processes together spent on putting and getting."""


def make_orders(folder: Path, sizes: Sizes) -> list[Path]:
    """Files of orders."""
    random = np.random.default_rng(7)
    paths = []
    for number in range(sizes.files):
        count = sizes.rows // sizes.files
        days = np.datetime64("2030-01-01") + random.integers(0, 365, count)
        table = pa.table(
            {
                "order": np.arange(count) + number * count,
                "customer": random.integers(0, max(sizes.rows // 50, 10), count),
                "day": days,
                "quantity": random.integers(1, 20, count),
                "cents": random.integers(100, 50_000, count),
                "discount": random.random(count),
                "note": pa.array([f"order {n} of file {number}" for n in range(count)]),
            }
        )
        paths.append(folder / f"orders-{number}.parquet")
        parquet.write_table(table, paths[-1])
    return paths


def pipeline(place: Place, paths: list[Path], out: Path, sizes: Sizes) -> Outcome:
    """Run all steps, each by all processes, one step after the other."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(sizes.workers, spawn, initializer=steps.begin, initargs=(place,)) as pool:
        list(pool.map(steps.warm, range(sizes.workers * 4)))
        keys, files = range(sizes.partitions), range(sizes.files)

        def run(step: Callable[..., float], *arguments: Iterable[Any]) -> float:
            return sum(pool.map(step, *arguments))

        began = time.perf_counter()
        busy = run(steps.ingest, files, paths)
        busy += run(steps.partition, files, [sizes.partitions] * sizes.files)
        busy += run(steps.enrich, keys, [sizes.files] * sizes.partitions)
        busy += run(steps.model, keys)
        busy += run(steps.report, [sizes.partitions], [out])
        return Outcome(time.perf_counter() - began, busy)


def by_store(directory: Path, paths: list[Path], out: Path, sizes: Sizes) -> tuple[Outcome, int]:
    """The pipeline over a store; (what it took, objects that were left when its batch had ended)."""
    capacity = max(sizes.rows * ROW_BYTES * 6, 64 << 20)
    with fs.connect(directory / "store", capacity=capacity) as store:
        try:
            with store.batch("etl") as batch:
                outcome = pipeline(StorePlace(batch), paths, out, sizes)
            store.recover()
            return outcome, store.stats().objects
        finally:
            store.destroy()


@click.command()
@click.option("--rows", default=2_000_000, show_default=True, help="Orders in all.")
@click.option("--files", default=4, show_default=True, help="Files that they come in.")
@click.option("--partitions", default=4, show_default=True, help="Parts by customer.")
@click.option("--workers", default=2, show_default=True, help="Processes.")
@click.option("--dir", "parent", default="/dev/shm", show_default=True, help="A memory file system.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; what people read goes to standard error.")
def main(rows: int, files: int, partitions: int, workers: int, parent: str, as_json: bool) -> None:
    """Run the pipeline both ways, and compare."""
    sizes = Sizes(rows, files, partitions, workers)
    with tempfile.TemporaryDirectory(prefix="flightstore-etl-", dir=parent) as memory:
        folder = Path(memory)
        paths = make_orders(folder, sizes)
        reports = [folder / "by-store.parquet", folder / "by-files.parquet"]
        store, left = by_store(folder, paths, reports[0], sizes)
        # The files lie in memory, too: it is not the disk that is compared.
        files_ = pipeline(FilePlace(folder / "between"), paths, reports[1], sizes)
        first, second = (parquet.read_table(path) for path in reports)
    equal = first.equals(second)
    if as_json:
        found = {
            "sizes": asdict(sizes),
            "store": asdict(store),
            "files": asdict(files_),
            "objects_left": left,
        }
        ratio = files_.hand_over_s / store.hand_over_s
        click.echo(json.dumps(found | {"hand_over_ratio": ratio, "equal": equal, "report_rows": len(first)}))
    show(sizes, store, files_, equal, len(first), to_stderr=as_json)
    if not equal or left:
        raise SystemExit(1)


def show(sizes: Sizes, store: Outcome, files: Outcome, equal: bool, rows: int, *, to_stderr: bool) -> None:
    """What people read."""
    ratio, overall = files.hand_over_s / store.hand_over_s, files.all_s / store.all_s
    lines = [
        f"{sizes.rows:,} orders, {sizes.partitions} partitions, {sizes.workers} processes",
        f"{'':14}{'in all':>10}{'handing over':>16}",
        *(
            f"{name:14}{outcome.all_s:8.2f} s{outcome.hand_over_s:14.2f} s"
            for name, outcome in (("store", store), ("Parquet files", files))
        ),
        f"handing over by the store: {ratio:.1f} times as fast (all: {overall:.1f} times)",
        f"the two reports ({rows} rows) are {'equal' if equal else 'DIFFERENT'}",
    ]
    click.echo("\n".join(lines), err=to_stderr)


if __name__ == "__main__":
    main()
