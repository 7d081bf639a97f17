"""What the processes of the chaos test share outside of the store: counts, gates, a record of promises.

Lives here: `Board` (memory that all of them map) and `Ledger` (one file per process, appended to). Calls
nothing else of flightstore.

Invariants: a row of the board is written by one process at a time, so that counts survive the death of
whoever counted. A line of a ledger is written before the operation that it announces, and another behind it:
whoever reads it knows what must be in the store, and what may be.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Board", "Expected", "Ledger", "read_ledgers"]

_RING = 24
_NOTE_BYTES = 160
_GATE, _OVER = 0, 1


class Board:
    """Counters, what each process does at this moment and did last, and the words that govern all of them."""

    def __init__(self, rows: int, counters: Iterable[str], log: str) -> None:
        self.counters = tuple(counters)
        self.rows = rows
        self.log = log
        """File that failures are appended to."""
        self._at = {name: number for number, name in enumerate(self.counters)}
        self._width = len(self.counters) + 4
        self._words = memoryview(mmap.mmap(-1, 8 * (8 + rows * self._width))).cast("q")
        self._notes = memoryview(mmap.mmap(-1, rows * _RING * _NOTE_BYTES))

    # --- the words that govern ---

    @property
    def gate(self) -> int:
        """Number of the round that all have to stop for; 0 while they may work."""
        return self._words[_GATE]

    @gate.setter
    def gate(self, number: int) -> None:
        self._words[_GATE] = number

    @property
    def over(self) -> bool:
        """Whether the run is over."""
        return self._words[_OVER] != 0

    def end(self) -> None:
        """Have all processes end."""
        self._words[_OVER] = 1

    @property
    def stopping(self) -> bool:
        """Whether to stop as soon as possible, for whichever reason."""
        return self._words[_GATE] != 0 or self._words[_OVER] != 0

    # --- rows ---

    def _own(self, row: int, number: int) -> int:
        return 8 + row * self._width + len(self.counters) + number

    def count(self, row: int, name: str, by: int = 1) -> None:
        """Count something. What nobody has heard of counts as `other`."""
        self._words[8 + row * self._width + self._at.get(name, 0)] += by

    def total(self, name: str) -> int:
        """A count over all rows."""
        at = 8 + self._at[name]
        return sum(self._words[at + row * self._width] for row in range(self.rows))

    def arrive(self, row: int, number: int) -> None:
        """Say that this process stands at the gate of a round."""
        self._words[self._own(row, 0)] = number

    def arrived(self, row: int) -> int:
        """The round at whose gate that process stood last."""
        return self._words[self._own(row, 0)]

    def begin(self, row: int, note: str) -> None:
        """Say what this process begins to do."""
        number = self._words[self._own(row, 1)]
        at = (row * _RING + number % _RING) * _NOTE_BYTES
        self._notes[at : at + _NOTE_BYTES] = note.encode()[:_NOTE_BYTES].ljust(_NOTE_BYTES)
        self._words[self._own(row, 1)] = number + 1
        self._words[self._own(row, 2)] = time.monotonic_ns()

    def add(self, row: int, note: str) -> None:
        """Say more of what it is doing."""
        at = (row * _RING + (self._words[self._own(row, 1)] - 1) % _RING) * _NOTE_BYTES
        before = bytes(self._notes[at : at + _NOTE_BYTES]).rstrip()
        self._notes[at : at + _NOTE_BYTES] = (before + note.encode())[:_NOTE_BYTES].ljust(_NOTE_BYTES)

    def conclude(self, row: int) -> None:
        """Say that it has done so."""
        self._words[self._own(row, 2)] = 0

    def busy_s(self, row: int) -> float:
        """For how long the process has been at one operation."""
        since = self._words[self._own(row, 2)]
        return (time.monotonic_ns() - since) / 1e9 if since else 0.0

    def last(self, row: int) -> list[str]:
        """What that process did last, the latest at the end."""
        number = self._words[self._own(row, 1)]
        places = [(row * _RING + one % _RING) * _NOTE_BYTES for one in range(max(0, number - _RING), number)]
        return [bytes(self._notes[at : at + _NOTE_BYTES]).decode(errors="replace").rstrip() for at in places]

    def report(self, row: int, text: str) -> None:
        """Write a failure down."""
        lines = "\n    ".join(self.last(row))
        with open(self.log, "ab", buffering=0) as file:
            file.write(
                f"row {row}, process {os.getpid()}: {text}\n  its last operations:\n    {lines}\n".encode()
            )


class Ledger:
    """What one process says of protected objects: ``+`` and ``-`` announce, ``=`` and ``x`` conclude."""

    def __init__(self, directory: str) -> None:
        path = os.path.join(directory, f"{os.getpid()}-{time.monotonic_ns()}")
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, sign: str, name: str, head: int = 0, note: str = "-") -> None:
        """Append a line; it is there, whoever is killed afterwards. `note` is for people: one word."""
        os.write(self._fd, f"{sign} {name} {head} {note}\n".encode())

    def close(self) -> None:
        """Give up the descriptor."""
        os.close(self._fd)


@dataclass(slots=True)
class Expected:
    """What ledgers say of one protected object."""

    heads: set[int] = field(default_factory=set)
    """First words, one of which it begins with."""
    must: bool = False
    """Whether it must be there."""
    gone: bool = False
    """Whether it must not be there."""
    lines: list[str] = field(default_factory=list)
    """All that the ledger says, for people."""


def read_ledgers(directory: str) -> dict[str, Expected]:
    """What is promised. Each name is in one ledger: that of the process that made it."""
    found: dict[str, Expected] = {}
    for path in sorted(Path(directory).iterdir()):
        for line in path.read_text().splitlines():
            sign, name, head, note = line.split(" ")
            entry = found.setdefault(name, Expected())
            entry.lines.append(f"{sign} {int(head):#x} {note}")
            if sign == "+":
                entry.heads.add(int(head))
                entry.gone = False
            elif sign == "=":
                entry.heads, entry.must, entry.gone = {int(head)}, True, False
            elif sign == "-":
                entry.must = False
            else:
                entry.gone = True
    return found
