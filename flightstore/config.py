"""Settings: which store is meant, and how large a new one is made. Reads environment variables, calls
nothing.
"""

from __future__ import annotations

import os
import re

from flightstore.errors import InvalidArgument

__all__ = ["DEFAULT_SHARE", "catalog_bytes_for", "default_directory", "parse_bytes"]

DEFAULT_SHARE = 0.3
"""Share of the memory file system that a default store may fill."""
ADDRESSES_PER_BYTE = 4
"""Addresses of the arena per byte of capacity: spare ones end fragmentation."""
MIN_CAPACITY_BYTES = 1 << 16
_CATALOG_SHARE = 32
_MIN_CATALOG_BYTES, _MAX_CATALOG_BYTES = 8 << 20, 2 << 30

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_UNITS |= {f"{unit}i": 1 << 10 * power for power, unit in enumerate(("", "k", "m", "g", "t")) if unit}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", re.IGNORECASE)


def parse_bytes(size: int | str) -> int:
    """Bytes from a number or from text such as ``"8GiB"``, ``"500MB"``, ``"1.5g"``.

    Raises:
        InvalidArgument: it is neither.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        return size
    match = _SIZE.fullmatch(size) if isinstance(size, str) else None
    if match is None or match[2].lower() not in _UNITS:
        raise InvalidArgument(
            f"{size!r} is not a size", hint="write a number of bytes, or such as 8GiB or 500MB"
        )
    return int(float(match[1]) * _UNITS[match[2].lower()])


def default_directory() -> str:
    """Directory of the user's default store: FLIGHTSTORE_DIR, or one in /dev/shm named after the user id."""
    return os.environ.get("FLIGHTSTORE_DIR") or f"/dev/shm/flightstore-{os.getuid()}"


def configured_capacity() -> int | None:
    """FLIGHTSTORE_CAPACITY in bytes, if it is set."""
    text = os.environ.get("FLIGHTSTORE_CAPACITY")
    return parse_bytes(text) if text else None


def configured_spill() -> str | None:
    """FLIGHTSTORE_SPILL, if it is set: where a new store spills to."""
    return os.environ.get("FLIGHTSTORE_SPILL") or None


def catalog_bytes_for(capacity_bytes: int) -> int:
    """Size of the catalog of a store of that capacity; reserved in memory when the store is made."""
    wanted = min(max(capacity_bytes // _CATALOG_SHARE, _MIN_CATALOG_BYTES), _MAX_CATALOG_BYTES)
    return wanted // 4096 * 4096
