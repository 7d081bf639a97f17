"""What the catalog stores: one msgspec struct per kind of record, encoded as msgpack arrays.

Fields are identified by position. Never reorder or remove one; append new ones with a default, so that an
older record still decodes. Records stay well below a page of 4096 bytes: what the kind of an object needs and
is longer lives in an extent; a long list of extents or members is *folded*: the record keeps its beginning,
and says in how many further records (Continuation) the whole lists are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from flightstore.catalog import keys

__all__ = [
    "LOAN",
    "Continuation",
    "Extent",
    "Member",
    "ObjectRecord",
    "continuations",
    "decode_record",
    "encode_record",
    "folded",
    "unfolded",
]

ARENA_FILE = 0
"""The file number of the arena."""
SPILL_FILE = 1
"""The file number of extents that were spilled at least once: their offset is the number of a SpillRecord,
which says where the bytes are now."""


class Extent(NamedTuple):
    """A run of payload bytes: ``length`` bytes from ``offset`` of file ``file``."""

    file: int
    offset: int
    length: int


LOAN = Extent(SPILL_FILE, 0, 0)
"""Among the extents that a new object is to share: the memory it borrows. No spill record is number 0."""


class Member(NamedTuple):
    """An object that another one is composed of; the serial tells it from a later one of the same id."""

    id: bytes
    serial: int


class ObjectRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One object: everything but its id (which is in the key) and its payload.

    Invariant: `serial` is unique in the store for ever; leases name objects by it.
    """

    serial: int
    """Number of the object in the store; never used twice."""
    kind: int
    """Which registered kind opens it; see objects.base."""
    extents: tuple[Extent, ...]
    """Where the payload lies: first the extent of its own, if it has one, then those it shares."""
    layout: bytes
    """What the kind needs to read the payload, msgpack."""
    names: tuple[str, ...] = ()
    """The object's names, first the one it was put under."""
    nbytes: int = 0
    """Payload bytes the user thinks of, without padding."""
    num_rows: int | None = None
    """Rows of a table."""
    created_ns: int = 0
    """When it was created."""
    creator_pid: int = 0
    """Process that created it."""
    client: int = 0
    """Client id of the creator; who owns the object while it is pending."""
    flags: int = 0
    """Bits FLAG_*."""
    metadata: bytes = b""
    """The user's metadata, msgpack; empty for none."""
    metadata_at: tuple[int, int] | None = None
    """Where in the first extent the metadata lies (offset, length), when it is too long for the record."""
    pins: int = 0
    """How often it is pinned."""
    batch: int = 0
    """Batch that it goes with; 0 for none."""
    batches: tuple[int, ...] = ()
    """Batches that list it: the one it was made in, then those it was passed on to."""
    members: tuple[Member, ...] = ()
    """The objects whose payload it shares, if they were there when it was sealed."""
    origin: str = ""
    """Name of the connector that built the payload; empty for what the store takes by itself."""
    used_by: int = 0
    """How many sealed objects have it as a member."""
    more: int = 0
    """Number of its continuations, if it is folded."""


FLAG_PROBING = 1 << 0
"""A conditional delete is looking for readers; readers wait for its outcome (INV-9)."""
FLAG_EVICTABLE = 1 << 1
"""May be dropped to make room: it was put so."""
FLAG_REPLICA = 1 << 2
"""A copy of an object whose primary lies elsewhere."""
FLAG_BORROWED = 1 << 3
"""The payload is somebody else's memory."""
FLAG_LEFT = 1 << 4
"""Its last name was put anew while it was a member: it goes with the last object that is composed of it."""

FLAG_FREED = 1 << 5
"""May be dropped to make room, before all others: its user does not need it any more."""
FLAG_KEPT = 1 << 6
"""It was passed from a batch to an outer one: it outlives its name."""

LISTED = 8
"""More extents or members than this are folded."""
PER_CONTINUATION = 48
"""Extents, and members, in one continuation."""


class Continuation(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A part of the extents and members of a folded record."""

    extents: tuple[Extent, ...]
    """The next extents."""
    members: tuple[Member, ...] = ()
    """The next members."""


_encoder = msgspec.msgpack.Encoder()
encode_record = _encoder.encode
"""Encode any record to bytes."""
decode_record = msgspec.msgpack.Decoder(ObjectRecord).decode
"""Decode an ObjectRecord from bytes."""
_decode_continuation = msgspec.msgpack.Decoder(Continuation).decode


def folded(record: ObjectRecord) -> ObjectRecord:
    """The record as it is stored under its key; `continuations` are stored beside it."""
    most = max(len(record.extents), len(record.members))
    if most <= LISTED or record.more:
        return record
    return msgspec.structs.replace(
        record,
        extents=record.extents[:1],
        members=(),
        more=-(-most // PER_CONTINUATION),
    )


def continuations(record: ObjectRecord) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of the continuations of an unfolded record; none for one that `folded` leaves as it is."""
    for number in range(folded(record).more if not record.more else 0):
        part = slice(number * PER_CONTINUATION, (number + 1) * PER_CONTINUATION)
        value = Continuation(record.extents[part], record.members[part])
        yield keys.continuation_key(record.serial, number), _encoder.encode(value)


def unfolded(record: ObjectRecord, get: Callable[[bytes], Any]) -> ObjectRecord:
    """The record with all its extents and members; `get` reads a key of the catalog."""
    if not record.more:
        return record
    numbers = range(record.more)
    parts = [_decode_continuation(get(keys.continuation_key(record.serial, number))) for number in numbers]
    return msgspec.structs.replace(
        record,
        extents=tuple(extent for part in parts for extent in part.extents),
        members=tuple(member for part in parts for member in part.members),
        more=0,
    )
