"""Making room for payload.

`extents.take` allocates inside a write transaction, from warm ranges only. When it finds nothing, the caller
leaves its transaction and calls `make_room`, which tries in this order, each step outside of any transaction
that readers or writers wait for:

1. give back what deleted objects no longer need (a sweep);
2. back fresh addresses with memory, while the capacity allows;
3. give the memory of unsuitable warm ranges back to the system, so that fresh addresses can have it;
4. reclaim what dead clients left;
5. evict what may be dropped, and only when that is not enough, spill (lifecycle.pressure);
6. wait until somebody frees something, as long as the caller allows;
and then says StoreFull, with numbers.

A range whose backing is being changed is *in transit*: recorded with its client, and used by nobody. If the
client dies, recovery punches the range and returns it to the cold ones, which is right whichever way it was
going.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterator

from flightstore.catalog.transaction import GROWING, PUNCHING, WriteTransaction
from flightstore.errors import SpillFailed, StoreFull
from flightstore.lifecycle import extents, freeing, pressure, recovery, reports
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.pressure import Effort
from flightstore.memory import allocator, cgroup
from flightstore.memory.control import Control

__all__ = ["grow", "make_room", "store_full"]

_MIN_STEP, _MAX_STEP = 256 << 10, 64 << 20
_STEPS_PER_STORE = 64
_POLL_S = 0.05  # leases are given back without a bell: look again this often while waiting for room


def make_room(
    conn: Connection,
    nbytes: int,
    align: int,
    deadline: float | None,
    patience: float,
    effort: Effort,
) -> bool:
    """Make it likely that `take` succeeds; the caller tries again until it does.

    Args:
        conn: The store.
        nbytes: What could not be taken.
        align: Its alignment.
        deadline: When (monotonic seconds) to stop waiting for others to free something; None never stops.
        patience: When to stop waiting, whatever the deadline, for others who are changing what backs a range:
            that takes milliseconds, unless they were stopped in the middle of it.
        effort: On whose behalf, and how far it may go.

    Returns:
        Whether the next try should look at every range (``take(..., looks=None)``): only that finds it.

    Raises:
        StoreFull: there is no room, and waiting is over; SpillFailed where only spilling could have helped.
    """
    if nbytes > conn.capacity_bytes:
        raise store_full(conn, nbytes)
    stay = conn.leases.stay()  # what is in transit lives as long as its client file
    try:
        return _make_room(conn, nbytes, align, deadline, patience, effort)
    finally:
        del stay


def _make_room(
    conn: Connection,
    nbytes: int,
    align: int,
    deadline: float | None,
    patience: float,
    effort: Effort,
) -> bool:
    if freeing.sweep(conn)[1] and _fits(conn, nbytes, align):
        return False
    refusal: _NotBacked | SpillFailed | None = None
    try:
        if _grow(conn, nbytes, align) or _punch_and_grow(conn, nbytes, align):
            return False
    except _NotBacked as error:
        refusal = error.with_traceback(None)  # which refers to this frame
        if _punch_for_memory(conn, nbytes, align):
            return False
    if recovery.recover(conn, thorough=False).freed_bytes:
        return False
    if _fits(conn, nbytes, align, looks=None):
        return True
    try:
        if pressure.relieve(conn, nbytes, effort):
            return False
    except SpillFailed as error:
        refusal = error.with_traceback(None)  # which refers to this frame
    _wait_for_room(conn, nbytes, align, deadline, patience, refusal)
    return False


class _NotBacked(Exception):
    """The system gave no memory for a range, though the capacity allows it. Its text says why."""

    hint = ""


def _fits(conn: Connection, nbytes: int, align: int, looks: int | None = allocator.LOOKS) -> bool:
    return conn.write(lambda tx: allocator.allocate(tx.warm, nbytes, align=align, looks=looks) is not None)


def _step(conn: Connection) -> int:
    return max(_MIN_STEP, min(conn.capacity_bytes // _STEPS_PER_STORE, _MAX_STEP))


# --- growing ---


def _plan(
    conn: Connection, tx: WriteTransaction, nbytes: int, align: int, step_bytes: int
) -> allocator.Growth | None:
    return allocator.plan_growth(
        tx.cold,
        nbytes,
        warm=tx.warm,
        backed_bytes=tx.counters.backed_bytes,
        capacity_bytes=conn.capacity_bytes,
        step_bytes=step_bytes,
        align=align,
    )


def grow(conn: Connection, nbytes: int) -> bool:
    """Back fresh addresses for somebody who may not make room otherwise; False where there are none."""
    try:
        return _grow(conn, nbytes, allocator.UNIT)
    except _NotBacked:
        return False


def _grow(conn: Connection, nbytes: int, align: int) -> bool:
    """Back fresh addresses; False when capacity or addresses do not allow it.

    A whole step first, since that is cheaper in the long run; then, when the system has no memory for that,
    no more than is needed.

    Raises:
        _NotBacked: the system has no memory even for that.
    """
    try:
        return _grow_by(conn, nbytes, align, _step(conn))
    except _NotBacked:
        return _grow_by(conn, nbytes, align, 0)


def _grow_by(conn: Connection, nbytes: int, align: int, step_bytes: int) -> bool:
    with _moving(conn) as mine:
        grown = conn.write(lambda tx: _begin_growth(conn, tx, mine, nbytes, align, step_bytes))
        if grown is None:
            return False
        _back(conn, *grown)
        return True


@contextlib.contextmanager
def _moving(conn: Connection) -> Iterator[list[int]]:
    """Collects the starts of the ranges that this call has in transit.

    They are noted in ``conn.moving`` within the transaction that records them, and taken out however the
    block is left. So a range in transit of our own client that is not noted there belongs to a call that was
    interrupted, at whatever instruction, and recovery may return it.
    """
    mine: list[int] = []
    try:
        yield mine
    finally:
        for start in mine:
            if conn.moving.get(start) is mine:
                del conn.moving[start]


def _note(conn: Connection, mine: list[int], start: int) -> None:
    mine.append(start)
    conn.moving[start] = mine


def _begin_growth(
    conn: Connection, tx: WriteTransaction, mine: list[int], nbytes: int, align: int, step_bytes: int
) -> tuple[int, int] | None:
    """Put a cold range into transit, if one can be backed without punching others first."""
    plan = _plan(conn, tx, nbytes, align, step_bytes)
    if plan is None or plan.lacking_bytes:
        return None
    _note(conn, mine, plan.start)
    tx.cold.apply(plan.edit.removed, plan.edit.added)
    tx.add_transit(plan.start, plan.end, GROWING, conn.client)
    tx.counters.backed_bytes += plan.end - plan.start
    return plan.start, plan.end


def _back(conn: Connection, start: int, end: int) -> None:
    """Back a range that is in transit with memory, and make it warm."""
    try:
        _check_cgroup(end - start)
        conn.arena.reserve(start, end - start)
    except BaseException as error:
        _undo_growth(conn, start, end)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM):
            raise _file_system_full(conn, end - start) from error
        raise
    conn.write(lambda tx: _end_growth(tx, start, end))


def _end_growth(tx: WriteTransaction, start: int, end: int) -> None:
    if tx.drop_transit(start):
        extents.make_warm(tx, start, end)


def _undo_growth(conn: Connection, start: int, end: int) -> None:
    conn.arena.punch(start, end - start)
    conn.write(lambda tx: extents.make_cold(tx, start, end))


# --- punching ---


def _punch_and_grow(conn: Connection, nbytes: int, align: int) -> bool:
    """Turn unsuitable warm ranges cold until a growth fits; False when there is nothing to be had so."""
    with _moving(conn) as mine:
        ranges = conn.write(lambda tx: _begin_punch(conn, tx, mine, nbytes, align))
        if ranges:
            for start, end in ranges:
                conn.arena.punch(start, end - start)
            grown = conn.write(lambda tx: _end_punch(conn, tx, mine, ranges, nbytes, align))
            if grown is not None:
                _back(conn, *grown)
                return True
    return bool(ranges) and _grow(conn, nbytes, align)


def _punch_for_memory(conn: Connection, nbytes: int, align: int) -> bool:
    """The same where the system has no memory: what unsuitable warm ranges give back serves the growth."""
    try:
        with _moving(conn) as mine:
            ranges = conn.write(lambda tx: _begin_punch(conn, tx, mine, nbytes, align, refused=True))
            for start, end in ranges:
                conn.arena.punch(start, end - start)
            conn.write(lambda tx: _make_cold(tx, ranges))
        return bool(ranges) and _grow_by(conn, nbytes, align, 0)
    except _NotBacked:
        return False  # others were faster


def _make_cold(tx: WriteTransaction, ranges: list[tuple[int, int]]) -> None:
    for start, end in ranges:
        extents.make_cold(tx, start, end)


def _plan_punch(
    conn: Connection, tx: WriteTransaction, nbytes: int, align: int, *, refused: bool
) -> allocator.Punch | None:
    """What to punch so that a growth fits, None when that is no use.

    That is what the capacity lacks; all that the growth takes when the system refuses memory; and all there
    is when no run of addresses is long enough.
    """
    plan = _plan(conn, tx, nbytes, align, step_bytes=0)
    if plan is None:
        punch = allocator.plan_punch(tx.warm.largest_first(), conn.arena.arena_bytes)
        return punch if punch.ranges else None
    wanted = plan.end - plan.start if refused else plan.lacking_bytes
    punch = allocator.plan_punch(tx.warm.largest_first(), wanted, keep_end=plan.start)
    return punch if punch.freed_bytes >= wanted else None


def _begin_punch(
    conn: Connection,
    tx: WriteTransaction,
    mine: list[int],
    nbytes: int,
    align: int,
    *,
    refused: bool = False,
) -> list[tuple[int, int]]:
    """Put the warm ranges that are to be punched into transit."""
    punch = _plan_punch(conn, tx, nbytes, align, refused=refused)
    if punch is None:
        return []
    tx.warm.apply(punch.edit.removed, punch.edit.added)
    for start, end in punch.ranges:
        _note(conn, mine, start)
        tx.add_transit(start, end, PUNCHING, conn.client)
    return list(punch.ranges)


def _end_punch(
    conn: Connection,
    tx: WriteTransaction,
    mine: list[int],
    ranges: list[tuple[int, int]],
    nbytes: int,
    align: int,
) -> tuple[int, int] | None:
    """The punched ranges become cold. The growth is planned first, so that it comes out as when they were
    chosen.
    """
    left = [(start, end) for start, end in ranges if tx.has_transit(start)]
    freed = sum(end - start for start, end in left)
    tx.counters.backed_bytes -= freed
    grown = _begin_growth(conn, tx, mine, nbytes, align, _step(conn))
    tx.counters.backed_bytes += freed
    for start, end in left:
        extents.make_cold(tx, start, end)
    return grown


# --- waiting, giving up ---


def _wait_for_room(
    conn: Connection,
    nbytes: int,
    align: int,
    deadline: float | None,
    patience: float,
    refusal: _NotBacked | SpillFailed | None,
) -> None:
    """Sleep until something may have become free, a moment at most; or give up."""
    now = time.monotonic()
    seen = conn.control.bell(Control.ROOM_BELL)
    if deadline is not None and now >= deadline:
        # Others may have changed the picture between our steps: what counts is one moment's.
        refused = isinstance(refusal, _NotBacked)
        if now >= patience or conn.write(lambda tx: _is_full(conn, tx, nbytes, align, refused)):
            raise _explained(conn, nbytes, refusal) from refusal
        deadline = patience
    left = _POLL_S if deadline is None else deadline - now
    conn.control.sleep(Control.ROOM_BELL, seen, min(_POLL_S, left))


def _is_full(conn: Connection, tx: WriteTransaction, nbytes: int, align: int, refused: bool) -> bool:
    """Whether nothing that we could do at this moment would make room."""
    if tx.transits():
        return False  # somebody is changing the backing of a range: room may come of it at once
    if allocator.allocate(tx.warm, nbytes, align=align, looks=None) is not None:
        return False
    return _plan_punch(conn, tx, nbytes, align, refused=refused) is None


def _check_cgroup(nbytes: int) -> None:
    """Refuse a growth that would get this process killed for its control group's memory limit."""
    headroom = cgroup.headroom_bytes()
    if headroom is not None and headroom < nbytes:
        error = _NotBacked(f"this process's control group has {headroom:,} bytes of memory left")
        error.hint = "raise the memory limit of the container, or free memory in it"
        raise error


def _file_system_full(conn: Connection, growth: int) -> _NotBacked:
    free = conn.arena.free_file_system_bytes()
    error = _NotBacked(f"the memory file system has {free:,} bytes free, {growth:,} were to be backed")
    error.hint = "something else fills the memory file system: free memory there, or delete objects"
    return error


def _explained(conn: Connection, nbytes: int, refusal: _NotBacked | SpillFailed | None) -> StoreFull:
    """The error for a request that found no room, with the reason that the system or a storage gave."""
    error = store_full(conn, nbytes, SpillFailed if isinstance(refusal, SpillFailed) else StoreFull)
    if refusal is not None:
        error.message += f"; {refusal.args[0]}"
        error.hint = refusal.hint
    if isinstance(error, SpillFailed) and isinstance(refusal, SpillFailed):
        error.url, error.free_bytes = refusal.url, refusal.free_bytes
    return error


def store_full(conn: Connection, nbytes: int, kind: type[StoreFull] = StoreFull) -> StoreFull:
    """The error for a request that found no room, with its numbers."""
    stats = reports.usage(conn)
    error = kind(
        f"no room for {nbytes:,} bytes in {conn.path}: capacity {conn.capacity_bytes:,}, "
        f"free {stats.free_bytes:,}, pinned {stats.pinned_bytes:,}, held by readers {stats.leased_bytes:,}, "
        f"evictable {stats.evictable_bytes:,}, spillable {stats.spillable_bytes:,}, "
        f"largest hole {stats.largest_hole_bytes:,}",
        hint="delete objects, release what is held, configure a spill storage, or use a larger capacity",
    )
    error.asked_bytes = nbytes
    error.capacity_bytes = conn.capacity_bytes
    error.free_bytes = stats.free_bytes
    error.pinned_bytes = stats.pinned_bytes
    error.leased_bytes = stats.leased_bytes
    error.spillable_bytes = stats.spillable_bytes
    error.largest_hole_bytes = stats.largest_hole_bytes
    return error
