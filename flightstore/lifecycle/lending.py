"""Borrowed memory: extents that lie in somebody else's file, mapped where they are by whoever gets them.

A borrowed extent is one of SPILL_FILE whose record names a *lender* instead of a spill file: the file, where
the bytes begin there, and what tells that it is still the same file. So users are counted, shared and
reclaimed as of any extent, and the loan ends by itself when the last of them is gone. Nothing of it counts
as memory of the store, and none of it is evicted or spilled.

What is borrowed is as good as its owner. A get maps the file first and looks afterwards: that it is the file
that was lent, unchanged if that was agreed, and that one of its keepers lives, if it has any. If so, the
bytes were right when they were mapped; if not, it is ObjectLost, and nobody sees a byte. A keeper is a client
of the store: its lock tells that it lives, in whatever pid namespace (memory.leases).

`persist` copies the bytes into the store as restoring does: into a pending object whose extent is handed over
to the record in one commit, which makes the lender a former one. A death on the way is what recovery knows.
Gets find the copy from then on; the loan is over when those have let go who may read the lender's memory
(former_loans.py).
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Sequence
from functools import partial

import pyarrow as pa

from flightstore.catalog import keys
from flightstore.catalog.records import SPILL_FILE, ObjectRecord, unfolded
from flightstore.catalog.scopes import Lender, SpillRecord, decode_spill
from flightstore.errors import FlightStoreError, InvalidArgument, ObjectLost
from flightstore.lifecycle import restoring, sealing
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.sealing import NewObject
from flightstore.memory import allocator, kernel
from flightstore.memory.leases import Lease
from flightstore.objects.base import KIND_BLOB, Handle, Payload
from flightstore.types import Loan, LoanInfo, ObjectID

__all__ = ["borrowed_from", "check_of", "is_borrowed", "loans", "mapped", "persist"]

_COMPARED_BYTES = 4096


# --- lending ---


def borrowed_from(loan: Loan, offset: int, length: int, session: int) -> SpillRecord:
    """The record of a part of a loan.

    Raises:
        InvalidArgument: its file is not there, too short, or not what is mapped at its address.
    """
    if min(loan.offset, loan.length, offset, length) < 0 or offset + length > loan.length:
        raise InvalidArgument(
            f"{length:,} bytes from {offset:,} are no part of a loan of {loan.length:,} bytes"
        )
    try:
        status = os.stat(loan.path)
        lender = Lender(
            loan.path,
            loan.offset + offset,
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns if loan.checked else 0,
            tuple(loan.keepers),
        )
        pages = _Pages(lender, length)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"the memory of {loan.path!r} cannot be borrowed: {error}") from error
    compared = min(length, _COMPARED_BYTES)
    if ctypes.string_at(loan.address + offset, compared) != ctypes.string_at(pages.address, compared):
        raise InvalidArgument(
            f"what {loan.path!r} holds from {lender.offset:,} is not what is mapped at {loan.address:#x}",
            hint="give the offset in the file of the first byte at the address",
        )
    # As long as the extent of the arena that it may become; who reads it knows where its values end.
    return SpillRecord(kernel.round_up(length, allocator.UNIT), session=session, lender=lender)


def loans(conn: Connection) -> list[LoanInfo]:
    """All loans that are not over."""
    found = []
    for key, raw in conn.catalog.items(keys.SPILL):
        record = decode_spill(raw)
        lender = record.lender or record.former
        if lender is not None:
            number = int.from_bytes(key[1:], "big")
            found.append(LoanInfo(number, lender.path, lender.offset, record.length, lender.keepers))
    return found


# --- getting ---


class _Pages:
    """A part of a file, mapped read-only; `length` may go a little beyond the file's end."""

    def __init__(self, lender: Lender, length: int) -> None:
        descriptor = os.open(lender.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if not _is_same(lender, os.fstat(descriptor)):
                raise ValueError("the file has changed")
            start = lender.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
            skipped = lender.offset - start
            there = min(length, lender.size - lender.offset)
            self._map = mmap.mmap(descriptor, skipped + there, prot=mmap.PROT_READ, offset=start)
        finally:
            os.close(descriptor)
        self._buffer = pa.py_buffer(self._map)
        self.address: int = self._buffer.address + skipped


def _is_same(lender: Lender, status: os.stat_result) -> bool:
    unchanged = lender.mtime_ns in (0, status.st_mtime_ns)
    found = (status.st_dev, status.st_ino, status.st_size)
    return unchanged and found == (lender.device, lender.inode, lender.size)


def mapped(
    conn: Connection, object_id: ObjectID, number: int, record: SpillRecord, lease: Lease | None
) -> pa.Buffer:
    """The bytes of a borrowed extent, where they are; the buffer keeps the lease.

    Raises:
        ObjectLost: they are not what they were, or may not be.
        FlightStoreError: they are, and cannot be reached from this process.
    """
    lender = record.lender
    assert lender is not None
    pages = conn.borrowed.get(number)
    try:
        if pages is None:
            pages = conn.borrowed[number] = _Pages(lender, record.length)
        elif not _is_same(lender, os.stat(lender.path)):
            raise ValueError("the file has changed")
    except (OSError, ValueError) as error:
        # What a process had open, and has closed or left behind, nobody opens any more.
        closed = isinstance(error, FileNotFoundError) and lender.path.startswith("/proc/")
        if isinstance(error, OSError) and not closed and lender.keepers and _is_kept(conn, lender):
            raise FlightStoreError(
                f"the payload of {object_id} is borrowed from {lender.path}, which this process cannot open: "
                f"{error.strerror}",
                hint="obj.persist(), in a process that can, copies it into the store",
            ) from error
        raise _lost(object_id, lender, str(error)) from error
    if not _is_kept(conn, lender):
        raise _lost(object_id, lender, "those who kept it there have ended")
    return pa.foreign_buffer(pages.address, record.length, (pages, lease))


def check_of(conn: Connection, handle: Handle) -> Callable[[], None] | None:
    """What raises ObjectLost unless bytes that were read from a handle until then were the right ones; None
    if it maps nothing that is borrowed.

    For who hands bytes on: he copies some, checks, and hands the copy on. Memory that was persisted since is
    still its lender's to keep, because the handle is there.
    """
    mapped_at = {data.address for data in (handle.payload, *handle.others)}
    lenders = []
    for number, spill in _spills(conn, handle.record):
        pages = conn.borrowed.get(number)
        lender = spill.lender or spill.former
        if lender is not None and pages is not None and pages.address in mapped_at:
            lenders.append(lender)
    return partial(_check, conn, handle.id, lenders) if lenders else None


def _check(conn: Connection, object_id: ObjectID, lenders: Sequence[Lender]) -> None:
    for lender in lenders:
        if not _is_kept(conn, lender):
            raise _lost(object_id, lender, "those who kept it there have ended")
        if not lender.keepers:
            try:
                same = _is_same(lender, os.stat(lender.path))
            except OSError:
                same = False
            if not same:
                raise _lost(object_id, lender, "the file has changed")


def _is_kept(conn: Connection, lender: Lender) -> bool:
    return not lender.keepers or any(conn.clients.lives(client) for client in lender.keepers)


def _lost(object_id: ObjectID, lender: Lender, reason: str) -> ObjectLost:
    return ObjectLost(
        f"the payload of {object_id} was borrowed from {lender.path} and cannot be had any more: {reason}",
        hint="delete it and put it again; obj.persist() in time makes an object independent of its lender",
    )


# --- keeping ---


def _records(conn: Connection, record: ObjectRecord) -> list[tuple[int, SpillRecord]]:
    """(number, spill record) of the extents of an object that are borrowed at this moment."""
    return [(number, spill) for number, spill in _spills(conn, record) if spill.lender is not None]


def _spills(conn: Connection, record: ObjectRecord) -> list[tuple[int, SpillRecord]]:
    """(number, spill record) of the extents of an object that have one."""
    whole = unfolded(record, conn.catalog.get)
    numbers = [extent.offset for extent in whole.extents if extent.file == SPILL_FILE]
    found = [(number, conn.catalog.get(keys.spill_key(number))) for number in numbers]
    return [(number, decode_spill(raw)) for number, raw in found if raw is not None]


def is_borrowed(conn: Connection, record: ObjectRecord) -> bool:
    """Whether some of an object's bytes are borrowed. Requires a lease on it."""
    return bool(_records(conn, record))


def persist(conn: Connection, object_id: ObjectID, record: ObjectRecord, deadline: float | None) -> None:
    """Copy what an object borrows into the store, for all objects that share it. Requires a lease on it.

    Raises:
        StoreFull, CatalogFull, QuotaExceeded: there is no room; it is borrowed as before.
        ObjectLost: it is gone already.
    """
    for number, spill in _records(conn, record):
        _persist(conn, object_id, number, spill, deadline)


def _persist(
    conn: Connection, object_id: ObjectID, number: int, spill: SpillRecord, deadline: float | None
) -> None:
    assert spill.lender is not None
    there = min(spill.length, spill.lender.size - spill.lender.offset)
    source = mapped(conn, object_id, number, spill, None).slice(0, there)
    new = NewObject(spill.session, Payload(KIND_BLOB, b"", spill.length, ((0, source),)))
    stay = conn.leases.stay()  # what is pending lives as long as its client file
    try:
        extent = sealing.write_pending(conn, new, deadline, holding=False)
        mapped(conn, object_id, number, spill, None)  # it was right until it was copied
        conn.write(lambda tx: restoring.hand_over(tx, number, new, extent))
    except BaseException:
        sealing.give_up(conn, (new,))
        raise
    finally:
        del stay
