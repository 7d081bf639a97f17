"""Reading a Parquet file into the store, beside pyarrow and polars reading it into private memory.

    python benchmarks/sources.py [--size 2GiB] [--json FILE] [--quick] [--file FILE]

Each reader runs in a process of its own, in turn, several rounds. What a reader takes of private memory is
told by the kernel (RssAnon), looked at all the time; the store's memory is a file and not in it. Prints a
table, and writes JSON where asked.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from command import console_for, options, write_json
from harness import GIB, MIB, scratch_directory
from local import Size, free_bytes
from report import describe_machine, load_average
from rich.table import Table

READERS = ("sources.read", "pq.read_table", "pl.read_parquet")
GROUP_ROWS = 1_000_000
_LOOK_S = 0.005


def main() -> None:
    """The command, or one reader of it."""
    if len(sys.argv) > 1 and sys.argv[1] == "--reader":
        print(json.dumps(_measure(*sys.argv[2:5])))
    else:
        command()


@click.command()
@options
@click.option("--size", type=Size(), default="2GiB", show_default=True, help="Decoded size of the file.")
@click.option(
    "--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="How often each reads."
)
@click.option("--file", "given", type=click.Path(exists=True, dir_okay=False), help="Read this file instead.")
def command(
    json_to: str | None, quick: bool, parent: Path, size: int, rounds: int, given: str | None
) -> None:
    """Measure sources.read beside the readers of pyarrow and polars."""
    size, rounds = (min(size, 32 * MIB), 1) if quick else (size, rounds)
    if free_bytes(parent) < 4 * size + GIB // 4:
        raise click.ClickException("there is not enough free memory: choose a smaller --size")
    console = console_for(json_to)
    machine = describe_machine() | {"load_average_start": load_average()}
    with tempfile.TemporaryDirectory() as folder, scratch_directory(parent) as scratch:
        path = given or str(Path(folder, "table.parquet"))
        nbytes = None if given else _make(path, size)
        found: dict[str, list[dict[str, Any]]] = {reader: [] for reader in READERS}
        for number in range(rounds):
            for reader in READERS:
                found[reader].append(_apart(reader, path, str(scratch / f"store-{number}")))
    machine["load_average_end"] = load_average()
    rows = [_row(reader, found[reader]) for reader in READERS]
    fastest = min(row["seconds"] for row in rows[1:])
    shown = Table("reader", "median s", "best s", "beside the faster one", "private memory, MiB")
    for row in rows:
        row["ratio"] = row["seconds"] / fastest
        memory = f"{row['anonymous_bytes'] / MIB:,.0f}"
        shown.add_row(
            row["reader"], f"{row['seconds']:.2f}", f"{row['best']:.2f}", f"{row['ratio']:.2f}", memory
        )
    console.print(shown)
    content = {"rows": rows, "machine": machine, "decoded_bytes": nbytes, "rounds": rounds, "quick": quick}
    write_json(json_to, content)


def _row(reader: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = [one["seconds"] for one in found]
    return {
        "reader": reader,
        "seconds": statistics.median(seconds),
        "best": min(seconds),
        "anonymous_bytes": max(one["anonymous_bytes"] for one in found),
    }


def _make(path: str, size: int) -> int:
    """A file of numbers, texts, dictionaries, times and truth values; 16 row groups or more."""
    rng = np.random.default_rng(1)
    words = pa.array([f"word-{number:05d}" for number in range(5000)])
    total, rows = 0, GROUP_ROWS
    writer = None
    while total < size:
        group = _group(rng, words, rows)
        if writer is None:
            if group.nbytes * 16 > size:
                rows = max(rows * size // (group.nbytes * 16), 1)
                group = group.slice(0, rows)
            writer = pq.ParquetWriter(path, group.schema)
        writer.write_table(group, row_group_size=rows)
        total += group.nbytes
    assert writer is not None
    writer.close()
    return total


def _group(rng: np.random.Generator, words: pa.Array, rows: int) -> pa.Table:
    return pa.table(
        {
            "id": np.arange(rows),
            "key": rng.integers(0, 1000, rows).astype("i4"),
            "x": rng.normal(size=rows),
            "y": rng.random(rows).astype("f4"),
            "nullable": pa.array(rng.integers(0, 1 << 40, rows), mask=rng.random(rows) < 0.1),
            "when": pa.array(rng.integers(0, 1 << 50, rows), pa.timestamp("us")),
            "word": words.take(pa.array(rng.integers(0, len(words), rows))),
            "text": pa.array(np.char.mod("%x", rng.integers(0, 1 << 60, rows))),
            "kind": pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, 5000, rows).astype("i4")), words),
            "flag": rng.random(rows) < 0.5,
        }
    )


def _apart(reader: str, path: str, store: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--reader", reader, path, store]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"{reader} failed: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# --- in the reader's process ---


def _measure(reader: str, path: str, store: str) -> dict[str, Any]:
    read, end = _reader(reader, path, store)
    watch = _Watch()
    started = time.perf_counter()
    value = read()
    seconds = time.perf_counter() - started
    nbytes = watch.end()
    del value
    end()
    return {"seconds": seconds, "anonymous_bytes": nbytes}


def _reader(reader: str, path: str, store_path: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    if reader == "pq.read_table":
        return lambda: pq.read_table(path), lambda: None
    if reader == "pl.read_parquet":
        import polars as pl

        return lambda: pl.read_parquet(path), lambda: None
    import flightstore as fs
    from flightstore.connectors import sources

    decoded = sum(
        pq.ParquetFile(path).metadata.row_group(group).total_byte_size
        for group in range(pq.ParquetFile(path).metadata.num_row_groups)
    )
    store = fs.connect(store_path, capacity=max(decoded * 5 // 2, 256 * MIB))
    sources.read  # noqa: B018 - imported before the clock is started
    return lambda: sources.read(path, store=store, name="table"), store.destroy


class _Watch:
    """The most private memory that this process takes, beyond what it has now."""

    def __init__(self) -> None:
        self._before = _anonymous()
        self._most = self._before
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_S):
            self._most = max(self._most, _anonymous())

    def end(self) -> int:
        """Stop looking."""
        self._over.set()
        self._thread.join()
        return max(self._most, _anonymous()) - self._before


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise LookupError("/proc/self/status has no RssAnon")


if __name__ == "__main__":
    main()
