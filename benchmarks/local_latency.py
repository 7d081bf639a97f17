"""Latency of small values: put here, get in another process, get again while the first result lives.

One repetition of a contender puts a block of new names, gets each in the other process, gets each again
there while the first results live, drops them all, puts over the names, and deletes them; a measure is the
median of its block. A store so slow that a block would take long gets a shorter one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from baselines import Memcpy
from harness import GIB, MIB, Contender, Row, Samples, Settings, Target, make_row, median_us
from processes import Commanded
from stores.base import Backend, Side, delete_all, make_side
from values import digest, kind_of, make, size_of
from workload import Workload, beside_all, fits

BUDGET_S = 0.5
"""What the operations of one repetition may take on a slow store."""
LEAST = 5
ALLOWED = "1.3 x memcpy 1 + 60 us"


class Getter:
    """Lives in the other process and times gets there."""

    def __init__(self, side: Callable[..., Side], *args: Any) -> None:
        self.side = side(*args)
        self.side.attach()
        self.kept: list[Any] = []

    def first(self, tokens: list[Any]) -> float:
        """Get each and keep the results; microseconds."""
        return median_us(self.side.get, tokens, self.kept)

    def again(self, tokens: list[Any]) -> float:
        """Get each once more, dropping the results; microseconds."""
        return median_us(self.side.get, tokens)

    def drop(self) -> None:
        """Let go of every result."""
        self.kept.clear()

    def digest(self, token: Any) -> Any:
        """What is stored, in short."""
        return digest(self.side.unwrap(self.side.get(token)))

    def close(self) -> None:
        """Give the store up."""
        self.kept.clear()
        self.side.close()


class LatencyRound:
    """One store's contender: see the head of the file."""

    def __init__(
        self, side: Side, getter: Commanded, value: Any, names: list[str], gets_once: bool = False
    ) -> None:
        self.side, self.getter, self.names, self._gets_once = side, getter, names, gets_once
        self.value = side.prepare(value)
        start = time.perf_counter()
        side.put("check", self.value)
        if getter.call("digest", side.token("check")) != digest(value):
            raise AssertionError("a value came back different")
        side.delete("check")
        each_s = time.perf_counter() - start
        self.names = names[: fits(BUDGET_S, each_s, LEAST, len(names))]

    def __call__(self) -> Mapping[str, float]:
        put = median_us(self._put, self.names)
        tokens = [self.side.token(name) for name in self.names]
        found = {"put": put, "get": self.getter.call("first", tokens)}
        if not self._gets_once:
            found["get again"] = self.getter.call("again", tokens)
        self.getter.call("drop")
        if not self._gets_once:
            found["put over"] = median_us(self._put, self.names)
        delete_all(self.side, self.names)
        return found

    def _put(self, name: str) -> None:
        self.side.put(name, self.value)


@dataclass(frozen=True)
class Latency(Workload):
    """One kind of small value."""

    value: str = ""
    size_bytes: int = 0
    block: int = 200
    targets: Mapping[str, Target] = field(default_factory=dict)

    repetitions = (25, 10)
    warmups = 3

    @property
    def room_bytes(self) -> int:
        return GIB

    def contender(self, stack: ExitStack, backend: Backend, duel: bool) -> Contender:
        value = make(self.value, self.size_bytes)
        factory = backend.factory(self.key, self.room_bytes, backend.codec(value, bulk=False), False)
        stack.callback(backend.clear, self.key)
        side = stack.enter_context(closing(make_side(factory)))
        getter = stack.enter_context(backend.helper(Getter, factory))
        names = [f"{self.key}-{number}" for number in range(self._block)]
        return LatencyRound(side, getter, value, names, backend.gets_once)

    def copies(self, stack: ExitStack, duel: bool) -> Mapping[str, Contender]:
        value = make(self.value, self.size_bytes)
        payload = np.ones(size_of(value), "u1") if kind_of(value) == "table" else np.frombuffer(value, "u1")
        copies = stack.enter_context(Memcpy(payload, slots=self._block))

        def timed(copy: Callable[[int], None]) -> Contender:
            def run() -> Mapping[str, float]:
                took = median_us(copy, range(self._block))
                return {"copy": took, "allowed": 1.3 * took + 60}

            return run

        return {"memcpy 1": timed(copies.one), "memcpy 2": timed(copies.two)}

    def rows(self, runs: Sequence[Samples], labels: Sequence[str]) -> list[Row]:
        found = []
        for measure in ("put", "get", "get again", "put over"):
            beside = beside_all(labels, measure, "copy", "memcpy 1", "memcpy 2")
            target = self.targets.get(measure)
            if target and target.against == ALLOWED:
                beside[ALLOWED] = ("memcpy 1", "allowed")
            name = f"{measure}: {self.label}"
            found.append(
                make_row(self.key, name, "us", runs, measure, beside, target=target, memcpy="memcpy 1")
            )
        return found

    @property
    def _block(self) -> int:
        return self.settings.scaled(self.block, min(self.block, 10))


def latencies(settings: Settings) -> list[Workload]:
    """The kinds of small values, with what the project promises for each."""
    beside_lmdb = Target(1.5, True, "LMDB, IPC stream")
    row = {"put": beside_lmdb, "get": beside_lmdb, "get again": Target(10, True)}
    megabyte = {"put": Target(1, True, ALLOWED), "get": Target(40, True)}
    small = {"put": Target(25, True), "get": Target(10, True)}
    return [
        Latency("bytes", "1 KiB bytes", settings, "bytes", 1024, 200, small),
        Latency("array", "1 MiB array", settings, "array", MIB, 50),
        Latency("table1", "1 MiB table", settings, "table", MIB, 50, megabyte),
        Latency("row16", "1-row table, 16 columns", settings, "row16", 0, 200, row),
        Latency("row1", "1-row table, 1 column", settings, "row1", 0, 200, row),
    ]
