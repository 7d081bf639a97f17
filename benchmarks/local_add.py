"""One more column for a large table: the table is there, the column is new.

One repetition makes the wider table and deletes it. Stores that do not compose put the whole table again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from baselines import Memcpy
from harness import MIB, Contender, Row, Samples, Settings, Target, make_row
from local_bulk import NAME, BulkGetter, both
from stores.base import Backend, make_side
from values import column_bytes, digest, make, with_column
from workload import Workload, beside_all

WIDER = "wider"
COLUMN = "added"
HEADER_BYTES = 8 << 10
"""What the store may grow by besides the column."""


class AddRound:
    """One store's contender: see the head of the file."""

    def __init__(self, stack: ExitStack, backend: Backend, work: AddColumn) -> None:
        self.value = make("table", work.settings.size_bytes)
        factory = backend.factory(work.key, work.room_bytes, backend.codec(self.value, bulk=True), True)
        stack.callback(backend.clear, work.key)
        self.side = stack.enter_context(closing(make_side(factory)))
        self.array = work.column()
        self.side.put(NAME, self.side.prepare(self.value))
        with backend.helper(BulkGetter, factory) as getter:
            self._add()
            found = getter.call("digest", self.side.token(WIDER))
            if found != digest(with_column(self.value, COLUMN, self.array)):
                raise AssertionError("the table came back different")
        self.side.delete(WIDER)

    def __call__(self) -> Mapping[str, float]:
        before = self.side.used_bytes()
        start = time.perf_counter()
        self._add()
        found = {"add": (time.perf_counter() - start) * 1e6}
        after = self.side.used_bytes()
        if before is not None and after is not None:
            found["growth"] = after - before - self.array.nbytes
        self.side.delete(WIDER)
        return found

    def _add(self) -> None:
        self.side.add_column(NAME, WIDER, COLUMN, self.array, self.value)


@dataclass(frozen=True)
class AddColumn(Workload):
    """An eighth of the table's size is added to it."""

    repetitions = (5, 4)
    warmups = 2

    @property
    def room_bytes(self) -> int:
        return 3 * self.settings.size_bytes

    def column(self) -> Any:
        """The values of the new column."""
        return np.arange(column_bytes(self.settings.size_bytes) // 8, dtype=np.float64) * 0.5

    def reason_without(self, backend: type[Backend]) -> str | None:
        return super().reason_without(backend) or backend.unable_to_add()

    def contender(self, stack: ExitStack, backend: Backend, duel: bool) -> Contender:
        return AddRound(stack, backend, self)

    def copies(self, stack: ExitStack, duel: bool) -> Mapping[str, Contender]:
        return both(stack.enter_context(Memcpy(self.column().view("u1"))))

    def rows(self, runs: Sequence[Samples], labels: Sequence[str]) -> list[Row]:
        beside = beside_all(labels, "add", "copy", "memcpy 1", "memcpy 2")
        name = f"add a column: {self.label}"
        target = Target(1.2, True, "memcpy 1")
        found = [make_row(self.key, name, "us", runs, "add", beside, target=target, memcpy="memcpy 1")]
        name = f"growth besides the column: {self.label}"
        beside = beside_all(labels, "growth", "none")
        bound = Target(HEADER_BYTES, True)
        found.append(make_row(self.key, name, "bytes", runs, "growth", beside, target=bound, compare=False))
        return found


def adds(settings: Settings) -> list[Workload]:
    """The one workload of this kind."""
    column, table = (nbytes / MIB for nbytes in (column_bytes(settings.size_bytes), settings.size_bytes))
    return [AddColumn("add", f"{column:,.0f} MiB to a {table:,.0f} MiB table", settings)]
