"""What distinguishes two Arrow types, fields or schemas, in words. Calls nothing else of ours.

Arrow's own equality leaves out metadata unless told otherwise, says only yes or no, and asks an extension
type about itself instead of looking at its storage. The names of a map's key and value are no part of a type:
the format knows only ``key`` and ``value``, and readers put those in place of others.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from pyarrow import types as pt

__all__ = ["field_difference", "schema_difference", "type_difference"]

_LISTS = (pt.is_list, pt.is_large_list, pt.is_list_view, pt.is_large_list_view, pt.is_fixed_size_list)


def schema_difference(expected: pa.Schema, actual: pa.Schema) -> str:
    """How two schemas differ: names, order, types, nullability, metadata; empty if they do not."""
    if expected.names != actual.names:
        return f"columns {_shortened(expected.names)} became {_shortened(actual.names)}"
    for number, fields in enumerate(zip(expected, actual, strict=True)):
        if found := field_difference(*fields):
            return f"column {number} {fields[0].name!r}: {found}"
    if found := _metadata_difference(expected.metadata, actual.metadata):
        return f"schema: {found}"
    return "" if expected.equals(actual) else f"schema\n{expected}\nbecame\n{actual}"


def field_difference(expected: pa.Field, actual: pa.Field) -> str:
    """How two fields differ; empty if they do not."""
    if expected.name != actual.name:
        return f"name {expected.name!r} became {actual.name!r}"
    return _rest_of_field_difference(expected, actual)


def _rest_of_field_difference(expected: pa.Field, actual: pa.Field) -> str:
    """How two fields differ, their names left aside."""
    if expected.nullable != actual.nullable:
        return f"nullable={expected.nullable} became {actual.nullable}"
    return _metadata_difference(expected.metadata, actual.metadata) or type_difference(
        expected.type, actual.type
    )


def type_difference(expected: pa.DataType, actual: pa.DataType) -> str:
    """How two types differ, down to names and metadata of nested fields; empty if they do not."""
    changed = f"type {expected} became {actual}"
    if type(expected) is not type(actual) or expected.id != actual.id:
        return changed
    if isinstance(expected, pa.BaseExtensionType):
        return _extension_difference(expected, actual) or ("" if expected == actual else changed)
    if found := _children_difference(expected, actual):
        return f"in {expected}: {found}"
    return "" if expected == actual else changed


def _extension_difference(expected: Any, actual: Any) -> str:
    if expected.extension_name != actual.extension_name:
        return f"extension {expected.extension_name} became {actual.extension_name}"
    written = [
        kind.__arrow_ext_serialize__() for kind in (expected, actual) if isinstance(kind, pa.ExtensionType)
    ]
    if len(written) == 2 and written[0] != written[1]:
        return f"extension {expected.extension_name} with {written[0]!r} became {written[1]!r}"
    return type_difference(expected.storage_type, actual.storage_type)


def _children_difference(expected: Any, actual: Any) -> str:
    if any(is_list(expected) for is_list in _LISTS):
        return field_difference(expected.value_field, actual.value_field)
    if pt.is_map(expected):
        return _rest_of_field_difference(expected.key_field, actual.key_field) or _rest_of_field_difference(
            expected.item_field, actual.item_field
        )
    if pt.is_dictionary(expected) or pt.is_run_end_encoded(expected):
        return type_difference(expected.value_type, actual.value_type)
    if (pt.is_struct(expected) or pt.is_union(expected)) and expected.num_fields == actual.num_fields:
        pairs = ((expected.field(i), actual.field(i)) for i in range(expected.num_fields))
        return next(filter(None, (field_difference(*pair) for pair in pairs)), "")
    return ""


def _metadata_difference(expected: Any, actual: Any) -> str:
    """Metadata that is absent and metadata that is empty are the same thing."""
    expected, actual = expected or {}, actual or {}
    if expected == actual:
        return ""
    for key in sorted({*expected, *actual}):
        if expected.get(key) != actual.get(key):
            return f"metadata {key!r}: {_shortened(expected.get(key))} became {_shortened(actual.get(key))}"
    return ""


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
