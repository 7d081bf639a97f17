"""Large tables put into fresh memory: a store, or its server, made a moment ago.

Every page is touched for the first time; on a virtual machine that is mostly the host's work, so the floors
of writing fresh memory by other means stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from baselines import fresh_file, map_and_copy, write_file
from harness import MIB, Contender, Row, Samples, Settings, Target, gib_per_s, make_row, seconds
from local_bulk import COPIES, NAME, both, copying, large_memcpy
from stores.base import Backend, make_side
from values import COLUMNS, make, size_of
from workload import Workload, beside_all

FLOORS = ("fresh pwrite 1", "fresh pwrite 2", "fresh populate 2", "fresh np.copy")


@dataclass(frozen=True)
class Cold(Workload):
    """One kind of large table into a store that was just made."""

    value: str = ""
    repetitions = (3, 2)
    warmups = 0

    @property
    def room_bytes(self) -> int:
        return 2 * self.settings.size_bytes

    def contender(self, stack: ExitStack, backend: Backend, duel: bool) -> Contender:
        value = make(self.value, self.settings.size_bytes)
        codec = backend.codec(value, bulk=True)
        factory = backend.factory(self.key, self.room_bytes, codec, True)

        def run() -> Mapping[str, float]:
            backend.restart()
            try:
                with closing(make_side(factory)) as side:
                    prepared = side.prepare(value)
                    put_s = seconds(lambda: side.put(NAME, prepared))
            finally:
                backend.clear(self.key)
            return {"put": gib_per_s(size_of(value), put_s)}

        return run

    def copies(self, stack: ExitStack, duel: bool) -> Mapping[str, Contender]:
        copies = large_memcpy(max(self.settings.size_bytes, COLUMNS * 8))
        floors = {} if duel else _floors(self.settings.scratch / "fresh", copies.source)
        return both(copies) | floors

    def rows(self, runs: Sequence[Samples], labels: Sequence[str]) -> list[Row]:
        beside = beside_all(labels, "put", "put", *COPIES, *FLOORS)
        return [
            make_row(
                self.key,
                f"put, cold: {self.label}",
                "GiB/s",
                runs,
                "put",
                beside,
                target=Target(0.4, False, "memcpy 1"),
                note="fresh: pages that nobody has touched",
                memcpy="memcpy 1",
            )
        ]


def _floors(path: Path, payload: Any) -> dict[str, Contender]:
    """Other ways to write the same bytes into fresh memory."""

    def into_file(fill: Callable[[int], object]) -> Contender:
        def run() -> Mapping[str, float]:
            with fresh_file(path) as descriptor:
                return copying(lambda: fill(descriptor), payload.nbytes)()

        return run

    found = (
        into_file(lambda file: write_file(file, payload, 1)),
        into_file(lambda file: write_file(file, payload, 2)),
        into_file(lambda file: map_and_copy(file, payload, 2)),
        copying(lambda: np.copy(payload), payload.nbytes),
    )
    return dict(zip(FLOORS, found, strict=True))


def colds(settings: Settings) -> list[Workload]:
    """The table of one chunk, and of sixteen."""
    size = f"{settings.size_bytes / MIB:,.0f} MiB"
    return [
        Cold("cold", f"{size} table", settings, "table"),
        Cold("cold16", f"{size} table of 16 chunks", settings, "table16"),
    ]
