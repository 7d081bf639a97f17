"""Large tables and frames: put into memory that is in use, get in another process.

The store exists and its memory has been touched; each put replaces the value of the one before. LMDB's gets
keep their transaction open here and copy nothing: the best LMDB can do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from baselines import Memcpy, fresh_file, map_and_copy
from harness import MIB, OURS, Contender, Row, Samples, Settings, Target, gib_per_s, make_row, seconds
from local_latency import Getter
from processes import private_bytes
from stores.base import Backend, Side, make_side
from values import COLUMNS, WIDE_CHUNKS, digest, make, read_all, size_of, wide_columns
from workload import Workload, beside_all, fits

GETS_IN_TURN = 20
TURN_BUDGET_S = 0.3
RARELY = 3
"""What takes long besides the put and the gets is done in one repetition of so many."""
WIDE_BYTES = 8 * MIB
NAME = "table"
COPIES = ("memcpy 1", "memcpy 2")


class BulkGetter(Getter):
    """Gets the large value in the other process, and finds out what of it was copied."""

    def __init__(self, side: Callable[..., Side], *args: Any) -> None:
        start = time.perf_counter()
        super().__init__(side, *args)
        self.connect_us = (time.perf_counter() - start) * 1e6

    def connected_us(self) -> float:
        """How long connecting took, imports included where they are lazy."""
        return self.connect_us

    def in_turn(self, token: Any) -> float:
        """Median of gets one after the other, each result dropped before the next; us."""
        count = fits(TURN_BUDGET_S, self.again([token]) / 1e6, 1, GETS_IN_TURN)
        return self.again([token] * count)

    def private_growth(self, token: Any) -> float:
        """KiB of private memory that getting and reading the whole value takes."""
        read_all(self.side.unwrap(self.side.get(token)).slice(0, 1))  # what is loaded once is not counted
        before = private_bytes([os.getpid()])
        value = self.side.get(token)
        read_all(self.side.unwrap(value))
        return (private_bytes([os.getpid()]) - before) / 1024

    def assert_mapped(self, token: Any, path: Path) -> None:
        """Fail unless every buffer of the table lies in the read-only mapping of that file."""
        table = self.side.get(token)
        ranges = _read_only_ranges(path)
        for buffer in (b for c in table.columns for k in c.chunks for b in k.buffers() if b is not None):
            start, end = buffer.address, buffer.address + buffer.size
            if not any(low <= start and end <= high for low, high in ranges):
                raise AssertionError(f"a buffer of {buffer.size:,} bytes is not in the arena's mapping")


def _read_only_ranges(path: Path) -> list[tuple[int, int]]:
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == str(path) and "w" not in fields[1]:
            start, _, end = fields[0].partition("-")
            ranges.append((int(start, 16), int(end, 16)))
    return ranges


class BulkRound:
    """Replace the value, get it in a process that has been there, and in one that is new."""

    def __init__(self, stack: ExitStack, backend: Backend, work: Bulk) -> None:
        value = make(work.value, work.settings.size_bytes)
        codec = backend.codec(value, bulk=True)
        self.backend, self.work = backend, work
        self.factory = backend.factory(work.key, work.room_bytes, codec, True)
        stack.callback(backend.clear, work.key)
        self.side = stack.enter_context(closing(make_side(self.factory)))
        self.getter = stack.enter_context(backend.helper(BulkGetter, self.factory))
        self.value = self.side.prepare(value)
        self.size_bytes = size_of(value)
        self._repetition = -work.rounds(duel=False)[1]
        start = time.monotonic()
        self.side.put(NAME, self.value)
        token = self.side.token(NAME)
        if self.getter.call("digest", token) != digest(value):
            raise AssertionError("the value came back different")
        self.cost_s = time.monotonic() - start
        """What putting and getting it once took."""
        if backend.label == OURS and work.proves_sharing:
            self.getter.call("assert_mapped", token, backend.scratch / work.key / "arena")

    def __call__(self) -> Mapping[str, float]:
        put_s = seconds(lambda: self.side.put(NAME, self.value))
        token = self.side.token(NAME)
        found = {"put": gib_per_s(self.size_bytes, put_s), "put us": put_s * 1e6}
        found["get"] = self.getter.call("first", [token])
        if self.backend.gets_once:
            self.getter.call("drop")
            return found
        found["get again"] = self.getter.call("again", [token])
        self.getter.call("drop")
        found["get in turn"] = self.getter.call("in_turn", token)
        self._repetition += 1
        if (self._repetition - 1) % RARELY or self._repetition < 1:
            return found
        if self.work.new_process:
            with self.backend.helper(BulkGetter, self.factory) as stranger:
                found["connect"] = stranger.call("connected_us")
                found["get, new process"] = stranger.call("first", [token])
        if self.work.proves_sharing:
            found["private"] = self.getter.call("private_growth", token)
        return found


def copying(operation: Callable[[], object], size_bytes: int) -> Contender:
    """A contender that copies: its bandwidth, and its duration for rows that are durations."""

    def run() -> Mapping[str, float]:
        elapsed_s = seconds(operation)
        return {"put": gib_per_s(size_bytes, elapsed_s), "copy": elapsed_s * 1e6}

    return run


@lru_cache(maxsize=1)
def large_memcpy(size_bytes: int) -> Memcpy:
    """Copies so many bytes; its memory is kept, because making it takes longer than using it."""
    return Memcpy(np.ones(size_bytes, "u1"))


def both(copies: Memcpy) -> dict[str, Contender]:
    """memcpy by one thread and by two."""
    size_bytes = copies.size_bytes
    return {"memcpy 1": copying(copies.one, size_bytes), "memcpy 2": copying(copies.two, size_bytes)}


@dataclass(frozen=True)
class Bulk(Workload):
    """One kind of large value, warm."""

    value: str = ""
    targets: Mapping[str, Target] = field(default_factory=dict)
    new_process: bool = False
    """Whether a process that has never been there gets it, too: each time a new one."""
    proves_sharing: bool = False
    """Whether private memory is measured, and floors of copying are."""

    repetitions = (5, 4)
    warmups = 2

    @property
    def room_bytes(self) -> int:
        return 3 * self.settings.size_bytes

    def contender(self, stack: ExitStack, backend: Backend, duel: bool) -> Contender:
        return BulkRound(stack, backend, self)

    def copies(self, stack: ExitStack, duel: bool) -> Mapping[str, Contender]:
        copies = large_memcpy(max(self.settings.size_bytes, COLUMNS * 8))
        payload = copies.source
        found = both(copies)
        if self.proves_sharing and not duel:
            with fresh_file(self.settings.scratch / "shared") as descriptor:
                shared = map_and_copy(descriptor, payload, 2)
            into_shared = stack.enter_context(Memcpy(payload, destination=shared))
            by_column = stack.enter_context(Memcpy(payload, calls=COLUMNS // 2))
            found["memcpy 2 by column"] = copying(by_column.two, payload.nbytes)
            found["memcpy 2 to shm"] = copying(into_shared.two, payload.nbytes)
        return found

    def rows(self, runs: Sequence[Samples], labels: Sequence[str]) -> list[Row]:
        more = ("memcpy 2 by column", "memcpy 2 to shm") if self.proves_sharing else ()
        beside = beside_all(labels, "put", "put", *COPIES, *more)
        found = [self._row("put", "GiB/s", runs, beside, "memcpy 2")]
        for measure in ("get", "get in turn", "get again", "connect", "get, new process"):
            beside = beside_all(labels, measure, "copy", *COPIES)
            found.append(self._row(measure, "us", runs, beside, "memcpy 1"))
        beside = beside_all(labels, "private", "none")
        found.append(self._row("private", "KiB", runs, beside, None))
        return [row for row in found if row.ours or row.baselines.keys() & {*labels}]

    def _row(self, measure: str, unit: str, runs: Sequence[Samples], beside: Any, memcpy: str | None) -> Row:
        titles = {"put": "put, warm", "private": "private memory to get and read"}
        name = f"{titles.get(measure, measure)}: {self.label}"
        target = self.targets.get(measure)
        compare = measure != "private"
        return make_row(
            self.key, name, unit, runs, measure, beside, target=target, memcpy=memcpy, compare=compare
        )


def bulks(settings: Settings) -> list[Workload]:
    """Large tables and frames, with what the project promises for each."""
    size = f"{settings.size_bytes / MIB:,.0f} MiB"
    table = {
        "put": Target(0.85, False, "memcpy 2"),
        "get in turn": Target(60, True),
        "private": Target(256, True),
    }
    frame = {"put": Target(0.9, False, "memcpy 2"), "get in turn": Target(400, True)}
    many_chunks = {"get, new process": Target(3_000, True), "get in turn": Target(1_000, True)}
    small = replace(settings, size_bytes=settings.scaled(WIDE_BYTES, WIDE_BYTES // 8))
    columns = wide_columns(small.size_bytes)
    return [
        Bulk("table", f"{size} table", settings, "table", table, True, True),
        Bulk("table16", f"{size} table of 16 chunks", settings, "table16", {"put": table["put"]}),
        Bulk("pandas", f"{size} pandas frame, one block", settings, "pandas block", frame),
        Bulk("mixed", f"{size} pandas frame, mixed columns", settings, "pandas mixed", frame),
        Bulk("polars", f"{size} polars frame", settings, "polars", frame),
        Bulk("wide", f"{columns:,} columns x {WIDE_CHUNKS} chunks", small, "wide", many_chunks, True),
    ]
