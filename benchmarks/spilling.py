"""Memory pressure: what spilling and restoring cost, and what a get costs while memory is short.

    python benchmarks/spilling.py [--json FILE] [--disk DIRECTORY] [--size 256MiB] [--quick]

Spilling writes an object's bytes to a file and compares nothing but a checksum; so it stands beside a plain
copy of the same bytes into a file of the same disk (written whole, renamed, not synced: what spilling does),
and restoring beside a plain read of that file into memory. The kernel's page cache serves both alike. Gets
are measured in a store that has room, and in one whose working set is ten times its capacity, where most
objects are mapped from their files; each again while another process puts into the second one, and so
spills, all the time.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from command import console_for, options, write_json
from harness import MIB, OURS, Row, interleave, make_row, median_us, quiet_gc, say, scratch_directory
from processes import Helper
from report import describe_machine, load_average, print_table, to_json

import flightstore
from flightstore.config import parse_bytes

FILE = "file"
SMALL_BYTES = 1 * MIB
OBJECTS = 160
CAPACITY = 16 * MIB


def rate(nbytes: int, seconds: float) -> float:
    """GiB/s."""
    return nbytes / seconds / (1 << 30)


class Copies:
    """One large object out of memory and back, beside a file of the same bytes."""

    def __init__(self, store: flightstore.Store, disk: Path, nbytes: int) -> None:
        self.store, self.disk, self.nbytes = store, disk, nbytes
        self.value = np.random.default_rng(1).integers(0, 255, nbytes, dtype=np.uint8)
        self.target = np.ones(nbytes, dtype=np.uint8)

    def ours(self) -> Mapping[str, float]:
        """Spill it, bring it back, and give its memory up again (its file is there still)."""
        self.store.put(self.value, "large")
        with quiet_gc():
            begin = time.perf_counter()
            freed = self.store.spill("large")
            spilled = time.perf_counter() - begin
            begin = time.perf_counter()
            obj = self.store.get("large")
            restored = time.perf_counter() - begin
        assert freed >= self.nbytes
        assert obj.value()[-1] == self.value[-1]
        obj.release()
        with quiet_gc():
            begin = time.perf_counter()
            self.store.spill("large")
            again = time.perf_counter() - begin
        self.store.delete("large")
        self.store.recover()
        return {
            "spill": rate(self.nbytes, spilled),
            "restore": rate(self.nbytes, restored),
            "again": again * 1e3,
        }

    def file(self) -> Mapping[str, float]:
        """Write a file and rename it; read it into memory that is warm."""
        path = self.disk / "plain"
        with quiet_gc():
            begin = time.perf_counter()
            with open(f"{path}.part", "wb", buffering=0) as sink:
                left = memoryview(self.value)
                while left:
                    left = left[sink.write(left[: 16 * MIB]) :]
            os.replace(f"{path}.part", path)
            written = time.perf_counter() - begin
            begin = time.perf_counter()
            with open(path, "rb", buffering=0) as source:
                left = memoryview(self.target)
                while left:
                    left = left[source.readinto(left[: 16 * MIB]) :]
            read = time.perf_counter() - begin
        path.unlink()
        return {"spill": rate(self.nbytes, written), "restore": rate(self.nbytes, read)}


class Presser:
    """Lives in another process: puts objects into a store that is full, and so spills."""

    def __init__(self, path: str) -> None:
        self.store = flightstore.connect(path, create=False)
        self.value = np.random.default_rng(2).bytes(SMALL_BYTES)

    def press(self, seconds: float) -> int:
        """Put all the time; returns how often."""
        count, until = 0, time.monotonic() + seconds
        while time.monotonic() < until:
            self.store.put(self.value, f"pressed-{count % 32}", timeout=5)
            count += 1
        return count

    def close(self) -> None:
        """Give the store up."""
        self.store.close()


class Gets:
    """Gets of objects of a MiB: with room, without, and while somebody else spills."""

    def __init__(
        self, roomy: flightstore.Store, crowded: flightstore.Store, presser: Helper, gets: int
    ) -> None:
        self.roomy, self.crowded, self.presser = roomy, crowded, presser
        self.names = [f"n{number}" for number in range(OBJECTS)]
        chance = random.Random(3)
        self.order = [chance.choice(self.names) for _ in range(gets)]
        generator = np.random.default_rng(4)
        for name in self.names:
            value = generator.bytes(SMALL_BYTES)
            roomy.put(value, name)
            crowded.put(value, name)
        for name in self.names:
            crowded.get(name).release()  # compares each checksum once

    def ours(self) -> Mapping[str, float]:
        """All three."""
        with_room = median_us(lambda name: self.roomy.get(name), self.order)
        without = median_us(lambda name: self.crowded.get(name), self.order)
        self.presser.begin("press", 1.0)
        beside = median_us(lambda name: self.roomy.get(name), self.order)
        under = median_us(lambda name: self.crowded.get(name), self.order)
        self.presser.result()
        return {"room": with_room, "no room": without, "beside": beside, "under": under}


@contextmanager
def stores(scratch: Path, disk: Path, nbytes: int) -> Iterator[list[flightstore.Store]]:
    """Three stores: for one large object, one that has room, and one that has not."""
    with ExitStack() as stack:
        found = []
        for name, capacity in (
            ("large", 2 * nbytes),
            ("roomy", 2 * OBJECTS * SMALL_BYTES),
            ("crowded", CAPACITY),
        ):
            store = flightstore.connect(scratch / name, capacity=capacity, spill=disk / name)
            stack.callback(store.destroy)
            found.append(store)
        yield found


def measure(scratch: Path, disk: Path, nbytes: int, *, quick: bool) -> list[Row]:
    """All rows."""
    with ExitStack() as stack:
        large, roomy, crowded = stack.enter_context(stores(scratch, disk, nbytes))
        copies = Copies(large, disk, nbytes)
        say(f"{nbytes // MIB} MiB out and back")
        runs = [interleave({OURS: copies.ours, FILE: copies.file}, 2 if quick else 7)]
        presser = stack.enter_context(Helper(Presser, crowded.path))
        gets = Gets(roomy, crowded, presser, 100 if quick else 2_000)
        say("gets")
        got = [interleave({OURS: gets.ours}, 2 if quick else 5)]
    what = f"{nbytes // MIB} MiB"
    plain: dict[str, tuple[str, str]] = {"spill": (FILE, "spill"), "restore": (FILE, "restore")}
    return [
        make_row("spilling", f"spill {what}", "GiB/s", runs, "spill", {FILE: plain["spill"]}),
        make_row("spilling", f"restore {what}", "GiB/s", runs, "restore", {FILE: plain["restore"]}),
        make_row("spilling", f"spill {what} again: its file is there", "ms", runs, "again", {}),
        make_row("gets", "get 1 MiB, in memory", "us", got, "room", {}),
        make_row("gets", "get 1 MiB, working set 10 x capacity", "us", got, "no room", {}),
        make_row("gets", "get 1 MiB, in memory, while another store spills", "us", got, "beside", {}),
        make_row("gets", "get 1 MiB, 10 x capacity, while somebody puts and spills", "us", got, "under", {}),
    ]


@click.command()
@options
@click.option("--size", default="256MiB", show_default=True, help="Of the large object.")
@click.option(
    "--disk",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(tempfile.gettempdir()),
    show_default=True,
    help="A directory on a disk.",
)
def main(json_to: str | None, size: str, quick: bool, disk: Path, parent: Path) -> None:
    """Measure spilling beside plain files, and gets with and without room."""
    console = console_for(json_to)
    machine: dict[str, Any] = describe_machine() | {"load_average_start": load_average()}
    nbytes = 8 * MIB if quick else parse_bytes(size)
    with scratch_directory(parent) as scratch, tempfile.TemporaryDirectory(dir=disk) as spilled:
        rows = measure(scratch, Path(spilled), nbytes, quick=quick)
    machine["load_average_end"] = load_average()
    print_table(rows, machine, console)
    write_json(json_to, to_json(rows, machine, {"quick": quick, "size": nbytes}))


if __name__ == "__main__":
    main()
