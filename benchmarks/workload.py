"""What a workload is: it makes contenders of stores, and rows of what they measured.

A workload is made anew, from its key and the settings, in each process that takes part in it; nothing large
crosses a process boundary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

from harness import Contender, Row, Samples, Settings
from stores.base import Backend


@dataclass(frozen=True)
class Workload(ABC):
    """One thing that is measured on every store."""

    key: str
    label: str
    settings: Settings
    repetitions: ClassVar[tuple[int, int]]
    """How often, among the stores of this environment and beside one peer."""
    warmups: ClassVar[int] = 1

    @abstractmethod
    def contender(self, stack: ExitStack, backend: Backend, duel: bool) -> Contender:
        """Set a store up for it; `stack` takes it down again.

        Args:
            duel: Whether it is measured beside one peer, where less must do.
        """

    @abstractmethod
    def copies(self, stack: ExitStack, duel: bool) -> Mapping[str, Contender]:
        """The same bytes copied without any store: ``memcpy 1``, ``memcpy 2``, and others but in a duel."""

    @abstractmethod
    def rows(self, runs: Sequence[Samples], labels: Sequence[str]) -> list[Row]:
        """What came of it; `labels` are the stores beside ours, in order."""

    @property
    def room_bytes(self) -> int:
        """What a store has to hold at once."""
        return 64 << 20

    def reason_without(self, backend: type[Backend]) -> str | None:
        """Why the store cannot take part; None when it can."""
        if backend.only is not None and self.key not in backend.only:
            return "it is not measured with this store"
        return None

    def rounds(self, duel: bool) -> tuple[int, int]:
        """Repetitions and warm-up rounds."""
        return self.settings.scaled(self.repetitions[duel], 1), self.settings.scaled(self.warmups, 1)


def beside_all(labels: Sequence[str], measure: str, copy: str, *copies: str) -> dict[str, tuple[str, str]]:
    """`beside` of a row: every store's `measure`, and every memcpy's `copy`."""
    stores = {label: (label, measure) for label in labels}
    return stores | {name: (name, copy) for name in copies}


def fits(budget_s: float, each_s: float, least: int, most: int) -> int:
    """How many operations fit into a time, within bounds."""
    return max(least, min(most, int(budget_s / max(each_s, 1e-9))))
