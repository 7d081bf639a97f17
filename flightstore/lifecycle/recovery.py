"""Recovery: reclaiming what dead clients left. Safe at any time, from any process, also twice at once.

What a process can leave behind when it is killed at any line, and what is done about it:

- a pending object: aborted;
- a range in transit (its backing being changed): punched, returned to the cold ranges;
- a mark of a conditional delete: taken away;
- leases: gone with its client file, which is removed **last**, so that a recovery that dies too is repeated;
- a slot in LMDB's table of readers: cleared;
- files half-made: removed;
- dying objects: swept, as always.

The writers' lock and LMDB's transaction need nothing: the lock passes on, the transaction never was.
"""

from __future__ import annotations

import contextlib
import os

from flightstore.catalog import keys
from flightstore.catalog.records import FLAG_PROBING, decode_record
from flightstore.catalog.transaction import WriteTransaction
from flightstore.lifecycle import extents, freeing, layout
from flightstore.lifecycle.connection import Connection
from flightstore.memory.clients import client_id
from flightstore.types import RecoverReport

__all__ = ["recover"]


def recover(conn: Connection) -> RecoverReport:
    """Reclaim what dead clients left and what deleted objects no longer need."""
    stale = conn.catalog.clear_stale_readers()
    dead = conn.clients.dead()
    aborted, unmarked, ranges = conn.write(lambda tx: _disown(conn, tx, set(dead)))
    _return_ranges(conn, ranges)
    conn.exclusive(lambda: _remove_clients(conn, dead))
    objects, freed = freeing.sweep(conn)
    removed = conn.clients.remove_unfinished()
    _restore_reserve(conn)
    return RecoverReport(
        dead_clients=len(dead),
        aborted_objects=aborted,
        freed_objects=objects,
        freed_bytes=freed,
        repaired_ranges=len(ranges) + unmarked,
        stale_readers=stale,
        removed_files=removed,
    )


def _disown(conn: Connection, tx: WriteTransaction, dead: set[str]) -> tuple[int, int, list[tuple[int, int]]]:
    """Abort pending objects of dead clients, unmark, and say which ranges are to be repaired."""
    living = {client_id(name) for name in conn.clients.names() if name not in dead}
    aborted = 0
    for key, raw in tx.records(keys.PENDING):
        if decode_record(raw).client not in living:
            session, object_id = int.from_bytes(key[1:5], "big"), key[5:]
            aborted += tx.abort_pending(session, object_id)
    ranges = [(start, end) for start, end, _, client in tx.transits() if client not in living]
    return aborted, _unmark_all(tx), ranges


def _unmark_all(tx: WriteTransaction) -> int:
    """Whoever marked an object holds the writers' lock while it probes: what we find is left over."""
    count = 0
    for key, raw in tx.records(keys.OBJECT):
        record = decode_record(raw)
        if record.flags & FLAG_PROBING:
            freeing.unmark(tx, int.from_bytes(key[1:5], "big"), key[5:], record)
            count += 1
    return count


def _return_ranges(conn: Connection, ranges: list[tuple[int, int]]) -> None:
    """Punch what dead clients had in transit, and return it to the cold ranges."""

    def both_steps() -> None:
        # Under the lock: two recoveries at once must not punch a range that the other has returned and a
        # third one uses.
        still = conn.transact(lambda tx: [one for one in ranges if tx.has_transit(one[0])])
        for start, end in still:
            conn.arena.punch(start, end - start)
        conn.transact(lambda tx: _make_cold(tx, still))

    if ranges:
        conn.exclusive(both_steps)


def _make_cold(tx: WriteTransaction, ranges: list[tuple[int, int]]) -> None:
    for start, end in ranges:
        extents.make_cold(tx, start, end)


def _remove_clients(conn: Connection, dead: list[str]) -> None:
    for name in dead:
        conn.clients.remove(name)


def _restore_reserve(conn: Connection) -> None:
    """Make the reserve again, once the file system has room for it."""
    if not os.path.exists(os.path.join(conn.path, layout.RESERVE_FILE)):
        with contextlib.suppress(OSError):
            layout.reserve_file(conn.path, conn.mode)
