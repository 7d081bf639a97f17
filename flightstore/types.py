"""Plain values that cross the public interface: ids, and frozen records of what a store knows.

Nothing here calls anything else of flightstore. Sizes are bytes, durations seconds, times nanoseconds since
the Unix epoch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, TypeAlias

from flightstore.errors import InvalidArgument

__all__ = [
    "BatchInfo",
    "ColumnConversion",
    "ConversionReport",
    "EvictionCandidate",
    "Event",
    "Holder",
    "Loan",
    "LoanInfo",
    "ObjectID",
    "ObjectInfo",
    "RecoverReport",
    "Ref",
    "SessionInfo",
    "StoreStats",
]

MAX_ID_BYTES = 64
"""Ids are 1 to 64 bytes; generated ones are 16 (Plasma's 20 and Ray's 28 fit)."""


class ObjectID(bytes):
    """The identity of one immutable object: 1 to 64 bytes, generated ones 16 random bytes.

    Written ``id:<hex>`` where only text fits (command line, URL, ticket).
    """

    __slots__ = ()

    def __new__(cls, value: bytes) -> ObjectID:
        if not 0 < len(value) <= MAX_ID_BYTES:
            raise InvalidArgument(f"an object id has 1 to {MAX_ID_BYTES} bytes, got {len(value)}")
        return super().__new__(cls, value)

    @classmethod
    def random(cls) -> ObjectID:
        """A new id that no other call returns."""
        return bytes.__new__(cls, os.urandom(16))

    @classmethod
    def from_text(cls, text: str) -> ObjectID:
        """Parse ``id:<hex>`` or bare hex.

        Raises:
            InvalidArgument: `text` is not an id.
        """
        try:
            return cls(bytes.fromhex(text.removeprefix("id:")))
        except ValueError as error:
            raise InvalidArgument(f"{text!r} is not an object id", hint="ids look like id:1f0a...") from error

    def __str__(self) -> str:
        return f"id:{self.hex()}"

    def __repr__(self) -> str:
        return f"ObjectID({self.hex()})"


Ref: TypeAlias = str | ObjectID
"""How a caller names an object: a ``str`` is a name, an :class:`ObjectID` an id."""


@dataclass(frozen=True, slots=True)
class Loan:
    """A run of somebody else's memory that objects can be made of without a copy.

    It is `length` bytes from `offset` of a file, which this process has mapped at `address`.

    Whoever makes a loan promises that the bytes do not change as long as it lasts.
    """

    path: str
    """The file; it must open under this path in every process that gets the object."""
    offset: int
    """Where the bytes begin in the file."""
    length: int
    """How many there are."""
    address: int
    """Where they are in this process's memory."""
    keepers: tuple[int, ...] = ()
    """Clients of the store (`Store.client_id`) of which one at least must live for the bytes to be what they
    are. Empty for a file that nobody has to keep, such as one on a disk."""
    checked: bool = True
    """Whether a changed time of modification means that the bytes are lost. False for a file that others
    write elsewhere in."""


@dataclass(frozen=True, slots=True)
class LoanInfo:
    """A loan that objects of a store use. It is over when none of them is used any more."""

    number: int
    """Its number, never used again in the store."""
    path: str
    """The file."""
    offset: int
    """Where the bytes begin in the file."""
    length: int
    """How many there are."""
    keepers: tuple[int, ...]
    """The clients that keep them."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the catalog knows about one object, at one moment."""

    id: ObjectID
    """The object's id."""
    name: str | None
    """The object's name, if it has one."""
    kind: str
    """``table``, ``tensor``, ``blob`` or ``object``."""
    nbytes: int
    """Bytes of its payload, without padding."""
    num_rows: int | None
    """Rows of a table, else None."""
    created_ns: int
    """When it was sealed (or created, while pending)."""
    creator_pid: int
    """Process that created it."""
    refs: int
    """User references held on it now, in all processes."""
    pinned: bool
    """Whether it is pinned."""
    state: str
    """``sealed``; ``spilled`` while some of it is in a spill file only; ``borrowed`` while some of it is
    somebody else's memory."""
    metadata: Any = None
    """What the creator attached."""
    evictable: bool = False
    """Whether it may be dropped to make room."""


@dataclass(frozen=True, slots=True)
class EvictionCandidate:
    """An object that may have to give its memory back, as an eviction policy sees it."""

    id: ObjectID
    """Its id."""
    session: int
    """Number of its session; 0 for the store's own objects."""
    name: str | None
    """Its name, if it has one."""
    nbytes: int
    """Bytes of memory that it uses, shared ones included."""
    created_ns: int
    """When it was created, since 1970."""
    last_access_ns: int
    """When it was last got, on the monotonic clock; 0 for never."""
    freed: bool
    """Whether ``free`` marked it."""
    evictable: bool
    """Whether it may be dropped; else it can only be spilled."""


@dataclass(frozen=True, slots=True)
class BatchInfo:
    """What is known about one batch, at one moment."""

    id: int
    """Its number in the store."""
    name: str | None
    """Its name, if it has one."""
    state: str
    """``active``; ``closed`` (ended with ``cleanup=False``: its objects stay until it is deleted); or
    ``ended`` (nobody sees its objects any more)."""
    objects: int
    """Objects that go with it; of an ended batch those that were not reclaimed yet."""
    nbytes: int
    """Bytes of their payload, without padding."""
    parent: int | None
    """Number of the batch that it was begun in."""
    owner_pids: tuple[int, ...]
    """The living processes that it belongs to."""
    created_ns: int
    """When it was begun."""
    expires_s: float | None
    """Seconds until its time is over, 0 when it is; None for a batch without a timeout."""
    session: int
    """Number of its session; 0 for the store's own."""


@dataclass(frozen=True, slots=True)
class Holder:
    """One process that holds references on an object."""

    pid: int
    """Process id; 0 for a child that is being forked at this moment."""
    process: str
    """The process's name."""
    refs: int
    """References it holds."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One session, at one moment."""

    id: int
    """Its number: unique in the store for ever."""
    name: str | None
    """Its name, if it has one."""
    state: str
    """``active``, or ``ended`` while its memory is yet to be reclaimed."""
    owner_pid: int
    """Process that began it, or attached to it last."""
    owner_alive: bool
    """Whether that process is still connected."""
    ephemeral: bool
    """Whether it is over as soon as its owner is gone."""
    quota_bytes: int | None
    """Upper bound of the memory it may take; None for none."""
    used_bytes: int
    """Memory that counts against it, pending and deleted objects included."""
    objects: int
    """Sealed objects; once it has ended, those that are yet to be reclaimed."""
    created_ns: int
    """When it was begun."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a store."""

    number: int
    """Its place among all events of the store, from 1: what happened later has a higher number."""
    kind: str
    """``added``: an object was sealed; ``deleted``: a sealed one was deleted, or its name was put anew;
    ``spilled``: one begins to be written to a file; ``full``: a create found no room."""
    id: ObjectID | None
    """The object's id; None for ``full``."""
    name: str | None
    """The name that the object has; None without one, and for ``full``."""
    nbytes: int
    """Bytes of the object's payload; for ``full``, what was asked for."""
    time_ns: int
    """When it happened."""


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Usage of a store, at one moment."""

    path: str
    """Directory of the store."""
    capacity_bytes: int
    """Upper bound of the bytes backed by memory."""
    used_bytes: int
    """Bytes in extents, those of dying and pending objects included."""
    free_bytes: int
    """``capacity_bytes - used_bytes``."""
    backed_bytes: int
    """Bytes of the arena backed by memory: used ones and warm holes."""
    leased_bytes: int
    """Bytes of objects that have at least one user reference."""
    pinned_bytes: int
    """Bytes of pinned objects."""
    evictable_bytes: int
    """What evicting everything that may be evicted would free."""
    spillable_bytes: int
    """What spilling everything that may be spilled would free; 0 while spilling is off."""
    spilled_bytes: int
    """Bytes of objects that are in spill files only."""
    largest_hole_bytes: int
    """Largest allocation that would succeed without eviction or spilling."""
    objects: int
    """Sealed objects."""
    pending: int
    """Objects being created."""
    dying: int
    """Deleted objects whose memory has not been given back yet."""
    clients: int
    """Live client processes."""
    leases: int
    """User references in all processes."""
    catalog_bytes: int
    """Size of the catalog."""
    catalog_used_bytes: int
    """Bytes of the catalog in use."""
    evictions: int = 0
    """Objects dropped to make room, since the store was made."""
    spills: int = 0
    """How often objects' memory was given up for a spill file, since the store was made; what objects share
    counts once."""


@dataclass(frozen=True, slots=True)
class RecoverReport:
    """What one :meth:`Store.recover` did."""

    dead_clients: int = 0
    """Clients found dead and removed."""
    aborted_objects: int = 0
    """Unsealed objects of dead clients that were reclaimed."""
    freed_objects: int = 0
    """Deleted objects whose memory was given back."""
    freed_bytes: int = 0
    """Bytes given back to the free space."""
    repaired_ranges: int = 0
    """Address ranges left in transition by dead clients and put right."""
    stale_readers: int = 0
    """Catalog reader slots of dead processes that were cleared."""
    removed_files: int = 0
    """Left-over files that were removed."""
    ended_sessions: int = 0
    """Ephemeral sessions of dead owners that were ended."""


@dataclass(frozen=True, slots=True)
class ColumnConversion:
    """What converting one column to a library's form shares, and what it copies."""

    name: str
    """The column's name."""
    type: str
    """Its Arrow type."""
    shared_bytes: int
    """Bytes of the result that are the store's memory."""
    copied_bytes: int
    """Bytes of the result that are private memory."""
    reason: str = ""
    """Why something was copied or changed; empty when all is shared as it is."""

    @property
    def zero_copy(self) -> bool:
        """Whether nothing was copied."""
        return self.copied_bytes == 0


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What converting an object to a library's form shares, and what it copies, column by column."""

    library: str
    """The connector's name."""
    columns: tuple[ColumnConversion, ...]
    """One entry for each column, in order."""

    @property
    def zero_copy(self) -> bool:
        """Whether nothing was copied."""
        return all(column.zero_copy for column in self.columns)

    @property
    def shared_bytes(self) -> int:
        """Bytes of the result that are the store's memory."""
        return sum(column.shared_bytes for column in self.columns)

    @property
    def copied_bytes(self) -> int:
        """Bytes of the result that are private memory."""
        return sum(column.copied_bytes for column in self.columns)

    def __str__(self) -> str:
        total = f"{self.library}: {self.shared_bytes:,} bytes shared, {self.copied_bytes:,} copied"
        lines = [
            f"  {column.name} ({column.type}): "
            + ("shared" if column.zero_copy else f"{column.copied_bytes:,} bytes copied")
            + (f": {column.reason}" if column.reason else "")
            for column in self.columns
        ]
        return "\n".join([total, *lines])
