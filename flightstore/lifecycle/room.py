"""Making room for payload.

`extents.take` allocates inside a write transaction, from warm ranges only. When it finds nothing, the caller
leaves its transaction and calls `make_room`, which tries in this order, each step outside of any transaction
that readers or writers wait for:

1. give back what deleted objects no longer need (a sweep);
2. back fresh addresses with memory, while the capacity allows;
3. give the memory of unsuitable warm ranges back to the system, so that fresh addresses can have it;
4. reclaim what dead clients left;
5. wait until somebody frees something, as long as the caller allows;
and then says StoreFull, with numbers.

A range whose backing is being changed is *in transit*: recorded with its client, and used by nobody. If the
client dies, recovery punches the range and returns it to the cold ones, which is right whichever way it was
going.
"""

from __future__ import annotations

import errno
import functools
import threading
import time

from flightstore.catalog.transaction import GROWING, PUNCHING, WriteTransaction
from flightstore.errors import StoreFull
from flightstore.lifecycle import extents, freeing, recovery, reports
from flightstore.lifecycle.connection import Connection
from flightstore.memory import allocator, cgroup
from flightstore.memory.arena import Arena
from flightstore.memory.control import Control

__all__ = ["make_room", "store_full"]

_MIN_STEP, _MAX_STEP = 256 << 10, 64 << 20
_STEPS_PER_STORE = 64
_POLL_S = 0.05  # leases are given back without a bell: look again this often while waiting for room


def make_room(conn: Connection, nbytes: int, align: int, deadline: float | None) -> None:
    """Make it likely that `take` succeeds; the caller tries again until it does.

    Args:
        conn: The store.
        nbytes: What could not be taken.
        align: Its alignment.
        deadline: When (monotonic seconds) to stop waiting for others to free something; None never stops.

    Raises:
        StoreFull: there is no room, and waiting is over.
    """
    if nbytes > conn.capacity_bytes:
        raise store_full(conn, nbytes)
    stay = conn.leases.stay()  # what is in transit lives as long as its client file
    try:
        _make_room(conn, nbytes, align, deadline)
    except BaseException:
        _give_up(conn)
        raise
    finally:
        del stay


def _make_room(conn: Connection, nbytes: int, align: int, deadline: float | None) -> None:
    if freeing.sweep(conn)[1] and _fits(conn, nbytes, align):
        return
    if _grow(conn, nbytes, align) or _punch_and_grow(conn, nbytes, align):
        return
    if recovery.recover(conn).freed_bytes or _fits(conn, nbytes, align, looks=None):
        return
    _wait_for_room(conn, nbytes, deadline)


def _fits(conn: Connection, nbytes: int, align: int, looks: int | None = allocator.LOOKS) -> bool:
    return conn.write(lambda tx: allocator.allocate(tx.warm, nbytes, align=align, looks=looks) is not None)


def _step(conn: Connection) -> int:
    return max(_MIN_STEP, min(conn.capacity_bytes // _STEPS_PER_STORE, _MAX_STEP))


# --- transit ---


def _begin_transit(conn: Connection, tx: WriteTransaction, start: int, end: int, kind: int) -> None:
    """Record a range in the catalog and, before that is committed, in this process."""
    tx.add_transit(start, end, kind, conn.client)
    conn.transits[start] = end, threading.get_ident()


def _give_up(conn: Connection) -> None:
    """An exception is on its way: what this thread has in transit becomes cold."""
    me = threading.get_ident()
    mine = [(start, end) for start, (end, thread) in list(conn.transits.items()) if thread == me]
    for start, end in mine:
        conn.transits.pop(start, None)
        conn.undo(functools.partial(_make_cold, conn.arena, conn.client, start, end))


def _make_cold(arena: Arena, client: int, start: int, end: int, tx: WriteTransaction) -> None:
    """Return a range in transit to the cold ones, if this client still has it."""
    if (start, end, client) in ((one[0], one[1], one[3]) for one in tx.transits()):
        arena.punch(start, end - start)
        extents.make_cold(tx, start, end)


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


def _grow(conn: Connection, nbytes: int, align: int) -> bool:
    """Back fresh addresses; False when capacity or addresses do not allow it."""
    grown = conn.write(lambda tx: _begin_growth(conn, tx, nbytes, align))
    if grown is None:
        return False
    _back(conn, nbytes, *grown)
    return True


def _begin_growth(conn: Connection, tx: WriteTransaction, nbytes: int, align: int) -> tuple[int, int] | None:
    """Put a cold range into transit, if one can be backed without punching others first."""
    plan = _plan(conn, tx, nbytes, align, _step(conn))
    if plan is None or plan.lacking_bytes:
        return None
    tx.cold.apply(plan.edit.removed, plan.edit.added)
    _begin_transit(conn, tx, plan.start, plan.end, GROWING)
    tx.counters.backed_bytes += plan.end - plan.start
    return plan.start, plan.end


def _back(conn: Connection, nbytes: int, start: int, end: int) -> None:
    """Back a range that is in transit with memory, and make it warm."""
    try:
        _check_cgroup(conn, end - start)
        conn.arena.reserve(start, end - start)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM):
            _give_up(conn)  # before the figures of the error are read
            raise _file_system_full(conn, nbytes, end - start) from error
        raise
    conn.write(lambda tx: _end_growth(tx, start, end))
    conn.transits.pop(start, None)


def _end_growth(tx: WriteTransaction, start: int, end: int) -> None:
    if tx.drop_transit(start):
        extents.make_warm(tx, start, end)


# --- punching ---


def _punch_and_grow(conn: Connection, nbytes: int, align: int) -> bool:
    """Turn unsuitable warm ranges cold until a growth fits; False when there is nothing to be had so."""
    ranges = conn.write(lambda tx: _begin_punch(conn, tx, nbytes, align))
    if not ranges:
        return False
    for start, end in ranges:
        conn.arena.punch(start, end - start)
    grown = conn.write(lambda tx: _end_punch(conn, tx, ranges, nbytes, align))
    for start, _ in ranges:
        if grown is None or start != grown[0]:
            conn.transits.pop(start, None)
    if grown is not None:
        _back(conn, nbytes, *grown)
        return True
    return _grow(conn, nbytes, align)


def _begin_punch(conn: Connection, tx: WriteTransaction, nbytes: int, align: int) -> list[tuple[int, int]]:
    """Put the warm ranges that are to be punched into transit."""
    plan = _plan(conn, tx, nbytes, align, step_bytes=0)
    wanted = plan.lacking_bytes if plan is not None else conn.arena.arena_bytes
    punch = allocator.plan_punch(tx.warm.largest_first(), wanted, keep_end=plan.start if plan else None)
    if plan is not None and punch.freed_bytes < wanted:
        return []
    tx.warm.apply(punch.edit.removed, punch.edit.added)
    for start, end in punch.ranges:
        _begin_transit(conn, tx, start, end, PUNCHING)
    return list(punch.ranges)


def _end_punch(
    conn: Connection, tx: WriteTransaction, ranges: list[tuple[int, int]], nbytes: int, align: int
) -> tuple[int, int] | None:
    """The punched ranges become cold. The growth is planned first, so that it comes out as when they were
    chosen.
    """
    mine = [(start, end) for start, end in ranges if tx.has_transit(start)]
    freed = sum(end - start for start, end in mine)
    tx.counters.backed_bytes -= freed
    grown = _begin_growth(conn, tx, nbytes, align)
    tx.counters.backed_bytes += freed
    for start, end in mine:
        extents.make_cold(tx, start, end)
    return grown


# --- waiting, giving up ---


def _wait_for_room(conn: Connection, nbytes: int, deadline: float | None) -> None:
    now = time.monotonic()
    if deadline is not None and now >= deadline and not conn.write(_others_in_transit):
        raise store_full(conn, nbytes)
    limit = now + conn.busy_timeout_s if deadline is None or deadline <= now else deadline
    control = conn.control
    seen = control.bell(Control.ROOM_BELL)
    control.sleep(Control.ROOM_BELL, seen, min(_POLL_S, max(limit - now, 0.0)))


def _others_in_transit(tx: WriteTransaction) -> bool:
    """Whether somebody is changing the backing of a range at this moment: room may come of it at once."""
    return bool(tx.transits())


def _check_cgroup(conn: Connection, nbytes: int) -> None:
    """Refuse a growth that would get this process killed for its control group's memory limit."""
    headroom = cgroup.headroom_bytes()
    if headroom is not None and headroom < nbytes:
        error = store_full(conn, nbytes)
        error.message += f"; this process's control group has {headroom:,} bytes of memory left"
        error.hint = "raise the memory limit of the container, or free memory in it"
        raise error


def _file_system_full(conn: Connection, nbytes: int, growth: int) -> StoreFull:
    error = store_full(conn, nbytes)
    free = conn.arena.free_file_system_bytes()
    error.message += f"; the memory file system has {free:,} bytes free, {growth:,} were to be backed"
    error.hint = "something else fills the memory file system: free memory there, or delete objects"
    return error


def store_full(conn: Connection, nbytes: int) -> StoreFull:
    """The error for a request that found no room, with its numbers."""
    stats = reports.usage(conn)
    error = StoreFull(
        f"no room for {nbytes:,} bytes in {conn.path}: capacity {conn.capacity_bytes:,}, "
        f"free {stats.free_bytes:,}, pinned {stats.pinned_bytes:,}, held by readers {stats.leased_bytes:,}, "
        f"spillable 0, largest hole {stats.largest_hole_bytes:,}",
        hint="delete objects, release what is held, or use a store of larger capacity",
    )
    error.asked_bytes = nbytes
    error.capacity_bytes = conn.capacity_bytes
    error.free_bytes = stats.free_bytes
    error.pinned_bytes = stats.pinned_bytes
    error.leased_bytes = stats.leased_bytes
    error.largest_hole_bytes = stats.largest_hole_bytes
    return error
