"""How much of a table lies in the memory of others, found by looking at the addresses."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

__all__ = ["shared_bytes"]


def shared_bytes(table: pa.Table, others: Sequence[pa.Table]) -> int:
    """Bytes of a table's buffers that are those of other tables."""
    known = sorted({run for other in others for run in _runs(other)})
    starts = [start for start, _ in known]
    total = 0
    for start, stop in set(_runs(table)):
        at = bisect_right(starts, start) - 1
        if at >= 0 and stop <= known[at][1]:
            total += stop - start
    return total


def _runs(table: pa.Table) -> Iterator[tuple[int, int]]:
    for column in table.columns:
        for chunk in column.chunks:
            yield from _of(chunk)


def _of(array: Any) -> Iterator[tuple[int, int]]:
    for buffer in array.buffers():
        if buffer is not None and buffer.size:
            yield buffer.address, buffer.address + buffer.size
    if pa.types.is_dictionary(array.type):
        yield from _of(array.dictionary)
