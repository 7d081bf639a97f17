"""What this connector writes into Arrow metadata, and the metadata of polars that it reads.

Markers are stored: never rename one.
"""

from __future__ import annotations

from functools import lru_cache

import pyarrow as pa
from pyarrow import types

__all__ = [
    "ENUM_KEYS",
    "EXTENSION_KEYS",
    "INT128",
    "KEY",
    "OBJECT",
    "OWN_KEYS",
    "SERIES",
    "UINT128",
    "categories_of",
    "is_sound",
    "is_text_dictionary",
    "marker",
]

KEY = b"flightstore.polars"
"""On the schema: the container. On a field, at any depth: the polars type that Arrow has not."""
SERIES = b"Series"
"""The container was a series; without a marker it was a data frame."""
INT128 = b"Int128"
UINT128 = b"UInt128"
"""Values of 16 bytes, little endian."""
OBJECT = b"Object"
"""Pickled Python objects."""

ENUM_KEYS = (b"_PL_ENUM_VALUES2", b"_PL_ENUM_VALUES")
"""Where polars notes the categories of an Enum: each as its length in bytes, a semicolon, the text."""
CATEGORICAL_KEYS = (b"_PL_CATEGORICAL2", b"_PL_CATEGORICAL")
"""Where it notes the categories' name, namespace and physical type of a Categorical."""
EXTENSION_KEYS = (b"ARROW:extension:name", b"ARROW:extension:metadata")
"""How Arrow says on a field that its type is an extension type."""
OWN_KEYS = frozenset({KEY, *ENUM_KEYS, *CATEGORICAL_KEYS, *EXTENSION_KEYS})
"""Metadata of a field that polars' types stand for: nothing is lost with it."""


def marker(field: pa.Field) -> bytes | None:
    """The polars type that a field's metadata names, where the Arrow type can be it."""
    found = (field.metadata or {}).get(KEY)
    if found in (INT128, UINT128):
        return found if field.type == pa.binary(16) else None
    return found if found == OBJECT and field.type == pa.large_binary() else None


def is_sound(key: bytes, value: bytes, kind: pa.DataType) -> bool:
    """Whether polars can read metadata of a field of this type; it panics over what is no UTF-8, and over
    what is damaged of its own.
    """
    try:
        key.decode(), value.decode()
    except UnicodeDecodeError:
        return False
    if key not in ENUM_KEYS and key not in CATEGORICAL_KEYS:
        return True
    if not is_text_dictionary(kind):
        return False
    if key in ENUM_KEYS:
        found = categories_of(value)
        return found is not None and len(set(found)) == len(found)
    return key != CATEGORICAL_KEYS[0] or _is_sound_categorical(value)


def is_text_dictionary(kind: pa.DataType) -> bool:
    """Whether a type is a dictionary of strings: a Categorical or an Enum for polars."""
    return types.is_dictionary(kind) and any(
        check(kind.value_type) for check in (types.is_string, types.is_large_string, types.is_string_view)
    )


@lru_cache(maxsize=64)
def categories_of(value: bytes) -> tuple[str, ...] | None:
    """The categories in an Enum's metadata, None if it is damaged."""
    found = []
    try:
        while value:
            text, value = _take(value)
            found.append(text)
    except ValueError:
        return None
    return tuple(found)


def _is_sound_categorical(value: bytes) -> bool:
    try:
        name, value = _take(value)
        namespace, value = _take(value)
    except ValueError:
        return False
    if not name:
        return value == b"u32;" and not namespace
    return value in (b"u8;", b"u16;", b"u32;")


def _take(value: bytes) -> tuple[str, bytes]:
    """The first text of a sequence of them, and what follows it."""
    digits, semicolon, rest = value.partition(b";")
    if not semicolon or not digits.isdigit() or int(digits) > len(rest):
        raise ValueError("not a text with its length before it")
    return rest[: int(digits)].decode(), rest[int(digits) :]
