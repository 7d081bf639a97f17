"""Keys of the catalog: one letter, then what identifies the record. Stored: never renumber (docs/format.md).

All numbers are big-endian, so that keys sort like what they name. `session` is 0 for the store's own objects.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from flightstore.errors import InvalidArgument

__all__ = [
    "CONTINUATION",
    "COUNTERS",
    "FORMAT",
    "batch_key",
    "batch_prefix",
    "batched_key",
    "batched_of",
    "continuation_key",
    "doomed_key",
    "dying_key",
    "event_key",
    "extent_key",
    "name_key",
    "object_key",
    "pending_key",
    "quota_key",
    "session_key",
    "session_name_key",
    "session_prefix",
    "setting_key",
    "spill_key",
    "transit_key",
    "waiter_key",
]

FORMAT = b"F"
"""-> format version, 4 bytes."""
COUNTERS = b"M"
"""-> struct of counters; see transaction.py."""
OBJECT, PENDING, DYING, NAME = b"O", b"P", b"D", b"N"
EXTENT, TRANSIT, CONTINUATION = b"E", b"T", b"L"
SESSION, SESSION_NAME, QUOTA = b"S", b"I", b"Q"
BATCH, BATCHED = b"B", b"G"
SPILL, DOOMED = b"X", b"Z"
EVENT, WAITER, SETTING = b"V", b"A", b"K"
WARM, COLD = b"W", b"C"  # and b"w", b"c" for their size indexes; see space.py

MAX_NAME_BYTES = 1024
_LONGEST_PLAIN = 480  # LMDB keys end at 511 bytes
_KEPT = 400


def session_prefix(letter: bytes, session: int) -> bytes:
    """What the keys of one session's records begin with."""
    return letter + session.to_bytes(4, "big")


def object_key(session: int, object_id: bytes) -> bytes:
    """-> ObjectRecord of a sealed object."""
    return OBJECT + session.to_bytes(4, "big") + object_id


def pending_key(session: int, object_id: bytes) -> bytes:
    """-> ObjectRecord of an object that is being created."""
    return PENDING + session.to_bytes(4, "big") + object_id


def dying_key(serial: int) -> bytes:
    """-> ObjectRecord of a deleted object whose memory is not free yet."""
    return DYING + serial.to_bytes(8, "big")


@lru_cache(maxsize=256)
def name_key(session: int, name: str) -> bytes:
    """-> object id. Long names are kept as their beginning and a digest; the whole name is in the object's
    record.
    """
    return NAME + session.to_bytes(4, "big") + _shortened(name)


def _shortened(name: str) -> bytes:
    encoded = name.encode()
    if len(encoded) > _LONGEST_PLAIN:
        return encoded[:_KEPT] + b"\0" + hashlib.blake2b(encoded, digest_size=32).digest()
    return encoded


def check_name(name: str) -> None:
    """Refuse what cannot be a name.

    Raises:
        InvalidArgument: says why.
    """
    if not isinstance(name, str):
        raise InvalidArgument(f"a name is a str, got {type(name).__name__}")
    try:
        length = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"the name {name!r} is not valid Unicode: {error.reason}") from error
    if not 0 < length <= MAX_NAME_BYTES:
        raise InvalidArgument(f"a name has 1 to {MAX_NAME_BYTES} bytes of UTF-8, got {length}")
    if name.startswith(("{", "id:")):
        raise InvalidArgument(
            f"the name {name!r} begins with {'{' if name[0] == '{' else 'id:'}",
            hint="that beginning is kept for JSON tickets and for ids; choose another name",
        )


def extent_key(file: int, offset: int) -> bytes:
    """-> length and user count of an extent, 8 bytes each."""
    return EXTENT + file.to_bytes(2, "big") + offset.to_bytes(8, "big")


def transit_key(start: int) -> bytes:
    """-> end, kind and client of a range that is being grown or punched."""
    return TRANSIT + start.to_bytes(8, "big")


def continuation_key(serial: int, number: int) -> bytes:
    """-> Continuation: a part of the lists of a folded ObjectRecord."""
    return CONTINUATION + serial.to_bytes(8, "big") + number.to_bytes(2, "big")


def session_key(session: int) -> bytes:
    """-> SessionRecord."""
    return SESSION + session.to_bytes(4, "big")


def session_name_key(name: str) -> bytes:
    """-> number of the latest session of that name, 4 bytes."""
    return SESSION_NAME + _shortened(name)


def quota_key(session: int) -> bytes:
    """-> bytes of the extents that the session has allocated, 8 bytes."""
    return QUOTA + session.to_bytes(4, "big")


def batch_key(batch: int) -> bytes:
    """-> BatchRecord."""
    return BATCH + batch.to_bytes(8, "big")


def batched_key(batch: int, session: int, object_id: bytes) -> bytes:
    """-> nothing: the index of the objects that a batch lists."""
    return BATCHED + batch.to_bytes(8, "big") + session.to_bytes(4, "big") + object_id


def batch_prefix(batch: int) -> bytes:
    """What the keys of the objects that a batch lists begin with."""
    return BATCHED + batch.to_bytes(8, "big")


def batched_of(key: bytes) -> tuple[int, int, bytes]:
    """(batch, session, object id) of a key of that index."""
    return int.from_bytes(key[1:9], "big"), int.from_bytes(key[9:13], "big"), key[13:]


def spill_key(number: int) -> bytes:
    """-> SpillRecord of the extent of that number of SPILL_FILE."""
    return SPILL + number.to_bytes(8, "big")


def doomed_key(number: int) -> bytes:
    """-> location, UTF-8: a spill file that nobody needs any more and that is yet to be removed."""
    return DOOMED + number.to_bytes(8, "big")


def event_key(number: int) -> bytes:
    """-> EventRecord."""
    return EVENT + number.to_bytes(8, "big")


def waiter_key(ticket: int) -> bytes:
    """-> WaiterRecord: a create that waits for room; the lowest ticket is served first."""
    return WAITER + ticket.to_bytes(8, "big")


def setting_key(name: str) -> bytes:
    """-> a setting of the store, UTF-8."""
    return SETTING + name.encode()
