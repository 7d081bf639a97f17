"""Loans of memory that was copied into the store since, and that somebody may still read where it was.

Persisting replaces the lender in a spill record by a copy, for all gets that follow. Who got an object before
has the lender's memory mapped, and its views must not change: so the record goes on naming the *former*
lender, the store goes on listing the loan, and whoever lent the memory keeps it. It is over at a moment when
nobody holds any object that uses the extent.

Which of an object's leases are from before cannot be told, so those from afterwards count, too. That is as
exact as deletion is: there, nobody comes after.
"""

from __future__ import annotations

import msgspec

from flightstore.catalog import keys
from flightstore.catalog.records import SPILL_FILE, decode_record
from flightstore.catalog.scopes import decode_spill
from flightstore.catalog.transaction import WriteTransaction, decode_counters
from flightstore.lifecycle.connection import Connection
from flightstore.memory import kernel

__all__ = ["end"]


def end(conn: Connection) -> None:
    """Forget the former lenders whose memory nobody can be reading any more."""
    raw = conn.catalog.get(keys.COUNTERS)
    if raw is not None and decode_counters(raw).former_loans:
        conn.exclusive(lambda: _end(conn))


def _end(conn: Connection) -> None:
    # Who read a record before its lender became a former one had published a lease by then: it is seen now.
    kernel.membarrier()
    conn.transact(lambda tx: _forget(tx, conn.clients.held()))


def _forget(tx: WriteTransaction, held: set[int]) -> None:
    used: set[int] = set()
    for letter in (keys.OBJECT, keys.DYING):
        for record in (decode_record(raw) for _, raw in tx.records(letter)):
            if record.serial in held:
                extents = tx.unfold(record).extents
                used.update(extent.offset for extent in extents if extent.file == SPILL_FILE)
    for key, raw in list(tx.records(keys.SPILL)):
        number, spill = int.from_bytes(key[1:], "big"), decode_spill(raw)
        if spill.former is not None and number not in used:
            tx.put_spill(number, msgspec.structs.replace(spill, former=None))
