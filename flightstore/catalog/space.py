"""One space of free ranges as it stands in the catalog.

A range is a record of its table: letter + end -> start, and one of its size index: small letter + size class
+ end -> nothing. Taking from the front of a range changes only the table's value, and the index only when the
range leaves its size class. What to take, and how ranges join, is decided elsewhere (memory.allocator); this
file looks up and applies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["FreeSpace"]

Range = tuple[int, int]


class FreeSpace:
    """The free ranges of one space within one write transaction."""

    def __init__(self, txn: Any, letter: bytes, size_class: Callable[[int], int]) -> None:
        self._txn = txn
        self._table = letter
        self._index = letter.lower()
        self._size_class = size_class
        self._cursor = txn.cursor()

    def first_at_least(self, klass: int, end: int, /) -> tuple[int, int] | None:
        """The smallest (size class, end) not below ``(klass, end)``."""
        cursor = self._cursor
        if not cursor.set_range(self._index + klass.to_bytes(2, "big") + end.to_bytes(8, "big")):
            return None
        key = cursor.key()
        if key[:1] != self._index:
            return None
        return int.from_bytes(key[1:3], "big"), int.from_bytes(key[3:], "big")

    def start_of(self, end: int, /) -> int:
        """Start of the range that ends at `end`; LookupError when index and table contradict each other."""
        raw = self._txn.get(self._table + end.to_bytes(8, "big"))
        if raw is None:
            raise LookupError(f"no free range ends at {end}")
        return int.from_bytes(raw, "big")

    def ending_at(self, end: int, /) -> int | None:
        """Start of the range that ends at `end`, if there is one."""
        raw = self._txn.get(self._table + end.to_bytes(8, "big"))
        return None if raw is None else int.from_bytes(raw, "big")

    def starting_at(self, start: int, /) -> int | None:
        """End of the range that starts at `start`, if there is one."""
        cursor = self._cursor
        if not cursor.set_range(self._table + (start + 1).to_bytes(8, "big")):
            return None
        key, value = cursor.item()
        if key[:1] != self._table or int.from_bytes(value, "big") != start:
            return None
        return int.from_bytes(key[1:], "big")

    def apply(self, removed: Iterable[Range], added: Iterable[Range]) -> None:
        """Carry out an edit."""
        gone = {end: start for start, end in removed}
        for start, end in added:
            before = gone.pop(end, None)
            self._txn.put(self._table + end.to_bytes(8, "big"), start.to_bytes(8, "big"))
            klass = self._size_class(end - start)
            if before is not None:
                old = self._size_class(end - before)
                if old == klass:
                    continue
                self._txn.delete(self._index_key(old, end))
            self._txn.put(self._index_key(klass, end), b"")
        for end, start in gone.items():
            self._txn.delete(self._table + end.to_bytes(8, "big"))
            self._txn.delete(self._index_key(self._size_class(end - start), end))

    def _index_key(self, klass: int, end: int) -> bytes:
        return self._index + klass.to_bytes(2, "big") + end.to_bytes(8, "big")

    def ranges(self) -> Iterator[Range]:
        """All ranges by ascending address."""
        cursor = self._txn.cursor()
        if cursor.set_range(self._table):
            for key, value in cursor:
                if key[:1] != self._table:
                    return
                yield int.from_bytes(value, "big"), int.from_bytes(key[1:], "big")

    def index_entries(self) -> Iterator[tuple[int, int]]:
        """All (size class, end) of the index, ascending."""
        cursor = self._txn.cursor()
        if cursor.set_range(self._index):
            for key in cursor.iternext(keys=True, values=False):
                if key[:1] != self._index:
                    return
                yield int.from_bytes(key[1:3], "big"), int.from_bytes(key[3:], "big")

    def largest_first(self) -> Iterator[Range]:
        """All ranges by descending size class."""
        for _, end in reversed(list(self.index_entries())):
            yield self.start_of(end), end

    def largest_bytes(self) -> int:
        """Length of the longest range, 0 for none."""
        entries = list(self.index_entries())
        top = [end for klass, end in entries if klass == entries[-1][0]]
        return max((end - self.start_of(end) for end in top), default=0)
