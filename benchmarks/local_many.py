"""Many small objects: operations per second of one process and of four, latency under load, metadata each.

One repetition of a contender, all by name and in shuffled order: one process puts every object, another
gets every one, four get a quarter each at once, one deletes them all, four put a quarter each at once. The
cyclic collector is on, and a get includes giving its result back.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from baselines import Memcpy
from harness import GIB, MIB, OURS, Row, Settings, Target, interleave, make_row
from peers import Peer
from sides import Codec, LmdbSide, Side, StoreSide

PAYLOAD = bytes(range(128))
PROCESSES = 4
STORE_BYTES = GIB
COPIES = 10_000


@dataclass(frozen=True, slots=True)
class Burst:
    """What one process did: when, on the clock all processes share, and how long each operation took."""

    start_s: float
    stop_s: float
    latencies_us: Any


class Worker:
    """Lives in another process and works through its share of the names."""

    def __init__(self, side: Callable[..., Side], *args: Any) -> None:
        self.side = side(*args)

    def put(self, names: list[str]) -> Burst:
        """Put the payload under each name."""
        return self._burst(lambda name: self.side.put(name, PAYLOAD), names)

    def get(self, names: list[str]) -> Burst:
        """Get each name and drop the result."""
        return self._burst(self.side.get, names)

    def delete(self, names: list[str]) -> Burst:
        """Delete each name."""
        return self._burst(self.side.delete, names)

    def check(self, name: str) -> None:
        """Fail unless the payload is stored under `name`."""
        if bytes(self.side.get(name)) != PAYLOAD:
            raise AssertionError(f"{name} came back different")

    def close(self) -> None:
        """Give the store up."""
        self.side.close()

    @staticmethod
    def _burst(operation: Callable[[str], object], names: list[str]) -> Burst:
        clock = time.perf_counter_ns
        ends = np.empty(len(names) + 1, np.int64)
        ends[0] = clock()
        for number, name in enumerate(names, 1):
            operation(name)
            ends[number] = clock()
        return Burst(ends[0] / 1e9, ends[-1] / 1e9, np.diff(ends) / 1e3)


class ManyRound:
    """One store's contender: see the head of the file."""

    def __init__(
        self, stack: ExitStack, factory: tuple[Any, ...], count: int, used: Callable[[], int]
    ) -> None:
        self.names = [f"o{number:06}" for number in range(count)]
        random.Random(1).shuffle(self.names)
        self.used = used
        self.workers = [stack.enter_context(Peer(Worker, *factory)) for _ in range(PROCESSES)]

    def __call__(self) -> Mapping[str, float]:
        before = self.used()
        found = self._measure("put", 1)
        found["metadata"] = (self.used() - before) / len(self.names)
        self.workers[1].call("check", self.names[0])
        found |= self._measure("get", 1) | self._measure("get", PROCESSES)
        found |= self._measure("delete", 1) | self._measure("put", PROCESSES)
        self._measure("delete", 1)
        return found

    def _measure(self, method: str, processes: int) -> dict[str, float]:
        """Split the names over processes; the rate of all together, and the quantiles of the latencies."""
        # Single puts and deletes are worker 0's, single gets worker 1's: nobody gets its own objects.
        workers = self.workers[1:2] if (method, processes) == ("get", 1) else self.workers[:processes]
        for number, worker in enumerate(workers):
            worker.begin(method, self.names[number::processes])
        bursts: list[Burst] = [worker.result() for worker in workers]
        wall_s = max(burst.stop_s for burst in bursts) - min(burst.start_s for burst in bursts)
        p50, p99 = np.percentile(np.concatenate([burst.latencies_us for burst in bursts]), (50, 99))
        key = f"{method} {processes}"
        return {key: len(self.names) / wall_s, f"{key} p50": float(p50), f"{key} p99": float(p99)}


def run_many(settings: Settings) -> list[Row]:
    """Measure many small objects on every side."""
    count = settings.scaled(100_000, 1_000)
    settings.say(f"{count:,} objects of {len(PAYLOAD)} bytes")
    with ExitStack() as stack:
        contenders: dict[str, Any] = {}
        if not settings.baselines_only:
            path = settings.scratch / "many.store"
            side = StoreSide(path, STORE_BYTES)
            stack.callback(side.close)
            stack.callback(side.store.destroy)
            contenders[OURS] = ManyRound(stack, (StoreSide, path), count, lambda: _store_metadata(side))
        contenders["LMDB"] = _lmdb(stack, settings.scratch / "many.lmdb", count)
        copies = stack.enter_context(Memcpy(np.frombuffer(PAYLOAD, np.uint8)))
        contenders["memcpy 1"] = lambda: _copy_rate(copies.one)
        contenders["memcpy 2"] = lambda: _copy_rate(copies.two)
        samples = interleave(contenders, settings.scaled(5, 1), warmups=settings.scaled(1, 0))
    return _rows(samples, count)


def _lmdb(stack: ExitStack, path: Path, count: int) -> ManyRound:
    factory = (LmdbSide, path, 256 * MIB, Codec("bytes"))
    side = LmdbSide(*factory[1:])
    stack.callback(shutil.rmtree, path)
    stack.callback(side.close)

    def used() -> int:
        found = side.env.stat()
        pages: int = found["branch_pages"] + found["leaf_pages"] + found["overflow_pages"]
        return pages * found["psize"] - found["entries"] * len(PAYLOAD)

    return ManyRound(stack, factory, count, used)


def _store_metadata(side: StoreSide) -> int:
    """Bytes the store uses besides payload: the catalog's pages in use, and the clients' files."""
    stats = side.store.stats()
    clients = sum(file.stat().st_blocks * 512 for file in (Path(stats.path) / "clients").iterdir())
    return int(stats.catalog_used_bytes) + clients


def _copy_rate(copy: Callable[[], None]) -> Mapping[str, float]:
    start = time.perf_counter()
    for _ in range(COPIES):
        copy()
    elapsed_s = time.perf_counter() - start
    return {"rate": COPIES / elapsed_s, "us": elapsed_s / COPIES * 1e6}


def _rows(samples: Any, count: int) -> list[Row]:
    label = f"{count:,} x {len(PAYLOAD)} B"
    targets = {"put": Target(20_000, False), "get": Target(80_000, False)}
    rows = []
    for method in ("put", "get"):
        rows.append(_rate(samples, method, 1, label, targets[method]))
        rows.append(_rate(samples, method, PROCESSES, label, Target(0.75, False, "one process")))
        for quantile in ("p50", "p99"):
            measure = f"{method} {PROCESSES} {quantile}"
            target = Target(2_000, True) if quantile == "p99" else None
            beside = {"LMDB": ("LMDB", measure)} | {f"memcpy {n}": (f"memcpy {n}", "us") for n in (1, 2)}
            name = f"{method}, {PROCESSES} processes, {quantile}: {label}"
            rows.append(make_row("many", name, "us", samples, measure, beside, target=target))
    rows.append(_rate(samples, "delete", 1, label, None))
    rows.append(
        make_row(
            "many",
            f"metadata per object: {label}",
            "bytes",
            samples,
            "metadata",
            {"LMDB": ("LMDB", "metadata")},
            target=Target(600, True),
        )
    )
    return rows


def _rate(samples: Any, method: str, processes: int, label: str, target: Target | None) -> Row:
    measure = f"{method} {processes}"
    beside = {"LMDB": ("LMDB", measure)}
    if processes > 1:
        beside["one process"] = (OURS, f"{method} 1")
    beside |= {f"memcpy {n}": (f"memcpy {n}", "rate") for n in (1, 2)}
    name = f"{method}, {processes} process{'es' * (processes > 1)}: {label}"
    return make_row("many", name, "op/s", samples, measure, beside, target=target)
