"""Recovery: reclaiming what dead clients left. Safe at any time, from any process, also twice at once.

What a process can leave behind when it is killed at any line, and what is done about it:

- a pending object: aborted;
- a range in transit (its backing being changed): punched, returned to the cold ranges;
- a mark of a conditional delete: taken away;
- a place in the queue of waiting creates: removed;
- leases: gone with its client file, which is removed **last**, so that a recovery that dies too is repeated;
- a slot in LMDB's table of readers: cleared;
- files half-made: removed;
- an ephemeral session that it owned: ended, and reclaimed like all that have ended;
- dying objects: swept, as always.

The writers' lock and LMDB's transaction need nothing: the lock passes on, the transaction never was.
"""

from __future__ import annotations

from flightstore.catalog import keys
from flightstore.catalog.records import FLAG_PROBING, decode_record
from flightstore.catalog.transaction import WriteTransaction
from flightstore.lifecycle import extents, freeing, layout, queue, sessions, spilling
from flightstore.lifecycle.connection import Connection
from flightstore.memory.clients import client_id
from flightstore.types import RecoverReport

__all__ = ["recover"]


def recover(conn: Connection, *, thorough: bool = True) -> RecoverReport:
    """Reclaim what dead clients left and what deleted objects no longer need.

    Args:
        conn: The store.
        thorough: Look at every object, also when no client has died. Who waits for room does this many times
            a second, and need not.
    """
    stale = conn.catalog.clear_stale_readers()
    dead = conn.clients.dead()
    unmark = thorough or bool(dead)
    aborted, unmarked, ranges = conn.write(lambda tx: _disown(conn, tx, set(dead), unmark))
    ended = sessions.end_orphans(conn)
    _return_ranges(conn, ranges)
    conn.exclusive(lambda: _remove_clients(conn, dead))
    objects, freed = freeing.sweep(conn)
    removed = conn.clients.remove_unfinished() + spilling.remove_doomed(conn)
    _restore_reserve(conn)
    return RecoverReport(
        dead_clients=len(dead),
        aborted_objects=aborted,
        freed_objects=objects,
        freed_bytes=freed,
        repaired_ranges=len(ranges) + unmarked,
        stale_readers=stale,
        removed_files=removed,
        ended_sessions=ended,
    )


_Transit = tuple[int, int, int, int]  # start, end, kind, client


def _disown(
    conn: Connection, tx: WriteTransaction, dead: set[str], unmark: bool
) -> tuple[int, int, list[_Transit]]:
    """Abort pending objects of dead clients, unmark, and say which ranges are to be repaired."""
    living = {client_id(name) for name in conn.clients.names() if name not in dead}
    aborted = 0
    for key, raw in tx.records(keys.PENDING):
        if decode_record(raw).client not in living:
            session, object_id = int.from_bytes(key[1:5], "big"), key[5:]
            aborted += tx.abort_pending(session, object_id)
    queue.drop_waiters(tx, living)
    ranges = [transit for transit in tx.transits() if _is_left_over(conn, transit, living)]
    repaired = spilling.undo_left(conn, tx, living, unmark=unmark)
    return aborted, (_unmark_all(tx) if unmark else 0) + repaired, ranges


def _is_left_over(conn: Connection, transit: _Transit, living: set[int]) -> bool:
    """Whether nobody is moving the range any more: its client is dead, or it is ours and was interrupted."""
    start, _, _, client = transit
    if client == conn.client:
        return start not in conn.moving
    return client not in living


def _unmark_all(tx: WriteTransaction) -> int:
    """Whoever marked an object holds the writers' lock while it probes: what we find is left over."""
    count = 0
    for key, raw in tx.records(keys.OBJECT):
        record = decode_record(raw)
        if record.flags & FLAG_PROBING:
            freeing.unmark(tx, int.from_bytes(key[1:5], "big"), key[5:], record)
            count += 1
    return count


def _return_ranges(conn: Connection, ranges: list[_Transit]) -> None:
    """Punch what dead clients had in transit, and return it to the cold ranges."""

    def both_steps() -> None:
        # Under the lock: two recoveries at once must not punch a range that the other has returned and a
        # third one uses. The whole record is compared: a living client may be growing from the same address.
        still = conn.transact(lambda tx: [one for one in tx.transits() if one in ranges])
        for start, end, _, _ in still:
            conn.arena.punch(start, end - start)
        conn.transact(lambda tx: _make_cold(tx, still))

    if ranges:
        conn.exclusive(both_steps)


def _make_cold(tx: WriteTransaction, ranges: list[_Transit]) -> None:
    for start, end, _, _ in ranges:
        extents.make_cold(tx, start, end)


def _remove_clients(conn: Connection, dead: list[str]) -> None:
    for name in dead:
        conn.clients.remove(name)


def _restore_reserve(conn: Connection) -> None:
    """Make the reserve again, once the file system has room for it."""
    layout.restore_reserve(conn.path, conn.mode)
