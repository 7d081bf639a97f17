"""Keys of the catalog: one letter, then what identifies the record. Stored: never renumber (docs/format.md).

All numbers are big-endian, so that keys sort like what they name. `session` is 0 for the store's own objects.
"""

from __future__ import annotations

import hashlib

from flightstore.errors import InvalidArgument

__all__ = [
    "CONTINUATION",
    "COUNTERS",
    "FORMAT",
    "continuation_key",
    "dying_key",
    "extent_key",
    "name_key",
    "object_key",
    "pending_key",
    "session_prefix",
    "transit_key",
]

FORMAT = b"F"
"""-> format version, 4 bytes."""
COUNTERS = b"M"
"""-> struct of counters; see transaction.py."""
OBJECT, PENDING, DYING, NAME = b"O", b"P", b"D", b"N"
EXTENT, TRANSIT, CONTINUATION = b"E", b"T", b"L"
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


def name_key(session: int, name: str) -> bytes:
    """-> object id. Long names are kept as their beginning and a digest; the whole name is in the object's
    record.
    """
    encoded = name.encode()
    if len(encoded) > _LONGEST_PLAIN:
        encoded = encoded[:_KEPT] + b"\0" + hashlib.blake2b(encoded, digest_size=32).digest()
    return NAME + session.to_bytes(4, "big") + encoded


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
