"""Many small objects: operations per second of one process and of four, latency under load, metadata each.

One repetition of a contender, all by name and in shuffled order: one process puts every object, another
gets every one, four get a quarter each at once, one deletes them all, four put a quarter each at once. The
cyclic collector is on, and a get includes giving its result back. A slow store gets fewer objects.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from baselines import Memcpy
from harness import GIB, OURS, Contender, Row, Samples, Settings, Target, make_row
from processes import Commanded
from stores.base import Backend, Side, make_side
from workload import Workload, beside_all, fits

PAYLOAD = bytes(range(128))
PROCESSES = 4
COPIES = 10_000
BUDGET_S = 4.0
"""What the puts of one process may take on a slow store."""
LEAST = 500


@dataclass(frozen=True, slots=True)
class Burst:
    """What one process did: when, on the clock all processes share, and how long each operation took."""

    start_s: float
    stop_s: float
    latencies_us: Any
    tokens: list[Any] | None = None
    """What other processes get the objects by, where that is not their names."""


class Worker:
    """Lives in another process and works through its share of the names."""

    def __init__(self, side: Callable[..., Side], *args: Any) -> None:
        self.side = side(*args)

    def put(self, names: list[str]) -> Burst:
        """Put the payload under each name."""
        burst = self._burst(lambda name: self.side.put(name, PAYLOAD), names)
        tokens = [self.side.token(name) for name in names]
        return burst if tokens == names else replace(burst, tokens=tokens)

    def get(self, tokens: list[Any]) -> Burst:
        """Get each and drop the result."""
        return self._burst(self.side.get, tokens)

    def delete(self, names: list[str]) -> Burst:
        """Delete each name."""
        return self._burst(self.side.delete, names)

    def check(self, token: Any) -> None:
        """Fail unless the payload is stored there."""
        if bytes(self.side.get(token)) != PAYLOAD:
            raise AssertionError("an object came back different")

    def close(self) -> None:
        """Give the store up."""
        self.side.close()

    @staticmethod
    def _burst(operation: Callable[[Any], object], items: list[Any]) -> Burst:
        clock = time.perf_counter_ns
        ends = np.empty(len(items) + 1, np.int64)
        ends[0] = clock()
        for number, item in enumerate(items, 1):
            operation(item)
            ends[number] = clock()
        return Burst(ends[0] / 1e9, ends[-1] / 1e9, np.diff(ends) / 1e3)


class ManyRound:
    """One store's contender: see the head of the file."""

    def __init__(self, stack: ExitStack, backend: Backend, work: Many, most: int) -> None:
        factory = backend.factory(work.key, work.room_bytes, backend.codec(PAYLOAD, bulk=False), False)
        self.backend = backend
        stack.callback(backend.clear, work.key)
        self.side = stack.enter_context(closing(make_side(factory)))
        self.workers = [stack.enter_context(backend.helper(Worker, factory)) for _ in range(PROCESSES)]
        count = fits(BUDGET_S, self._pace_s(), min(LEAST, most), most) if most < work.count else most
        self.names = [f"o{number:06}" for number in range(count)]
        random.Random(1).shuffle(self.names)

    def _pace_s(self) -> float:
        """How long one put takes, as a rule."""
        names = [f"pace{number}" for number in range(100)]
        burst: Burst = self.workers[0].call("put", names)
        self.workers[0].call("delete", names)
        return float(np.median(burst.latencies_us)) / 1e6

    def __call__(self) -> Mapping[str, float]:
        count = len(self.names)
        before = self.backend.metadata_bytes(self.side, 0)
        found, tokens = self._measure("put", self.names, self.workers[:1])
        kept = self.backend.metadata_bytes(self.side, count * len(PAYLOAD))
        found["metadata"] = (kept - before) / count
        self.workers[1].call("check", tokens[0])
        # Nobody gets its own objects.
        found |= self._measure("get", tokens, self.workers[1:2])[0]
        found |= self._measure("get", tokens, self.workers)[0]
        found |= self._measure("delete", self.names, self.workers[:1])[0]
        found |= self._measure("put", self.names, self.workers)[0]
        for number, worker in enumerate(self.workers):  # some stores let the putter alone delete
            worker.call("delete", self.names[number::PROCESSES])
        return found

    def _measure(
        self, method: str, items: list[Any], workers: Sequence[Commanded]
    ) -> tuple[dict[str, float], list[Any]]:
        """Split the items over processes; the rate of all together, the quantiles of the latencies, and what
        the first of the processes has put.
        """
        processes = len(workers)
        for number, worker in enumerate(workers):
            worker.begin(method, items[number::processes])
        bursts: list[Burst] = [worker.result() for worker in workers]
        wall_s = max(burst.stop_s for burst in bursts) - min(burst.start_s for burst in bursts)
        p50, p99 = np.percentile(np.concatenate([burst.latencies_us for burst in bursts]), (50, 99))
        key = f"{method} {processes}"
        found = {key: len(items) / wall_s, f"{key} p50": float(p50), f"{key} p99": float(p99)}
        return found, bursts[0].tokens or items


@dataclass(frozen=True)
class Many(Workload):
    """100,000 objects of 128 bytes."""

    repetitions = (5, 2)
    warmups = 1

    @property
    def room_bytes(self) -> int:
        return GIB

    @property
    def count(self) -> int:
        """How many objects a store gets that is fast enough; a fifth of them in a duel."""
        return self.settings.scaled(100_000, 500)

    def contender(self, stack: ExitStack, backend: Backend, duel: bool) -> Contender:
        return ManyRound(stack, backend, self, self.count // 5 if duel else self.count)

    def copies(self, stack: ExitStack, duel: bool) -> Mapping[str, Contender]:
        copies = stack.enter_context(Memcpy(np.frombuffer(PAYLOAD, np.uint8)))
        return {"memcpy 1": lambda: _copy_rate(copies.one), "memcpy 2": lambda: _copy_rate(copies.two)}

    def rows(self, runs: Sequence[Samples], labels: Sequence[str]) -> list[Row]:
        targets = {"put": Target(20_000, False), "get": Target(80_000, False)}
        rows = []
        for method in ("put", "get"):
            rows.append(self._rate(runs, labels, method, 1, targets[method]))
            rows.append(self._rate(runs, labels, method, PROCESSES, Target(0.75, False, "one process")))
            for quantile in ("p50", "p99"):
                measure = f"{method} {PROCESSES} {quantile}"
                target = Target(2_000, True) if quantile == "p99" else None
                beside = beside_all(labels, measure, "us", "memcpy 1", "memcpy 2")
                name = f"{method}, {PROCESSES} processes, {quantile}: {self.label}"
                rows.append(make_row(self.key, name, "us", runs, measure, beside, target=target))
        rows.append(self._rate(runs, labels, "delete", 1, None))
        name, beside = f"metadata per object: {self.label}", beside_all(labels, "metadata", "none")
        bound = Target(600, True)
        row = make_row(self.key, name, "bytes", runs, "metadata", beside, target=bound, compare=False)
        return [*rows, row]

    def _rate(
        self,
        runs: Sequence[Samples],
        labels: Sequence[str],
        method: str,
        processes: int,
        target: Target | None,
    ) -> Row:
        measure = f"{method} {processes}"
        beside = beside_all(labels, measure, "rate", "memcpy 1", "memcpy 2")
        if processes > 1:
            beside["one process"] = (OURS, f"{method} 1")
        name = f"{method}, {processes} process{'es' * (processes > 1)}: {self.label}"
        return make_row(self.key, name, "op/s", runs, measure, beside, target=target)


def _copy_rate(copy: Callable[[], None]) -> Mapping[str, float]:
    start = time.perf_counter()
    for _ in range(COPIES):
        copy()
    elapsed_s = time.perf_counter() - start
    return {"rate": COPIES / elapsed_s, "us": elapsed_s / COPIES * 1e6}


def manys(settings: Settings) -> list[Workload]:
    """The one workload of this kind."""
    found = Many("many", "", settings)
    return [replace(found, label=f"{found.count:,} x {len(PAYLOAD)} B")]
