"""Moves between the kinds of address ranges, within a write transaction: the only place that changes the
tiling.

Free ranges are warm (backed by memory) or cold; the allocator (memory.allocator) decides, the catalog
records.
"""

from __future__ import annotations

from collections.abc import Iterable

from flightstore.catalog.records import ARENA_FILE, Extent
from flightstore.catalog.transaction import WriteTransaction
from flightstore.memory import allocator
from flightstore.memory.control import Control

__all__ = ["give_back", "make_cold", "make_warm", "take"]


def take(
    tx: WriteTransaction,
    nbytes: int,
    align: int = allocator.UNIT,
    *,
    session: int = 0,
    looks: int | None = allocator.LOOKS,
) -> Extent | None:
    """Allocate an extent with one user; None when no warm range was found that fits (`allocate`).

    It counts against the quota of `session`.
    """
    plan = allocator.allocate(tx.warm, nbytes, align=align, looks=looks)
    if plan is None:
        return None
    tx.warm.apply(plan.edit.removed, plan.edit.added)
    extent = Extent(ARENA_FILE, plan.offset, plan.length)
    tx.add_extent(extent, session)
    return extent


def give_back(tx: WriteTransaction, extents: Iterable[Extent]) -> int:
    """Take one user off each extent; the last one returns it to the free space. Requires that nobody reads
    them.

    Neighbours are joined before the free space is touched: what was put in a row is often freed in a row.

    Returns:
        Bytes that became free.
    """
    freed = [gone for extent in extents if (gone := tx.drop_extent(extent)) is not None]
    start = end = -1
    for offset, length in sorted((extent.offset, extent.length) for extent in freed):
        if offset != end:
            if end >= 0:
                make_warm(tx, start, end)
            start = offset
        end = offset + length
    if end >= 0:
        make_warm(tx, start, end)
    return sum(extent.length for extent in freed)


def make_warm(tx: WriteTransaction, start: int, end: int) -> None:
    """A range that is backed and belongs to nobody becomes free."""
    edit = allocator.release(tx.warm, start, end)
    tx.warm.apply(edit.removed, edit.added)
    tx.ring(Control.ROOM_BELL)


def make_cold(tx: WriteTransaction, start: int, end: int) -> None:
    """A range in transit that was punched becomes free; nothing happens when it was recovered already."""
    if tx.drop_transit(start):
        edit = allocator.release(tx.cold, start, end)
        tx.cold.apply(edit.removed, edit.added)
        tx.counters.backed_bytes -= end - start
        tx.ring(Control.ROOM_BELL)
