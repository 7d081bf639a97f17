"""fsck: checks every invariant of the format against what is there. Changes nothing.

All catalog records are read in one transaction, so that a store in use can be checked. What only makes sense
when nobody works on the store (left-overs of dead clients, the memory behind the arena) is told apart by
`recoverable`: `recover()` puts it right, and it is no damage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flightstore.catalog import keys
from flightstore.catalog.environment import scan
from flightstore.catalog.records import (
    ARENA_FILE,
    FLAG_LEFT,
    FLAG_PROBING,
    SPILL_FILE,
    Extent,
    ObjectRecord,
    continuations,
    decode_record,
    unfolded,
)
from flightstore.catalog.scopes import (
    ACTIVE,
    ENDED,
    BatchRecord,
    SessionRecord,
    SpillRecord,
    WaiterRecord,
    decode_batch,
    decode_session,
    decode_spill,
    decode_waiter,
)
from flightstore.catalog.space import FreeSpace
from flightstore.catalog.transaction import (
    Counters,
    ExtentUse,
    decode_counters,
    extent_of,
    spilled_extent,
    transit_of,
)
from flightstore.lifecycle.connection import Connection
from flightstore.lifecycle.scopes import owners_live
from flightstore.memory.allocator import size_class
from flightstore.memory.rangemap import tiling_problems

__all__ = ["Finding", "fsck"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    check: str
    """Which check found it."""
    message: str
    """What is wrong, with ids and numbers."""
    recoverable: bool = False
    """Whether it is a left-over that `recover()` puts right, not damage."""


@dataclass(slots=True)
class _Picture:
    """Everything the catalog says, as of one moment."""

    counters: Counters
    sealed: list[tuple[bytes, ObjectRecord]] = field(default_factory=list)
    pending: list[tuple[bytes, ObjectRecord]] = field(default_factory=list)
    dying: list[tuple[bytes, ObjectRecord]] = field(default_factory=list)
    continuations: list[bytes] = field(default_factory=list)
    names: dict[bytes, bytes] = field(default_factory=dict)
    extents: list[tuple[Extent, ExtentUse]] = field(default_factory=list)
    spills: dict[int, SpillRecord] = field(default_factory=dict)
    quotas: dict[int, int] = field(default_factory=dict)
    sessions: dict[int, SessionRecord] = field(default_factory=dict)
    session_names: dict[bytes, bytes] = field(default_factory=dict)
    batched: set[bytes] = field(default_factory=set)
    batches: dict[int, BatchRecord] = field(default_factory=dict)
    events: list[int] = field(default_factory=list)
    waiters: dict[int, WaiterRecord] = field(default_factory=dict)
    doomed: int = 0
    transits: list[tuple[int, int, int, int]] = field(default_factory=list)
    free: dict[bytes, list[tuple[int, int]]] = field(default_factory=dict)
    index: dict[bytes, list[tuple[int, int]]] = field(default_factory=dict)

    @property
    def records(self) -> Iterator[ObjectRecord]:
        for group in (self.sealed, self.pending, self.dying):
            yield from (record for _, record in group)


def fsck(conn: Connection) -> list[Finding]:
    """Everything that is wrong with the store; empty when all is well."""
    picture = _read(conn)
    return [
        *_check_tiling(conn, picture),
        *_check_index(picture),
        *_check_extents(picture),
        *_check_counters(picture),
        *_check_names(picture),
        *_check_quotas(picture),
        *_check_sessions(picture),
        *_check_batched(picture),
        *_check_batches(conn, picture),
        *_check_events(picture),
        *_check_objects(picture),
        *_check_members(picture),
        *_check_clients(conn, picture),
        *_check_memory(conn, picture),
    ]


def _read(conn: Connection) -> _Picture:
    catalog = conn.catalog
    with catalog.gate:
        txn = catalog.begin()
        try:
            return _read_all(txn)
        finally:
            txn.abort()


def _read_all(txn: Any) -> _Picture:
    picture = _Picture(decode_counters(txn.get(keys.COUNTERS)))
    groups = ((keys.OBJECT, picture.sealed), (keys.PENDING, picture.pending), (keys.DYING, picture.dying))
    for letter, group in groups:
        group.extend((key, unfolded(decode_record(raw), txn.get)) for key, raw in scan(txn, letter))
    picture.continuations = [key for key, _ in scan(txn, keys.CONTINUATION)]
    picture.names = dict(scan(txn, keys.NAME))
    picture.extents = [extent_of(key, raw) for key, raw in scan(txn, keys.EXTENT)]
    picture.spills = {int.from_bytes(key[1:], "big"): decode_spill(raw) for key, raw in scan(txn, keys.SPILL)}
    picture.quotas = {
        int.from_bytes(key[1:], "big"): int.from_bytes(raw, "big") for key, raw in scan(txn, keys.QUOTA)
    }
    picture.sessions = {
        int.from_bytes(key[1:], "big"): decode_session(raw) for key, raw in scan(txn, keys.SESSION)
    }
    picture.session_names = dict(scan(txn, keys.SESSION_NAME))
    picture.batched = {key for key, _ in scan(txn, keys.BATCHED)}
    picture.batches = {
        int.from_bytes(key[1:], "big"): decode_batch(raw) for key, raw in scan(txn, keys.BATCH)
    }
    picture.events = [int.from_bytes(key[1:], "big") for key, _ in scan(txn, keys.EVENT)]
    picture.waiters = {
        int.from_bytes(key[1:], "big"): decode_waiter(raw) for key, raw in scan(txn, keys.WAITER)
    }
    picture.doomed = sum(1 for _ in scan(txn, keys.DOOMED))
    picture.transits = [transit_of(key, raw) for key, raw in scan(txn, keys.TRANSIT)]
    for letter in (keys.WARM, keys.COLD):
        space = FreeSpace(txn, letter, size_class)
        picture.free[letter] = list(space.ranges())
        picture.index[letter] = list(space.index_entries())
    return picture


def _check_tiling(conn: Connection, picture: _Picture) -> Iterator[Finding]:
    arena = [extent for extent, _ in picture.extents if extent.file == ARENA_FILE]
    problems = tiling_problems(
        conn.arena.arena_bytes,
        extents=[(extent.offset, extent.offset + extent.length) for extent in arena],
        warm=picture.free[keys.WARM],
        cold=picture.free[keys.COLD],
        transit=[(start, end) for start, end, _, _ in picture.transits],
    )
    for problem in problems:
        yield Finding("tiling", problem)


def _check_index(picture: _Picture) -> Iterator[Finding]:
    for letter in (keys.WARM, keys.COLD):
        expected = sorted((size_class(end - start), end) for start, end in picture.free[letter])
        if expected != picture.index[letter]:
            yield Finding("index", f"the size index of space {letter!r} does not match its ranges")


def _check_extents(picture: _Picture) -> Iterator[Finding]:
    """Reference counts equal references; every extent of a record exists; none is without an object."""
    references: Counter[Extent] = Counter()
    for record in picture.records:
        references.update(Extent(*extent) for extent in record.extents)
    for number, spill in picture.spills.items():
        references[spilled_extent(number, spill.length)] += bool(spill.writer)
        if spill.offset >= 0:
            references[Extent(ARENA_FILE, spill.offset, spill.length)] += 1
    for extent, use in picture.extents:
        if references[extent] != use.users:
            yield Finding("extents", f"{extent} counts {use.users} users, {references[extent]} list it")
        yield from _check_spill(picture, extent, use)
    for extent in references.keys() - {extent for extent, _ in picture.extents}:
        yield Finding("extents", f"{extent} is used by an object and recorded nowhere")


def _check_spill(picture: _Picture, extent: Extent, use: ExtentUse) -> Iterator[Finding]:
    """An extent and its spill record tell of each other, and the bytes are somewhere."""
    if extent.file == SPILL_FILE:
        spill = picture.spills.get(extent.offset)
        if spill is None:
            yield Finding("spills", f"{extent} has no spill record")
        elif spill.only_spilled and (not spill.location or spill.writer):
            yield Finding("spills", f"{extent} is neither in memory nor in a finished file")
    elif use.spill:
        spill = picture.spills.get(use.spill)
        if spill is None or spill.offset != extent.offset:
            yield Finding("spills", f"{extent} belongs to the spill record {use.spill}, which says otherwise")


def _check_quotas(picture: _Picture) -> Iterator[Finding]:
    """Each session is charged for the extents that it allocated."""
    charged: Counter[int] = Counter()
    for extent, use in picture.extents:
        if use.session:
            charged[use.session] += extent.length
    for session in charged.keys() | picture.quotas.keys():
        if charged[session] != picture.quotas.get(session, 0):
            yield Finding(
                "quotas",
                f"session {session} is charged {picture.quotas.get(session, 0):,} bytes, "
                f"its extents are {charged[session]:,}",
            )


def _check_sessions(picture: _Picture) -> Iterator[Finding]:
    """Every sealed object is in a session that there is; a session's name leads to one that bears it."""
    for key, _ in picture.sealed:
        session = int.from_bytes(key[1:5], "big")
        if session and session not in picture.sessions:
            yield Finding("sessions", f"{key[5:].hex()} is in session {session}, which there is not")
    for number in picture.sessions:
        if number >= picture.counters.next_session:
            yield Finding("sessions", f"the number {number} was not given out yet")
    for key, raw in picture.session_names.items():
        record = picture.sessions.get(int.from_bytes(raw, "big"))
        if record is None or not record.name or keys.session_name_key(record.name) != key:
            yield Finding("sessions", f"the name {key[1:]!r} leads to a session that does not bear it")


def _check_batched(picture: _Picture) -> Iterator[Finding]:
    """Objects and the index of their batches agree."""
    expected = {
        keys.batched_key(batch, int.from_bytes(key[1:5], "big"), key[5:])
        for key, record in picture.sealed
        for batch in record.batches
    }
    for key in expected ^ picture.batched:
        yield Finding("batches", f"object and batch do not both know of {keys.batched_of(key)}")
    for key, record in picture.sealed:
        if record.batch and record.batch not in record.batches:
            yield Finding(
                "batches", f"{key[5:].hex()} goes with batch {record.batch}, which does not list it"
            )


def _check_batches(conn: Connection, picture: _Picture) -> Iterator[Finding]:
    """What lists objects is a batch; batches have numbers that were given out, and somebody to end them."""
    for number in {keys.batched_of(key)[0] for key in picture.batched} - picture.batches.keys():
        yield Finding("batches", f"batch {number} lists objects and has no record")
    for number, batch in picture.batches.items():
        if number >= picture.counters.next_batch:
            yield Finding("batches", f"the batch number {number} was not given out yet")
        if batch.state == ACTIVE and not owners_live(conn, batch.owners):
            yield Finding("batches", f"nobody is left whom batch {number} belongs to", recoverable=True)


def _check_events(picture: _Picture) -> Iterator[Finding]:
    """The log has no gaps."""
    counters = picture.counters
    if picture.events != list(range(counters.first_event, counters.next_event)):
        yield Finding("events", f"{counters.first_event} to {counters.next_event - 1} are not all in the log")


def _check_counters(picture: _Picture) -> Iterator[Finding]:
    counters = picture.counters
    only_spilled = [spill.length for spill in picture.spills.values() if spill.only_spilled]
    used = sum(extent.length for extent, _ in picture.extents if extent.file == ARENA_FILE)
    warm = sum(end - start for start, end in picture.free[keys.WARM])
    transit = sum(end - start for start, end, _, _ in picture.transits)
    facts = {
        "used_bytes": used,
        "backed_bytes": used + warm + transit,
        "objects": len(picture.sealed),
        "pending": len(picture.pending),
        "dying": len(picture.dying),
        "spilled_bytes": sum(only_spilled),
        "doomed": picture.doomed,
        "former_loans": sum(spill.former is not None for spill in picture.spills.values()),
        "waiting": len(picture.waiters),
        "ended": sum(session.state == ENDED for session in picture.sessions.values())
        + sum(batch.state == ENDED for batch in picture.batches.values()),
        "dying_bytes": sum(extent.length for _, record in picture.dying for extent in record.extents),
    }
    for name, fact in facts.items():
        said = getattr(counters, name)
        if said != fact:
            yield Finding("counters", f"the counter {name} says {said:,}, the records say {fact:,}")


def _check_names(picture: _Picture) -> Iterator[Finding]:
    """Every name leads to a sealed object that bears it, and the other way round."""
    expected = {}
    for key, record in picture.sealed:
        session = int.from_bytes(key[1:5], "big")
        for name in record.names:
            expected[keys.name_key(session, name)] = key[5:]
    for name_key in expected.keys() | picture.names.keys():
        leads, bears = picture.names.get(name_key), expected.get(name_key)
        if leads != bears:
            yield Finding("names", f"the name {name_key[5:]!r} leads to {leads!r}, but {bears!r} bears it")


def _check_objects(picture: _Picture) -> Iterator[Finding]:
    serials = Counter(record.serial for record in picture.records)
    for serial, count in serials.items():
        if count > 1:
            yield Finding("objects", f"{count} objects have the serial number {serial}")
        if serial >= picture.counters.next_serial:
            yield Finding("objects", f"the serial number {serial} was not given out yet")
    for key, record in picture.sealed:
        if record.flags & FLAG_PROBING:
            yield Finding(
                "objects", f"{key[5:].hex()} bears the mark of a conditional delete", recoverable=True
            )
        if record.nbytes > sum(extent.length for extent in record.extents):
            yield Finding(
                "objects", f"{key[5:].hex()} has {record.nbytes:,} bytes, more than its extents hold"
            )


def _check_members(picture: _Picture) -> Iterator[Finding]:
    """Objects count those composed of them; what is left without a name is used; no continuation is lost."""
    users: Counter[tuple[bytes, int]] = Counter()
    for key, record in picture.sealed:
        users.update((key[:5] + member.id, member.serial) for member in record.members)
    for key, record in picture.sealed:
        used_by = users.pop((key, record.serial), 0)
        if record.used_by != used_by:
            yield Finding(
                "members", f"{key[5:].hex()} counts {record.used_by} objects made of it, there are {used_by}"
            )
        if record.flags & FLAG_LEFT and not (used_by or record.names or record.pins):
            yield Finding("members", f"{key[5:].hex()} was left to the objects made of it, and there is none")
    expected = sorted(key for record in picture.records for key, _ in continuations(record))
    if expected != picture.continuations:
        yield Finding("members", "the continuations of folded records do not match the records")


def _check_clients(conn: Connection, picture: _Picture) -> Iterator[Finding]:
    """No stale client files; nothing pending or in transit belongs to a dead client; leases name known
    objects.
    """
    infos = conn.clients.infos()
    living = {info.client for info in infos if info.alive}
    for info in infos:
        if not info.alive:
            yield Finding("clients", f"process {info.pid} is gone and left its client file", recoverable=True)
    for key, record in picture.pending:
        if record.client not in living:
            yield Finding("clients", f"{key[5:].hex()} is being created by a dead client", recoverable=True)
    for start, end, _, client in picture.transits:
        if client not in living:
            yield Finding("clients", f"the range {start}-{end} was left in transit", recoverable=True)
    for ticket, waiter in picture.waiters.items():
        if waiter.client not in living:
            yield Finding("clients", f"a dead client waits for room with ticket {ticket}", recoverable=True)
        if ticket >= picture.counters.next_ticket:
            yield Finding("clients", f"the ticket {ticket} was not given out yet")
    for number, spill in picture.spills.items():
        if spill.writer and spill.writer not in living:
            yield Finding("clients", f"a dead client was writing spill {number}", recoverable=True)
    known = {record.serial for record in picture.records}
    for serial, count in conn.clients.counts().items():
        if serial not in known and serial < picture.counters.next_serial and _settled(conn, serial):
            yield Finding("leases", f"{count} leases are held on the object number {serial}, which was freed")
    for name in conn.clients.foreign():
        yield Finding("clients", f"the file {name!r} in clients/ is not a client's")


def _settled(conn: Connection, serial: int) -> bool:
    """Whether a lease on an unknown object is still there on a second look: readers clear theirs at once."""
    return conn.write(lambda tx: conn.clients.counts()[serial] > 0 and not _is_known(tx.txn, serial))


def _is_known(txn: Any, serial: int) -> bool:
    letters = (keys.OBJECT, keys.PENDING, keys.DYING)
    return any(decode_record(raw).serial == serial for letter in letters for _, raw in scan(txn, letter))


def _check_memory(conn: Connection, picture: _Picture) -> Iterator[Finding]:
    """The memory behind the arena is what the catalog says is backed."""
    backed = conn.arena.backed_bytes()
    if picture.transits or picture.counters.backed_bytes > conn.capacity_bytes:
        return
    if backed != picture.counters.backed_bytes and conn.write(lambda tx: _differs(conn, tx)):
        yield Finding(
            "memory",
            f"the arena has {backed:,} bytes of memory, the catalog says {picture.counters.backed_bytes:,}",
        )


def _differs(conn: Connection, tx: Any) -> bool:
    """The same comparison under the writers' lock, in case somebody was just growing."""
    return not tx.transits() and conn.arena.backed_bytes() != tx.counters.backed_bytes
