"""What the catalog stores about scopes and everything else that is not an object: sessions, batches, spilled
extents, events, waiting creates. The rules of records.py hold: known by position, append only.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

__all__ = [
    "ACTIVE",
    "ADDED",
    "CLOSED",
    "DELETED",
    "ENDED",
    "FULL",
    "SPILLED",
    "BatchRecord",
    "EventRecord",
    "Lender",
    "Owner",
    "SessionRecord",
    "SpillRecord",
    "WaiterRecord",
    "decode_batch",
    "decode_event",
    "decode_session",
    "decode_spill",
    "decode_waiter",
]

# States of sessions and batches; stored.
ACTIVE = 1
"""In use, as long as an owner lives and its time is not over."""
CLOSED = 2
"""Ended without cleaning up: its objects stay until it is deleted."""
ENDED = 3
"""Over: nobody sees its objects, and their memory is being reclaimed."""

# Kinds of events; stored.
ADDED, DELETED, SPILLED, FULL = 1, 2, 3, 4


class Owner(NamedTuple):
    """A process that a session or batch belongs to."""

    client: int
    """Its client id."""
    pid: int
    """Its process id, for people."""


class SessionRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Ids and names of their own. Its number is in the key; 0, the store's own, has no record."""

    name: str
    """Its name; empty for none."""
    owner: Owner
    """Who began it, or attached to it last."""
    ephemeral: bool = False
    """Whether it is over as soon as its owner is gone."""
    quota_bytes: int = 0
    """Upper bound of its extents in memory; 0 for none."""
    created_ns: int = 0
    """When it was begun, since 1970."""
    state: int = ACTIVE
    """ACTIVE or ENDED."""


class BatchRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A scope: objects made in it go with it. Its number is in the key."""

    session: int
    """The session whose objects it holds."""
    name: str = ""
    """Its name, for people; empty for none."""
    parent: int = 0
    """The batch it was begun in; 0 for none. It may be gone."""
    owners: tuple[Owner, ...] = ()
    """Processes that it belongs to; it is over when the last of them is gone."""
    cleanup: bool = True
    """Whether its end takes its objects away."""
    expires_ns: int = 0
    """When its time is over, on CLOCK_BOOTTIME; 0 for never."""
    created_ns: int = 0
    """When it was begun, since 1970."""
    state: int = ACTIVE
    """ACTIVE, CLOSED or ENDED."""
    all_listed: bool = False
    """Once ENDED: whether objects go too that were kept, that is passed on to another batch."""
    outer: tuple[int, ...] = ()
    """The batches around `parent`, from the inside outwards."""

    @property
    def around(self) -> tuple[int, ...]:
        """The batches it was begun in, from the inside outwards."""
        return (self.parent, *self.outer) if self.parent else ()


class Lender(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Somebody else's file that an extent lies in, and how to tell that it is still the same."""

    path: str
    """Where it opens, in every process of the user who put the object."""
    offset: int
    """Where the extent begins there."""
    device: int
    """`st_dev`."""
    inode: int
    """`st_ino`."""
    size: int
    """`st_size`."""
    mtime_ns: int = 0
    """`st_mtime_ns`; 0 for a file whose writer is trusted, which others change all the time elsewhere."""
    keepers: tuple[int, ...] = ()
    """Clients of which one at least must live for the bytes to be what they were; empty for none."""


class SpillRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where an extent of SPILL_FILE is: in memory, in a file outside, or both.

    It is one user of the arena's extent that it names. Its own users are counted by its extent record.
    """

    length: int
    """Bytes."""
    offset: int = -1
    """Where it lies in the arena; -1 while it is not in memory."""
    location: str = ""
    """URL of the storage that its file is in; empty for none. With `writer`, the file is being written."""
    file: int = 0
    """Number of the file, which its name is made of; no two attempts at writing have the same."""
    checksum: int = 0
    """CRC-32 of its bytes; known as soon as the file is finished."""
    writer: int = 0
    """Client that is writing the file at this moment."""
    session: int = 0
    """Whose quota its memory counts against."""
    dropping: bool = False
    """Somebody is about to give the memory up and looks for readers; who must use it waits."""
    lender: Lender | None = None
    """Where its bytes are while it is borrowed: neither in memory of the store nor in a file of its own."""
    former: Lender | None = None
    """Where they were before they were persisted, as long as somebody may still read them there."""

    @property
    def only_spilled(self) -> bool:
        """Whether its bytes are in a spill file only."""
        return self.offset < 0 and self.lender is None


class EventRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Something that happened. Its number is in the key; numbers ascend without gaps."""

    kind: int
    """ADDED, DELETED, SPILLED or FULL."""
    session: int
    """In which session."""
    id: bytes
    """The object's id; empty for FULL."""
    name: str | None
    """The object's first name."""
    nbytes: int
    """Its payload bytes; what was asked for, for FULL."""
    time_ns: int
    """When, since 1970."""


class WaiterRecord(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A create that waits for room. Its ticket is in the key."""

    client: int
    """Whose it is."""
    pid: int
    """Its process."""
    nbytes: int
    """What it asked for."""
    since_ns: int
    """When it began to wait, since 1970."""
    until_ns: int = 0
    """When nobody waits with this ticket any more, on CLOCK_BOOTTIME; 0 for never."""


decode_session = msgspec.msgpack.Decoder(SessionRecord).decode
"""Decode a SessionRecord from bytes."""
decode_batch = msgspec.msgpack.Decoder(BatchRecord).decode
"""Decode a BatchRecord from bytes."""
decode_spill = msgspec.msgpack.Decoder(SpillRecord).decode
"""Decode a SpillRecord from bytes."""
decode_event = msgspec.msgpack.Decoder(EventRecord).decode
"""Decode an EventRecord from bytes."""
decode_waiter = msgspec.msgpack.Decoder(WaiterRecord).decode
"""Decode a WaiterRecord from bytes."""
