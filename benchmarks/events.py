"""Events: how soon another process hears of an object, and what the log costs a put.

    python benchmarks/events.py [--json FILE] [--quick]

Latency counts from the moment that the event was recorded, just before the commit that seals the object, to
the moment at which a subscriber in another process has it, asleep before; beside it, a byte through a pipe to
a process that sleeps in read(). The log cannot be switched off, so its cost is measured as such: the calls
that a put makes of it, in a transaction of many.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click
from command import console_for, options, write_json
from harness import OURS, Row, Target, interleave, make_row, median_us, quiet_gc, say, scratch_directory
from processes import Helper
from report import describe_machine, load_average, print_table, to_json

import flightstore
from flightstore.catalog.scopes import ADDED
from flightstore.catalog.transaction import WriteTransaction

PIPE = "pipe"
PAUSE_S = 0.001
"""Between two events: the subscriber sleeps again by then."""


class Listener:
    """Lives in the other process: hears of objects, and of bytes in a pipe."""

    def __init__(self, path: str) -> None:
        self.store = flightstore.connect(path, create=False)
        self.events = self.store.subscribe(timeout=30)

    def hear(self, count: int) -> list[int]:
        """Nanoseconds from each event to its being here."""
        clock, found = time.time_ns, []
        for event in self.events:
            found.append(clock() - event.time_ns)
            if len(found) == count:
                break
        return found

    def read(self, fifo: str, count: int) -> list[int]:
        """The same for times that come through a named pipe."""
        clock, found = time.time_ns, []
        with open(fifo, "rb", buffering=0) as source:
            for _ in range(count):
                sent = source.read(8)
                found.append(clock() - int.from_bytes(sent, "little"))
        return found

    def close(self) -> None:
        """Give the store up."""
        self.events.close()
        self.store.close()


class Rounds:
    """The contenders: one repetition each."""

    def __init__(self, store: flightstore.Store, listener: Helper, scratch: Path, count: int) -> None:
        self.store, self.listener, self.count = store, listener, count
        self.names = [f"n{number}" for number in range(count)]
        self.fifo = str(scratch / "fifo")
        os.mkfifo(self.fifo)

    def ours(self) -> Mapping[str, float]:
        """Put one small object after the other; then what the log's calls cost."""
        self.listener.begin("hear", self.count)
        time.sleep(0.05)
        for name in self.names:
            self.store.put(b"small", name)
            time.sleep(PAUSE_S)
        heard = self.listener.result()
        # The same names again: what they meant is deleted, so each such put makes two events.
        self.listener.begin("hear", 2 * self.count)
        put = median_us(lambda name: self.store.put(b"small", name), self.names)
        self.listener.result()
        self.listener.begin("hear", self.count)
        self.store.delete(self.names)
        self.listener.result()
        return {**_latencies(heard), "put": put, "note": self._note()}

    def pipe(self) -> Mapping[str, float]:
        """Write the time into a pipe, as often."""
        self.listener.begin("read", self.fifo, self.count)
        with open(self.fifo, "wb", buffering=0) as sink:
            time.sleep(0.05)
            for _ in range(self.count):
                sink.write(time.time_ns().to_bytes(8, "little"))
                time.sleep(PAUSE_S)
        return _latencies(self.listener.result())

    def _note(self) -> float:
        """Microseconds of one event, recorded with others in a transaction that comes to nothing."""
        object_id = self.store.put(b"small", "noted")
        took: list[int] = []

        def work(tx: WriteTransaction) -> None:
            record = tx.sealed(0, object_id)
            assert record is not None
            begin = time.perf_counter_ns()
            for _ in range(self.count):
                tx.note(ADDED, 0, object_id, record)
            took.append(time.perf_counter_ns() - begin)
            raise InterruptedError

        with quiet_gc():
            with suppress(InterruptedError):
                self.store._conn.write(work)
        self.store.delete("noted")
        self.listener.call("hear", 2)
        return took[0] / self.count / 1e3


def _latencies(found_ns: list[int]) -> dict[str, float]:
    ordered = sorted(found_ns)
    p99 = ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]
    return {"median": statistics.median(ordered) / 1e3, "p99": p99 / 1e3}


def measure(scratch: Path, *, quick: bool) -> list[Row]:
    """All rows."""
    with ExitStack() as stack:
        store = stack.enter_context(flightstore.connect(scratch / "store", capacity="64MiB"))
        listener = stack.enter_context(Helper(Listener, store.path))
        rounds = Rounds(store, listener, scratch, 20 if quick else 400)
        say("events")
        runs = [interleave({OURS: rounds.ours, PIPE: rounds.pipe}, 2 if quick else 7)]
    beside = {PIPE: (PIPE, "median")}
    late = {PIPE: (PIPE, "p99")}
    return [
        make_row("events", "heard, median", "us", runs, "median", beside, target=Target(200, at_most=True)),
        make_row("events", "heard, p99", "us", runs, "p99", late),
        make_row("log", "one event in its transaction", "us", runs, "note", {}),
        make_row("log", "small put over a name: two events", "us", runs, "put", {}),
    ]


@click.command()
@options
def main(json_to: str | None, quick: bool, parent: Path) -> None:
    """Measure events beside a pipe."""
    console = console_for(json_to)
    machine: dict[str, Any] = describe_machine() | {"load_average_start": load_average()}
    with scratch_directory(parent) as scratch:
        rows = measure(scratch, quick=quick)
    machine["load_average_end"] = load_average()
    print_table(rows, machine, console)
    write_json(json_to, to_json(rows, machine, {"quick": quick}))


if __name__ == "__main__":
    main()
