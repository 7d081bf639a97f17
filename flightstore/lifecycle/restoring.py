"""Bringing spilled bytes back to those who get them.

A get makes no room: it neither evicts nor spills. So the bytes come back into the arena when they fit into
what is free. Else a file of a local storage is mapped where it is; one of another storage is read into
private memory. In each case the checksum is compared before anybody sees a byte; a file that is missing or
damaged is ObjectLost; a storage that does not answer, whose directory is missing, or whose scheme is not
known here is SpillFailed: there is nothing lost, and one may try again.

Requires a lease on an object that lists the extent, published before: then its spill record stays, and bytes
that are in memory stay there (lifecycle.spilling).

The destination is an ordinary pending object until the commit that hands its extent over to the spill record,
so a death on the way is what recovery knows. When two restore the same bytes, the first one wins.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import zlib
from io import FileIO

import msgspec
import pyarrow as pa

from flightstore.abc.storage import SpillStorage, masked_url
from flightstore.catalog import keys
from flightstore.catalog.records import Extent
from flightstore.catalog.scopes import SpillRecord, decode_session, decode_spill
from flightstore.catalog.transaction import WriteTransaction
from flightstore.errors import CatalogFull, FlightStoreError, ObjectLost, SpillDamaged, SpillFailed
from flightstore.lifecycle import extents, room, sealing, spilling
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.sealing import NewObject
from flightstore.lifecycle.storages import storage_for
from flightstore.memory.leases import Lease
from flightstore.objects.base import KIND_BLOB, Payload
from flightstore.types import ObjectID

__all__ = ["buffer_of", "hand_over"]

_TRIES = 3


def buffer_of(conn: Connection, object_id: ObjectID, extent: Extent, lease: Lease) -> pa.Buffer:
    """The bytes of an extent of SPILL_FILE, read-only; the buffer keeps the lease.

    Raises:
        ObjectLost: its file is missing or damaged; or it was borrowed, and its lender is gone.
        SpillFailed: the storage does not give it now.
    """
    number = extent.offset
    record = _settled(conn, number)
    if record.lender is not None:
        from flightstore.lifecycle import lending  # calls this module

        return lending.mapped(conn, object_id, number, record, lease)
    if record.offset < 0:
        with contextlib.suppress(CatalogFull):  # what is not recorded can be read from where it is
            record = _restored(conn, object_id, number, record)
    if record.offset >= 0:
        return pa.foreign_buffer(conn.arena.address + record.offset, record.length, lease)
    return _outside(conn, object_id, record, lease)


def _settled(conn: Connection, number: int) -> SpillRecord:
    """The spill record, after the outcome if somebody is giving its memory up at this moment."""
    raw = conn.catalog.get(keys.spill_key(number))
    record = decode_spill(raw) if raw is not None else None
    if record is not None and record.dropping:
        record = conn.write(lambda tx: spilling.settle_spill(tx, number))
    if record is None:
        raise FlightStoreError(f"{conn.path} lists a spilled extent {number} that is recorded nowhere")
    return record


# --- into the arena ---


def _restored(conn: Connection, object_id: ObjectID, number: int, record: SpillRecord) -> SpillRecord:
    """Bring the bytes into the arena if they fit; returns the record as it is afterwards."""
    stay = conn.leases.stay()
    new = NewObject(record.session, Payload(KIND_BLOB, b"", record.length, ()))
    try:
        extent = _destination(conn, new)
        if extent is None:
            return record
        whole = range(extent.offset, extent.offset + extent.length)
        conn.arena.populate(extent.offset, extent.length, whole)
        _read_checked(conn, object_id, record, conn.arena.writable(extent.offset, record.length))
        return conn.write(lambda tx: hand_over(tx, number, new, extent))
    except BaseException:
        sealing.give_up(conn, (new,))
        raise
    finally:
        del stay


def _destination(conn: Connection, new: NewObject) -> Extent | None:
    """A pending object of free memory; None when there is not enough, or its session may not have it."""
    extent = conn.write(lambda tx: _take(conn, tx, new))
    if extent is None and room.grow(conn, new.payload.size_bytes):
        extent = conn.write(lambda tx: _take(conn, tx, new))
    return extent


def _take(conn: Connection, tx: WriteTransaction, new: NewObject) -> Extent | None:
    nbytes = new.payload.size_bytes
    if new.session:
        raw = tx.txn.get(keys.session_key(new.session))
        quota = decode_session(raw).quota_bytes if raw is not None else 0
        if quota and tx.used_by_session(new.session) + nbytes > quota:
            return None
    extent = extents.take(tx, nbytes, session=new.session)
    if extent is not None:
        new.serial = tx.next_serial()
        tx.add_pending(new.session, new.id, new.record(conn, new.serial, extent))
    return extent


def hand_over(tx: WriteTransaction, number: int, new: NewObject, extent: Extent) -> SpillRecord:
    """The pending object's extent becomes the spill record's, unless somebody was faster."""
    record = spilling.settle_spill(tx, number)
    assert record is not None, "a leased extent keeps its record"
    pending = tx.pending(new.session, new.id)
    if record.offset >= 0 or pending is None:
        tx.abort_pending(new.session, new.id, new.serial)
        return record
    tx.drop_pending(new.session, new.id)
    former = record.lender or record.former
    return tx.keep_in_arena(
        number, msgspec.structs.replace(record, lender=None, former=former), extent.offset
    )


# --- where they are ---


def _outside(conn: Connection, object_id: ObjectID, record: SpillRecord, lease: Lease) -> pa.Buffer:
    """The bytes outside of the arena: the file itself, mapped, or a private copy."""
    path = _storage_of(object_id, record).local_path(spilling.file_name(conn, record.file))
    if path is None:
        buffer = pa.allocate_buffer(record.length)
        _read_checked(conn, object_id, record, memoryview(buffer).cast("B"))
        return pa.foreign_buffer(buffer.address, record.length, (buffer, lease))
    pages = _mapped_file(conn, object_id, record, path)
    return pa.foreign_buffer(pages.address, record.length, (pages, lease))


def _mapped_file(conn: Connection, object_id: ObjectID, record: SpillRecord, path: str) -> pa.Buffer:
    """A local file, mapped read-only. Its checksum is compared when this process meets it first, and again
    when the file looks changed.
    """
    try:
        file = FileIO(path)
    except OSError as error:
        raise _not_opened(object_id, record, path, error) from error
    try:
        with file:
            status = os.fstat(file.fileno())
            if status.st_size != record.length:
                raise _lost(object_id, record, f"its file has {status.st_size:,} bytes")
            pages = pa.py_buffer(mmap.mmap(file.fileno(), record.length, prot=mmap.PROT_READ))
    except OSError as error:
        raise _unreadable(object_id, record, error) from error
    seen = (status.st_ino, status.st_mtime_ns)
    if conn.verified_spills.get(record.file) != seen:
        if zlib.crc32(pages) != record.checksum:
            raise _lost(object_id, record, "its checksum is wrong")
        conn.verified_spills[record.file] = seen
    return pages


def _read_checked(conn: Connection, object_id: ObjectID, record: SpillRecord, target: memoryview) -> None:
    """Read the file into memory and compare the checksum."""
    _read(conn, object_id, record, target)
    if zlib.crc32(target) != record.checksum:
        raise _lost(object_id, record, "its checksum is wrong")


def _read(conn: Connection, object_id: ObjectID, record: SpillRecord, target: memoryview) -> None:
    storage, name = _storage_of(object_id, record), spilling.file_name(conn, record.file)
    for left in reversed(range(_TRIES)):
        try:
            storage.read_into(name, target)
            return
        except SpillDamaged as error:
            raise _lost(object_id, record, error) from error
        except FileNotFoundError as error:
            raise _not_opened(object_id, record, storage.local_path(name), error) from error
        except OSError as error:
            if not left:
                raise _unreadable(object_id, record, error) from error


def _storage_of(object_id: ObjectID, record: SpillRecord) -> SpillStorage:
    try:
        return storage_for(record.location)
    except FlightStoreError as error:  # its scheme is known where it was spilled, and not here
        raise _unreadable(object_id, record, error, error.hint) from error


def _not_opened(
    object_id: ObjectID, record: SpillRecord, path: str | None, error: OSError
) -> ObjectLost | SpillFailed:
    """A file that is missing is lost, but not one whose whole directory is: that may come back."""
    there = path is None or os.path.isdir(os.path.dirname(path))
    if isinstance(error, FileNotFoundError) and there:
        return _lost(object_id, record, error)
    return _unreadable(object_id, record, error)


def _lost(object_id: ObjectID, record: SpillRecord, reason: object) -> ObjectLost:
    where = masked_url(record.location)
    return ObjectLost(
        f"the payload of {object_id} was spilled to {where} and cannot be had any more: {reason}",
        hint="delete it and put it again; what removed or changed its file may have touched others too",
    )


def _unreadable(
    object_id: ObjectID, record: SpillRecord, error: Exception, hint: str | None = None
) -> SpillFailed:
    failure = SpillFailed(
        f"the payload of {object_id} could not be read from {masked_url(record.location)}: {error}",
        hint=hint or "it is not lost: try again once the storage answers",
    )
    failure.url = masked_url(record.location)
    failure.asked_bytes = record.length
    return failure
