"""Spilling: moving the bytes of sealed objects from memory to files, inside a create or when asked for.

What is spilled is an extent, with all objects that use it. From then on these list an extent of SPILL_FILE
instead, and its SpillRecord says where the bytes are: in memory, in a file, or both. So later moves change
one record, whoever shares the bytes. A finished file is kept when its bytes come back (sealed bytes do not
change): to spill them again is to give the memory up.

Steps, and what a process that dies behind each leaves:

1. *announce*, one commit: the objects list the spilled extent; the record names the file and its writer, who
   counts as one user of the extent, so that it stays however many of the objects are deleted meanwhile. The
   event "spilled" is recorded here. (Recovery of a dead writer removes the file and the name: the bytes are
   still in memory.)
2. *write* the file, outside of everything, with its checksum.
3. *drop*, under one hold of the writers' lock: a commit that takes the writer off the record and marks it as
   *dropping*; a barrier; the leases; a commit that frees the memory of what nobody holds, and unmarks the
   rest. Readers publish their lease before they look at the record, so either the lease is seen or they see
   the mark; then they wait for the lock, that is for the outcome. (A mark that was left is taken away by
   whoever sees it under the lock.)

A file that nobody needs any more is *doomed*: recorded in the commit that drops its record, and forgotten
when it has been removed. Since a storage that does not answer would let these records fill the catalog,
nothing is announced for it once there are many, unless it takes a file as a trial. Pins, and who is held, are
looked at again in step 3: nothing is unpinned or dropped because a spill has begun.
"""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from flightstore.abc.storage import SpillStorage, masked_url
from flightstore.catalog import keys
from flightstore.catalog.records import (
    ARENA_FILE,
    Extent,
    ObjectRecord,
    continuations,
    encode_record,
    folded,
)
from flightstore.catalog.scopes import SPILLED, SpillRecord, decode_spill
from flightstore.catalog.transaction import WriteTransaction, spilled_extent
from flightstore.errors import FlightStoreError, InvalidArgument, SpillFailed, StoreClosed
from flightstore.lifecycle import extents
from flightstore.lifecycle.choosing import Place, Policy, Unit, plan_spill
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.eviction import read_usage
from flightstore.lifecycle.storages import storage_for
from flightstore.memory import kernel

__all__ = [
    "file_name",
    "remove_all_files",
    "remove_doomed",
    "set_spill_url",
    "settle_spill",
    "spill",
    "spill_url",
    "storage_urls",
    "undo_left",
]

SETTING = "spill"
_BATCH = 512  # extents spilled before the memory of the first is freed
_TRIES = 3  # for each file
_MOST_DOOMED = 512  # so many files that a storage does not remove are taken for a storage that does nothing
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_replace = msgspec.structs.replace


def spill_url(conn: Connection) -> str | None:
    """URL of the storage that objects are spilled to; None while spilling is off."""
    raw = conn.catalog.get(keys.setting_key(SETTING))
    return raw.decode() if raw else None


def set_spill_url(conn: Connection, url: str | None) -> None:
    """Set it for all clients. What is spilled already stays where it is, and is found there.

    Raises:
        InvalidArgument: it would spill into the memory that is to be relieved.
    """
    storage = storage_for(url) if url else None
    if storage is not None and storage.same_file_system(conn.path):
        raise InvalidArgument(
            f"{masked_url(storage.url)} lies on the memory file system of the store",
            hint="name a directory on a disk",
        )
    normalised = storage.url if storage is not None else ""
    key = keys.setting_key(SETTING)
    conn.write(lambda tx: tx.txn.put(key, normalised.encode()) if normalised else tx.txn.delete(key))


def file_name(conn: Connection, number: int) -> str:
    """Name of the file of a spill record: the store's nonce keeps stores apart that share a storage."""
    return f"{conn.control.identity.nonce.hex()}-{number:016x}"


@dataclass(slots=True, eq=False, weakref_slot=True)
class _Move:
    """One extent on its way out of memory."""

    number: int
    """Of its spill record."""
    extent: Extent
    """Where it lies in the arena."""
    file: int
    """Number of its file."""
    users: list[tuple[int, bytes, int]]
    """(session, id, serial) of each object that uses it."""
    write: bool
    """Whether its file is yet to be written."""
    checksum: int = 0
    begun: bool = False
    """Whether the storage was asked to write it: there may be something to remove."""


def spill(
    conn: Connection,
    wanted_bytes: int | None,
    policy: Policy,
    *,
    session: int | None = None,
    only: Iterable[int] = (),
) -> int:
    """Move bytes of idle primaries to files until `wanted_bytes` (None: all) are free; returns the bytes that
    became free.

    Args:
        conn: The store.
        wanted_bytes: How much to free.
        policy: In which order.
        session: Only objects of this session; None for all.
        only: Serials of the objects to spill, with those that share their bytes; empty for all.

    Raises:
        SpillFailed: a file could not be written, and nothing became free. Nothing is lost.
        CatalogFull: it has no room for records of what is spilled.
    """
    url = spill_url(conn)
    if url is None:
        return 0
    storage = _storage_that_answers(conn, url)
    if conn.counters is not None and conn.counters.doomed:
        remove_doomed(conn)
    freed = 0
    failures: list[SpillFailed] = []  # a list, so that none refers to a frame that refers to it
    fits: Callable[[Place], bool] | None = None
    chosen = frozenset(only)
    while wanted_bytes is None or freed < wanted_bytes:
        left = None if wanted_bytes is None else wanted_bytes - freed
        units = plan_spill(read_usage(conn, session), left, policy, fits=fits)
        units = [unit for unit in units if not chosen or any(one.serial in chosen for one in unit.users)]
        if not units:
            break
        known = len(failures)
        done = _spill_all(conn, storage, units, failures)
        freed += done
        if len(failures) > known and _is_full(failures[-1]):
            fits = _fitting(conn, min(failures[-1].asked_bytes // 2, failures[-1].free_bytes))
        elif not done:
            break  # all of them were taken up meanwhile
    if failures and not freed:
        raise failures.pop()
    return freed


def _spill_all(
    conn: Connection, storage: SpillStorage, units: Sequence[Unit], failures: list[SpillFailed]
) -> int:
    """Spill planned units, some at a time, until one fails; returns the bytes that became free."""
    known, freed, at = len(failures), 0, 0
    while at < len(units) and len(failures) == known:
        some = units[at : at + conn.catalog.batch(_BATCH)]
        freed += _spill_units(conn, storage, some, failures)
        at += len(some)
    return freed


def _storage_that_answers(conn: Connection, url: str) -> SpillStorage:
    """The storage of that URL, tried first when it has let many files lie that were to be removed.

    Raises:
        SpillFailed: this process does not know its scheme, or it does not answer.
    """
    try:
        storage = storage_for(url)
    except FlightStoreError as error:
        raise _failure(url, "nothing can be spilled to", error, error.hint) from error
    if conn.counters is not None and conn.counters.doomed > _MOST_DOOMED:
        locations = [location for _, location in conn.catalog.items(keys.DOOMED)]
        if locations.count(url.encode()) > _MOST_DOOMED:
            name = f"{conn.control.identity.nonce.hex()}-trial-{conn.client:016x}"
            try:
                storage.write(name, [])
                storage.remove(name)
            except (OSError, FlightStoreError) as error:
                raise _failure(url, "nothing can be spilled to", error) from error
    return storage


def _fitting(conn: Connection, longest_bytes: int) -> Callable[[Place], bool]:
    """For a storage that is full: whether an extent is short enough, or has a file there already."""
    spills = conn.catalog.items(keys.SPILL)
    written = {int.from_bytes(key[1:], "big") for key, raw in spills if decode_spill(raw).location}
    return lambda place: place.length <= longest_bytes or place.spill in written


def _is_full(failure: SpillFailed) -> bool:
    return isinstance(failure.__cause__, OSError) and failure.__cause__.errno in _NO_ROOM


def _spill_units(
    conn: Connection, storage: SpillStorage, units: Sequence[Unit], failures: list[SpillFailed]
) -> int:
    """Spill these units; returns the bytes that became free. What goes wrong is added to `failures`."""
    stay = conn.leases.stay()  # what is announced lives as long as its client file
    moves: list[_Move] = []
    concluded: list[_Move] = []
    try:
        conn.write(lambda tx: _announce(conn, tx, storage.url, units, moves))
        written = _write_files(conn, storage, moves, failures)
        freed = conn.exclusive(lambda: _drop(conn, written))
        concluded = written
        return freed
    except StoreClosed:
        _remove_begun(conn, storage, moves)
        raise
    finally:
        _take_back(conn, [move for move in moves if move not in concluded])
        for move in concluded:
            conn.spilling.pop(move.file, None)
        del stay


def _write_files(
    conn: Connection, storage: SpillStorage, moves: Sequence[_Move], failures: list[SpillFailed]
) -> list[_Move]:
    """Write the files that are not there yet, until one fails; returns the moves whose files are there."""
    written: list[_Move] = []
    failed = False
    for move in moves:
        try:
            if move.write and not failed:
                move.checksum = _write_file(conn, storage, move)
            elif move.write:
                continue
            written.append(move)
        except (OSError, FlightStoreError) as error:
            failed = True
            failures.append(_failed(storage, move, error))
    return written


def _remove_begun(conn: Connection, storage: SpillStorage, moves: Sequence[_Move]) -> None:
    """Remove files that were written while the store was destroyed: whoever did that did not see them."""
    if conn.control.destroyed:
        for move in moves:
            with contextlib.suppress(OSError, FlightStoreError):
                if move.begun:
                    storage.remove(file_name(conn, move.file))


def _take_back(conn: Connection, moves: Sequence[_Move]) -> None:
    """Take back announcements: now or, after an interrupt, with the next write of this process."""
    if moves:
        conn.undo([_taking_back(conn, move) for move in moves])
        if conn.counters is not None and conn.counters.doomed:
            with contextlib.suppress(OSError, FlightStoreError):
                remove_doomed(conn)


def _failed(storage: SpillStorage, move: _Move, error: Exception) -> SpillFailed:
    free = None
    with contextlib.suppress(OSError, FlightStoreError):
        free = storage.free_bytes()
    failure = _failure(storage.url, f"{move.extent.length:,} bytes could not be spilled to", error)
    if free is not None:
        failure.message += f"; {free:,} bytes are free there"
        failure.args = (failure.message,)
    failure.asked_bytes = move.extent.length
    failure.free_bytes = free or 0
    failure.__cause__ = error.with_traceback(None)
    return failure


def _failure(url: str, what: str, error: Exception, hint: str = "") -> SpillFailed:
    failure = SpillFailed(
        f"{what} {masked_url(url)}: {error}",
        hint=hint or "make room there, or configure another spill storage",
    )
    failure.url = masked_url(url)
    return failure


# --- 1: announce ---


def _announce(
    conn: Connection, tx: WriteTransaction, location: str, units: Sequence[Unit], moves: list[_Move]
) -> None:
    moves.clear()
    if conn.catalog.is_nearly_full():
        raise conn.catalog_full()  # what is left is for deletes
    noted: set[int] = set()
    for unit in units:
        move = _announce_unit(conn, tx, location, unit, noted)
        if move is not None:
            moves.append(move)
            conn.spilling[move.file] = move


def _announce_unit(
    conn: Connection, tx: WriteTransaction, location: str, unit: Unit, noted: set[int]
) -> _Move | None:
    """Record that an extent is being spilled; None when it is not as it was planned."""
    users = [(one.session, bytes(one.candidate.id), one.serial) for one in unit.users]
    records = [_user_of(tx, unit, user) for user in users]
    if None in records:
        return None
    arena = Extent(ARENA_FILE, unit.place.offset, unit.place.length)
    number = unit.place.spill or _adopt(tx, arena, users)
    record = tx.spill(number) if number else None
    if record is None or record.offset != arena.offset or record.writer or record.dropping:
        return None  # it was moved meanwhile, or somebody else is at it
    spilled = spilled_extent(number, arena.length)
    use = tx.use_of(spilled)
    if use is None or use.users != len(users):
        return None
    write = not record.location
    if write:
        record = _replace(record, location=location, file=tx.next_spill(), writer=conn.client)
        tx.put_spill(number, record)
        tx.share_extent(spilled)
    for (session, object_id, serial), known in zip(users, records, strict=True):
        if serial not in noted and known is not None:
            noted.add(serial)
            tx.note(SPILLED, session, object_id, known)
    return _Move(number, arena, record.file, users, write, record.checksum)


def _user_of(tx: WriteTransaction, unit: Unit, user: tuple[int, bytes, int]) -> ObjectRecord | None:
    """The record of an object that is to be spilled: if it is there, uses the place and is not pinned."""
    session, object_id, serial = user
    record = tx.sealed(session, object_id)
    if record is None or record.serial != serial or record.pins:
        return None
    place = unit.place
    listed = (
        spilled_extent(place.spill, place.length) if place.spill else Extent(0, place.offset, place.length)
    )
    return record if listed in tx.unfold(record).extents else None


def _adopt(tx: WriteTransaction, arena: Extent, users: Sequence[tuple[int, bytes, int]]) -> int:
    """Give an extent of the arena its spill record, and let its users list that; 0 when it has others."""
    use = tx.use_of(arena)
    if use is None or use.spill or use.users != len(users):
        return 0
    number = tx.next_spill()
    spilled = tx.adopt_extent(arena, number)
    for session, object_id, _ in users:
        record = tx.sealed(session, object_id)
        assert record is not None
        whole = tx.unfold(record)
        listed = tuple(spilled if extent == arena else extent for extent in whole.extents)
        _rewrite(tx, session, object_id, _replace(whole, extents=listed))
    return number


def _rewrite(tx: WriteTransaction, session: int, object_id: bytes, record: ObjectRecord) -> None:
    """Write an unfolded record with other extents, and its continuations."""
    if folded(record) is not record:
        for key, value in continuations(record):
            tx.txn.put(key, value)
    tx.txn.put(keys.object_key(session, object_id), encode_record(folded(record)))


# --- 2: write ---


def _write_file(conn: Connection, storage: SpillStorage, move: _Move) -> int:
    """Write the file; returns the checksum of what was to be written."""
    view = conn.arena.readable(move.extent.offset, move.extent.length)
    move.begun = True
    for left in reversed(range(_TRIES)):
        try:
            storage.write(file_name(conn, move.file), [view])
            break
        except OSError as error:
            if not left or error.errno in _NO_ROOM:
                raise
    return zlib.crc32(view)


# --- 3: drop ---


def _drop(conn: Connection, moves: Sequence[_Move]) -> int:
    """Conclude what was written, and free what nobody holds. Requires the writers' lock."""
    marked = conn.transact(lambda tx: _mark(conn, tx, moves))
    if not marked:
        return 0
    kernel.membarrier()
    held = conn.clients.held()
    return conn.transact(lambda tx: _free(tx, marked, held))


def _mark(conn: Connection, tx: WriteTransaction, moves: Sequence[_Move]) -> list[_Move]:
    """Mark those that may be dropped: all their users are known, and none of them is pinned."""
    marked = []
    for move in moves:
        record = tx.spill(move.number)
        if record is None or (move.write and record.writer != conn.client):
            continue
        if move.write:
            tx.put_spill(move.number, _replace(record, writer=0, checksum=move.checksum))
            extents.give_back(tx, [spilled_extent(move.number, record.length)])  # the writer's use
        record = tx.spill(move.number)
        if record is not None and record.offset >= 0 and _all_known(tx, move):
            tx.put_spill(move.number, _replace(record, dropping=True))
            marked.append(move)
    return marked


def _all_known(tx: WriteTransaction, move: _Move) -> bool:
    """Whether those that the extent is known to be used by are all that use it, and may be spilled."""
    extent = spilled_extent(move.number, move.extent.length)
    users = 0
    for session, object_id, serial in move.users:
        record = tx.sealed(session, object_id)
        if record is not None and record.serial == serial:
            if record.pins:
                return False
            users += 1
    use = tx.use_of(extent)
    return use is not None and use.users == users


def _free(tx: WriteTransaction, marked: Sequence[_Move], held: set[int]) -> int:
    freed = 0
    for move in marked:
        record = tx.spill(move.number)
        if record is None:
            continue
        if held.isdisjoint(serial for _, _, serial in move.users):
            tx.put_spill(move.number, _replace(record, dropping=False, offset=-1))
            freed += extents.give_back(tx, [Extent(ARENA_FILE, record.offset, record.length)])
        else:
            tx.put_spill(move.number, _replace(record, dropping=False))
    return freed


def settle_spill(tx: WriteTransaction, number: int) -> SpillRecord | None:
    """A spill record without the mark of dropping. Requires the writers' lock: nobody is dropping then."""
    record = tx.spill(number)
    if record is not None and record.dropping:
        record = _replace(record, dropping=False)
        tx.put_spill(number, record)
    return record


# --- undoing ---


def _taking_back(conn: Connection, move: _Move) -> Callable[[WriteTransaction], object]:
    """What takes an announcement back, unless it was concluded or never committed.

    A number that an aborted transaction gave out may be another thread's by now: `conn.spilling` tells.
    """

    def undo(tx: WriteTransaction) -> None:
        if conn.spilling.get(move.file) is not move:
            return
        record = tx.spill(move.number)
        if move.write and record is not None and (record.file, record.writer) == (move.file, conn.client):
            undo_writing(tx, move.number, record, begun=move.begun)
        del conn.spilling[move.file]

    return undo


def undo_writing(tx: WriteTransaction, number: int, record: SpillRecord, *, begun: bool = True) -> None:
    """A file is not going to be finished: doom it if it was begun, and take its writer off the record."""
    if begun:
        tx.put_doomed(record.file, record.location)
    tx.put_spill(number, _replace(record, location="", file=0, writer=0))
    extents.give_back(tx, [spilled_extent(number, record.length)])


def undo_left(conn: Connection, tx: WriteTransaction, living: set[int], *, unmark: bool) -> int:
    """Put right what dead clients, and interrupted threads of this one, left behind; returns how much."""
    count = 0
    for key, raw in tx.records(keys.SPILL):
        number, record = int.from_bytes(key[1:], "big"), decode_spill(raw)
        if unmark and record.dropping:
            record = settle_spill(tx, number) or record
            count += 1
        mine = record.writer == conn.client and record.file not in conn.spilling
        if record.writer and (mine or record.writer not in living):
            undo_writing(tx, number, record)
            count += 1
    return count


# --- files that nobody needs ---


def remove_doomed(conn: Connection) -> int:
    """Remove doomed files; returns how many. What cannot be removed now stays recorded.

    A storage that fails a few times in a row is left alone: each of its answers may take long.
    """
    doomed = conn.catalog.items(keys.DOOMED)
    removed = []
    failures: Counter[bytes] = Counter()
    for key, location in doomed:
        file = int.from_bytes(key[1:], "big")
        if failures[location] >= _TRIES:
            continue
        try:
            _remove_file(storage_for(location.decode()), file_name(conn, file))
            removed.append(file)
            failures[location] = 0
        except (OSError, FlightStoreError):
            failures[location] += 1
    if removed:
        conn.write(lambda tx: _forget_doomed(tx, removed))
    return len(removed)


def _remove_file(storage: SpillStorage, name: str) -> None:
    """Remove a file; an error where its whole directory is missing, which may come back with the file."""
    path = storage.local_path(name)
    if path is not None:
        os.stat(os.path.dirname(path))
    storage.remove(name)


def _forget_doomed(tx: WriteTransaction, files: Sequence[int]) -> None:
    for file in files:
        tx.drop_doomed(file)


def storage_urls(conn: Connection) -> set[str]:
    """URLs of all storages that hold files of the store."""
    spills = [decode_spill(raw) for _, raw in conn.catalog.items(keys.SPILL)]
    urls = {record.location for record in spills if record.location}
    return urls | {location.decode() for _, location in conn.catalog.items(keys.DOOMED)}


def remove_all_files(nonce: bytes, urls: Iterable[str]) -> None:
    """Remove every file of a store that was destroyed, as far as its storages answer."""
    for url in urls:
        with contextlib.suppress(OSError, FlightStoreError):
            storage = storage_for(url)
            for name in storage.names(nonce.hex()):
                storage.remove(name)
