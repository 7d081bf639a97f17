"""One large table of a single chunk: put into warm and into fresh memory, get in another process.

Warm: the store exists and its memory has been touched; each put replaces the table of the one before. Cold:
a fresh store each time, so every page is touched for the first time; on a virtual machine that is mostly
the host's work, so the floors of writing fresh memory by other means stand beside it. LMDB's gets keep
their transaction open here and copy nothing: the best LMDB can do.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from baselines import Memcpy, fresh_file, map_and_copy, write_file
from harness import (
    MIB,
    OURS,
    Row,
    Settings,
    Spread,
    Target,
    gib_per_s,
    interleave,
    make_row,
    seconds,
)
from local_latency import Getter
from peers import Peer
from sides import Codec, LmdbSide, Side, StoreSide

COLUMNS = 8
GETS_IN_TURN = 20
NAME = "table"


class BulkGetter(Getter):
    """Gets the large table in the other process, and proves that nothing was copied."""

    def __init__(self, side: Callable[..., Side], *args: Any) -> None:
        start = time.perf_counter()
        super().__init__(side, *args)
        self.connect_us = (time.perf_counter() - start) * 1e6

    def connected_us(self) -> float:
        """How long connecting took, imports included where they are lazy."""
        return self.connect_us

    def in_turn(self) -> float:
        """Median of gets one after the other, each result dropped before the next; us."""
        taken = []
        for _ in range(GETS_IN_TURN):
            taken.append(self.first([NAME]))
            self.drop()
        return statistics.median(taken)

    def anonymous_growth(self, store: Path) -> float:
        """Get and read the whole table; bytes of private memory that took.

        Raises:
            AssertionError: a buffer lies outside the arena's read-only mapping.
        """
        self.side.get(NAME)
        before = _anonymous_bytes()
        table = self.side.get(NAME)
        _assert_inside(table, _read_only_ranges(store / "arena"))
        last = max(float(chunk.to_numpy().max()) for column in table.columns for chunk in column.chunks)
        grown = float(_anonymous_bytes() - before)
        if last != table.num_rows * COLUMNS - 1:
            raise AssertionError("the table came back different")
        return grown


def _read_only_ranges(path: Path) -> list[tuple[int, int]]:
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == str(path) and "w" not in fields[1]:
            start, _, end = fields[0].partition("-")
            ranges.append((int(start, 16), int(end, 16)))
    return ranges


def _assert_inside(table: Any, ranges: list[tuple[int, int]]) -> None:
    for column in table.columns:
        for buffer in (buffer for chunk in column.chunks for buffer in chunk.buffers() if buffer is not None):
            start, end = buffer.address, buffer.address + buffer.size
            if not any(low <= start and end <= high for low, high in ranges):
                raise AssertionError(f"a buffer of {buffer.size:,} bytes is not in the arena's mapping")


def _anonymous_bytes() -> int:
    """Private memory of this process, exactly (VmRSS and RssAnon are approximate)."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not report anonymous memory")


class Source:
    """The large table, and its bytes as one array."""

    def __init__(self, size_bytes: int) -> None:
        rows = max(size_bytes // COLUMNS // 8, 1)
        values = np.arange(rows * COLUMNS, dtype=np.float64)
        parts = [values[i * rows : (i + 1) * rows] for i in range(COLUMNS)]
        self.table = pa.table({f"column_{i}": pa.array(part) for i, part in enumerate(parts)})
        self.bytes = values.view(np.uint8)
        self.size_bytes = self.bytes.nbytes


class WarmRound:
    """Replace the table, get it in a process that has been there, and in one that is new."""

    def __init__(self, stack: ExitStack, side: Side, factory: tuple[Any, ...], source: Source) -> None:
        self.side, self.factory, self.size_bytes = side, factory, source.size_bytes
        self.value = side.prepare(source.table)
        self.getter = stack.enter_context(Peer(BulkGetter, *factory))

    def __call__(self) -> Mapping[str, float]:
        put_s = seconds(lambda: self.side.put(NAME, self.value))
        first = self.getter.call("first", [NAME])
        again = self.getter.call("again", [NAME])
        self.getter.call("drop")
        in_turn = self.getter.call("in_turn")
        with Peer(BulkGetter, *self.factory) as stranger:
            connect = stranger.call("connected_us")
            very_first = stranger.call("first", [NAME])
        return {
            "put": gib_per_s(self.size_bytes, put_s),
            "get": first,
            "get in turn": in_turn,
            "get again": again,
            "connect": connect,
            "get, new process": very_first,
        }


def _copying(operation: Callable[[], object], size_bytes: int) -> Callable[[], Mapping[str, float]]:
    """A contender that copies: its bandwidth, and its duration for rows that are durations."""

    def run() -> Mapping[str, float]:
        elapsed_s = seconds(operation)
        return {"put": gib_per_s(size_bytes, elapsed_s), "copy": elapsed_s * 1e6}

    return run


def _copiers(stack: ExitStack, source: Source) -> dict[str, Any]:
    copies = stack.enter_context(Memcpy(source.bytes))
    return {
        "memcpy 1": _copying(copies.one, source.size_bytes),
        "memcpy 2": _copying(copies.two, source.size_bytes),
    }


def run_warm(settings: Settings) -> list[Row]:
    """Put and get of a table in a store that is in use."""
    source = Source(settings.size_bytes)
    label = f"{source.size_bytes / MIB:,.0f} MiB table"
    settings.say(f"{label}, warm")
    codec = Codec("table", source.table.schema)
    contenders: dict[str, Any] = {}
    rows: list[Row] = []
    with ExitStack() as stack:
        if not settings.baselines_only:
            ours = _warm_store(stack, settings, source)
            contenders[OURS] = ours
        path, room = settings.scratch / "warm.lmdb", 4 * source.size_bytes + 64 * MIB
        lmdb_side = stack.enter_context(closing(LmdbSide(path, room, codec)))
        stack.callback(shutil.rmtree, path)
        contenders["LMDB"] = WarmRound(stack, lmdb_side, (LmdbSide, path, room, codec, True), source)
        contenders |= _copiers(stack, source)
        with fresh_file(settings.scratch / "shared") as descriptor:
            shared = map_and_copy(descriptor, source.bytes, 2)
        into_shared = stack.enter_context(Memcpy(source.bytes, destination=shared))
        by_column = stack.enter_context(Memcpy(source.bytes, calls=COLUMNS // 2))
        contenders["memcpy 2 by column"] = _copying(by_column.two, source.size_bytes)
        contenders["memcpy 2 to shm"] = _copying(into_shared.two, source.size_bytes)
        samples = interleave(contenders, settings.scaled(11, 1), warmups=settings.scaled(3, 1))
        if not settings.baselines_only:
            rows.append(_sharing_row(ours, settings, label))
    return _warm_rows(samples, label) + rows


def _warm_store(stack: ExitStack, settings: Settings, source: Source) -> WarmRound:
    path = settings.scratch / "warm.store"
    side = stack.enter_context(closing(StoreSide(path, 3 * source.size_bytes + 256 * MIB)))
    stack.callback(side.store.destroy)
    return WarmRound(stack, side, (StoreSide, path), source)


def _sharing_row(ours: WarmRound, settings: Settings, label: str) -> Row:
    grown = Spread.of(
        ours.getter.call("anonymous_growth", settings.scratch / "warm.store") / 1024 for _ in range(3)
    )
    return Row(
        "warm",
        f"private memory to get and read: {label}",
        "KiB",
        grown,
        {},
        {},
        Target(256, True),
        "every buffer lies in the arena's read-only mapping (checked)",
    )


def _warm_rows(samples: Any, label: str) -> list[Row]:
    copies = ("memcpy 1", "memcpy 2")
    others = {name: (name, "put") for name in ("LMDB", *copies, "memcpy 2 by column", "memcpy 2 to shm")}
    rows = [
        make_row(
            "warm",
            f"put, warm: {label}",
            "GiB/s",
            samples,
            "put",
            others,
            target=Target(0.8, False, "memcpy 2"),
        )
    ]
    for measure in ("get", "get in turn", "get again", "connect", "get, new process"):
        beside = {"LMDB": ("LMDB", measure)} | {name: (name, "copy") for name in copies}
        target = Target(60, True) if measure == "get in turn" else None
        rows.append(make_row("warm", f"{measure}: {label}", "us", samples, measure, beside, target=target))
    return rows


def run_cold(settings: Settings) -> list[Row]:
    """Put of a table into a store that was just made."""
    source = Source(settings.size_bytes)
    label = f"{source.size_bytes / MIB:,.0f} MiB table"
    settings.say(f"{label}, cold")
    contenders: dict[str, Any] = {}
    if not settings.baselines_only:
        contenders[OURS] = lambda: _cold_store(settings.scratch / "cold.store", source)
    contenders["LMDB"] = lambda: _cold_lmdb(settings.scratch / "cold.lmdb", source)
    with ExitStack() as stack:
        contenders |= _copiers(stack, source) | _floors(settings.scratch / "fresh", source)
        samples = interleave(contenders, settings.scaled(5, 1), warmups=0)
    return [
        make_row(
            "cold",
            f"put, cold: {label}",
            "GiB/s",
            samples,
            "put",
            {name: (name, "put") for name in contenders if name != OURS},
            target=Target(0.4, False, "memcpy 1"),
            note="fresh: pages that nobody has touched",
        )
    ]


def _cold_store(path: Path, source: Source) -> Mapping[str, float]:
    side = StoreSide(path, 2 * source.size_bytes + 256 * MIB)
    try:
        put_s = seconds(lambda: side.put(NAME, source.table))
    finally:
        side.store.destroy()
        side.close()
    return {"put": gib_per_s(source.size_bytes, put_s)}


def _cold_lmdb(path: Path, source: Source) -> Mapping[str, float]:
    side = LmdbSide(path, 2 * source.size_bytes + 64 * MIB, Codec("table", source.table.schema))
    value = side.prepare(source.table)
    try:
        put_s = seconds(lambda: side.put(NAME, value))
    finally:
        side.close()
        shutil.rmtree(path)
    return {"put": gib_per_s(source.size_bytes, put_s)}


def _floors(path: Path, source: Source) -> dict[str, Any]:
    """Other ways to write the same bytes into fresh memory."""

    def into_file(fill: Callable[[int], object]) -> Callable[[], Mapping[str, float]]:
        def run() -> Mapping[str, float]:
            with fresh_file(path) as descriptor:
                return _copying(lambda: fill(descriptor), source.size_bytes)()

        return run

    return {
        "fresh pwrite 1": into_file(lambda file: write_file(file, source.bytes, 1)),
        "fresh pwrite 2": into_file(lambda file: write_file(file, source.bytes, 2)),
        "fresh populate 2": into_file(lambda file: map_and_copy(file, source.bytes, 2)),
        "fresh np.copy": _copying(lambda: np.copy(source.bytes), source.size_bytes),
    }


def free_bytes(directory: Path) -> int:
    """Room on the file system of `directory`, or in memory, whichever is less."""
    found = os.statvfs(directory)
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return min(found.f_bavail * found.f_frsize, int(line.split()[1]) * 1024)
    return found.f_bavail * found.f_frsize
