"""Schemas as stored, cached per process: their message, their fingerprint, and what their types demand.

A schema is written and parsed once per process. What depends on more than its bytes (extension types, which a
process may register at any time) is never cached. May call objects.flatmessage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from flightstore.objects.flatmessage import PREFIX_BYTES, sealed_message

__all__ = [
    "KnownSchema",
    "contains",
    "fingerprint_of",
    "known_schema",
    "nested_types",
    "null_row",
    "parsed_schema",
    "same_schema",
    "storage",
]

CACHED_COLUMN_COUNTS = 64
CACHED_PER_COUNT = 4
CACHED_SCHEMAS = 128
CACHED_SCHEMA_BYTES = 256 << 10
EXTENSION_KEY = b"ARROW:extension:name"


class KnownSchema:
    """A schema, its message as stored, and how its latest small batches were laid out."""

    __slots__ = (
        "fingerprint",
        "has_dictionaries",
        "has_views",
        "inexpressible",
        "message",
        "plan",
        "schema",
        "seen",
    )

    def __init__(self, schema: pa.Schema, message: bytes) -> None:
        self.schema = schema
        self.message = message
        self.fingerprint = fingerprint_of(message)
        self.has_dictionaries = contains(schema, pa.types.is_dictionary)
        self.has_views = contains(schema, is_view)
        self.inexpressible = inexpressible(schema)
        """What Arrow's stream format has no words for."""
        self.plan: Any = None
        """See objects.ipc."""
        self.seen = b""
        """Prefix and metadata of the latest batch that no plan fitted."""


_by_columns: dict[int, list[KnownSchema]] = {}
"""Schemas that were encoded, by number of columns, latest first: few enough that comparing each is cheap."""
_by_fingerprint: dict[bytes, pa.Schema] = {}


def fingerprint_of(message: bytes) -> bytes:
    """blake2b, 16 bytes, over a schema message as stored."""
    return blake2b(message, digest_size=16).digest()


def known_schema(schema: pa.Schema) -> KnownSchema:
    """The schema with its message, from the cache where it can be."""
    bucket = _by_columns.get(len(schema))
    if bucket is not None:
        for known in bucket:
            if schema.equals(known.schema, check_metadata=True):
                return known
    written = schema.serialize().to_pybytes()
    message = sealed_message(written[PREFIX_BYTES:])
    known = KnownSchema(schema, message)
    if _cacheable(message) and not _is_vague(schema):
        if len(_by_columns) >= CACHED_COLUMN_COUNTS:
            _by_columns.clear()
        # A new list each time: other threads may be walking the old one.
        _by_columns[len(schema)] = [known, *(bucket or ())[: CACHED_PER_COUNT - 1]]
    return known


def parsed_schema(message: pa.Buffer, fingerprint: bytes) -> pa.Schema:
    """The schema of a stored message, parsed once per process."""
    schema = _by_fingerprint.get(fingerprint)
    if schema is None:
        schema = pa.ipc.read_schema(message)
        if _cacheable(message.to_pybytes()):
            if len(_by_fingerprint) >= CACHED_SCHEMAS:
                _by_fingerprint.clear()
            _by_fingerprint[fingerprint] = schema
    return schema


def _cacheable(message: bytes) -> bool:
    return len(message) <= CACHED_SCHEMA_BYTES and EXTENSION_KEY not in message


def same_schema(one: pa.Schema, other: pa.Schema) -> bool:
    """Whether two schemas are the same in all that is stored, which is more than Arrow compares."""
    if not one.equals(other, check_metadata=True):
        return False
    return not _is_vague(one) or bool(one.serialize().equals(other.serialize()))


def _is_vague(schema: pa.Schema) -> bool:
    """Whether Arrow takes other schemas for equal to this one: below the values of a dictionary and the
    storage of an extension type it overlooks names and metadata of fields.
    """
    return any(_has_vague_fields(kind) for kind in schema.types)


def _has_vague_fields(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return bool(storage(kind).num_fields) or _has_vague_fields(storage(kind))
    if pa.types.is_dictionary(kind):
        return bool(kind.value_type.num_fields)
    return any(_has_vague_fields(kind.field(index).type) for index in range(kind.num_fields))


def is_view(kind: pa.DataType) -> bool:
    """Whether values of this type refer to data buffers by 16-byte views."""
    return bool(pa.types.is_string_view(kind) or pa.types.is_binary_view(kind))


def storage(kind: pa.DataType) -> pa.DataType:
    """The type that an extension type is stored as; any other type is its own."""
    while isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind


def null_row(kind: pa.DataType, dictionary: pa.Array | None = None) -> pa.Array:
    """One row of a type, null: a sample of how its messages look.

    Args:
        kind: Any type.
        dictionary: The values of a dictionary type, its own or its storage's; none are needed otherwise.
    """
    inner = storage(kind)
    if dictionary is None:
        row = pa.nulls(1, inner)
    else:
        indices = pa.nulls(1, inner.index_type)
        row = pa.DictionaryArray.from_arrays(indices, dictionary, ordered=inner.ordered)
    return row if kind is inner else pa.ExtensionArray.from_storage(kind, row)


def inexpressible(schema: pa.Schema) -> str | None:
    """What about a schema Arrow's stream format has no words for, though Arrow's writer takes it; None if
    nothing.

    The schema message says a field's name of one extension type, and one dictionary's values: an extension
    within an extension, and dictionaries of dictionaries or of extensions, come back as something else.
    """
    for field in schema:
        what = _inexpressible(field.type)
        if what is not None:
            return f"column {field.name!r} of type {field.type}: {what}"
    return None


def _inexpressible(kind: pa.DataType) -> str | None:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
        if isinstance(kind, pa.BaseExtensionType):
            return "an extension type over an extension type"
    if pa.types.is_dictionary(kind):
        values = kind.value_type
        if pa.types.is_dictionary(values) or isinstance(values, pa.BaseExtensionType):
            return "a dictionary of dictionaries or of extension types"
        return None
    found = (_inexpressible(kind.field(index).type) for index in range(kind.num_fields))
    return next((what for what in found if what is not None), None)


def nested_types(kind: pa.DataType) -> Iterator[pa.DataType]:
    """A type and all types within it, depth first; extension types as their storage, not into dictionaries'
    values.
    """
    kind = storage(kind)
    yield kind
    if not pa.types.is_dictionary(kind):
        for index in range(kind.num_fields):
            yield from nested_types(kind.field(index).type)


def contains(schema: pa.Schema, predicate: Callable[[pa.DataType], bool]) -> bool:
    """Whether a type for which `predicate` holds occurs anywhere in a schema."""
    return any(predicate(kind) for field in schema for kind in nested_types(field.type))
