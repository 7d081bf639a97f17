"""Tables for clients that do not read all of Arrow's types: dictionaries, run-end encoding and views become
plain values, at any depth.

Lists of any length and rows of one long run may hydrate to far more than they took: hand over slices.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa

from flightstore.errors import InvalidArgument, NotConvertible

__all__ = ["KINDS", "check_kinds", "hydrated", "plain_schema"]

DICTIONARY, RUN_END, VIEW = KINDS = ("dictionary", "run_end", "view")
"""What can be asked for."""

types = pa.types
lib: Any = import_module("pyarrow.lib")


def check_kinds(kinds: Collection[str]) -> None:
    """Refuse what cannot be asked for.

    Raises:
        InvalidArgument: there is no such kind.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise InvalidArgument(f"hydrate: {unknown[0]!r}", hint=f"there are {', '.join(KINDS)}")


def plain_schema(schema: pa.Schema, kinds: Collection[str]) -> pa.Schema:
    """The schema of what a table is hydrated to."""
    check_kinds(kinds)
    for index, field in enumerate(schema):
        wanted = _plain_type(field.type, kinds)
        if wanted != field.type:
            schema = schema.set(index, field.with_type(wanted))
    return schema


def hydrated(table: pa.Table, kinds: Collection[str]) -> pa.Table:
    """The table with columns of these kinds as plain ones; itself if it has none of them.

    Raises:
        InvalidArgument: there is no such kind.
        NotConvertible: Arrow cannot convert a column; names it and its type.
    """
    check_kinds(kinds)
    for index, field in enumerate(table.schema):
        wanted = _plain_type(field.type, kinds)
        if wanted == field.type:
            continue
        try:
            chunks = [_plain(chunk, wanted, kinds) for chunk in table.column(index).chunks]
        except (pa.ArrowException, NotImplementedError, ValueError) as error:
            raise NotConvertible(
                f"column {field.name!r} of type {field.type} cannot be sent as {wanted}: {error}",
                hint="leave the column out, or do not ask for hydration",
            ) from error
        table = table.set_column(index, field.with_type(wanted), pa.chunked_array(chunks, wanted))
    return table


# --- types ---


def _plain_type(kind: pa.DataType, kinds: Collection[str]) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        inner = _plain_type(kind.storage_type, kinds)
        return kind if inner == kind.storage_type else inner
    if types.is_dictionary(kind):
        return _plain_type(kind.value_type, kinds) if DICTIONARY in kinds else kind
    if types.is_run_end_encoded(kind):
        values = _plain_type(kind.value_type, kinds)
        return values if RUN_END in kinds else pa.run_end_encoded(kind.run_end_type, values)
    if VIEW in kinds:
        if types.is_string_view(kind):
            return pa.large_string()
        if types.is_binary_view(kind):
            return pa.large_binary()
        if _is_list_view(kind):
            return pa.large_list(_plain_field(kind.value_field, kinds))
    return _of_plain_children(kind, kinds)


def _plain_field(field: pa.Field, kinds: Collection[str]) -> pa.Field:
    return field.with_type(_plain_type(field.type, kinds))


def _of_plain_children(kind: pa.DataType, kinds: Collection[str]) -> pa.DataType:
    if not types.is_nested(kind):
        return kind
    fields = [_plain_field(kind.field(index), kinds) for index in range(kind.num_fields)]
    if all(field == kind.field(index) for index, field in enumerate(fields)):
        return kind
    if types.is_struct(kind):
        return pa.struct(fields)
    if types.is_union(kind):
        return pa.union(fields, kind.mode, kind.type_codes)
    if types.is_map(kind):
        key, item = _plain_field(kind.key_field, kinds), _plain_field(kind.item_field, kinds)
        return pa.map_(key, item, keys_sorted=kind.keys_sorted)
    if types.is_fixed_size_list(kind):
        return pa.list_(fields[0], kind.list_size)
    makers = {
        lib.Type_LIST: pa.list_,
        lib.Type_LARGE_LIST: pa.large_list,
        lib.Type_LIST_VIEW: pa.list_view,
        lib.Type_LARGE_LIST_VIEW: pa.large_list_view,
    }
    return makers[kind.id](fields[0])


def _is_list_view(kind: pa.DataType) -> bool:
    return bool(types.is_list_view(kind) or types.is_large_list_view(kind))


# --- values ---


def _plain(array: pa.Array, wanted: pa.DataType, kinds: Collection[str]) -> pa.Array:
    """An array as the type that _plain_type says."""
    kind = array.type
    if kind == wanted:
        return array
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(array.storage, wanted, kinds)
    if types.is_dictionary(kind):
        return _plain(array.dictionary, wanted, kinds).take(array.indices)
    if types.is_run_end_encoded(kind):
        return _runs(array, wanted, kinds)
    if _is_list_view(kind):
        return _list_views(array, wanted, kinds)
    if types.is_nested(kind):
        return _NESTED[kind.id](array, wanted, kinds)
    return array.cast(wanted)


def _runs(array: pa.Array, wanted: pa.DataType, kinds: Collection[str]) -> pa.Array:
    if types.is_run_end_encoded(wanted):
        values = _plain(array.values, wanted.value_type, kinds)
        children = [array.run_ends, values]
        return pa.Array.from_buffers(wanted, len(array), [None], 0, array.offset, children)
    rows = np.arange(array.offset, array.offset + len(array))
    runs = np.searchsorted(array.run_ends.to_numpy(), rows, side="right")
    first, last = (int(runs[0]), int(runs[-1]) + 1) if len(runs) else (0, 0)
    return _plain(array.values.slice(first, last - first), wanted, kinds).take(pa.array(runs - first))


def _list_views(array: pa.Array, wanted: pa.DataType, kinds: Collection[str]) -> pa.Array:
    """Lists, in the order of their rows."""
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    offsets = array.offsets.to_numpy().astype(np.int64)
    sizes = np.where(valid, array.sizes.to_numpy(), 0).astype(np.int64)
    used = sizes > 0
    low = int(offsets[used].min()) if used.any() else 0
    high = int((offsets + sizes)[used].max()) if used.any() else 0
    ends = np.zeros(len(array) + 1, np.int64)
    np.cumsum(sizes, out=ends[1:])
    item_type = wanted.value_type
    items = _plain(array.values.slice(low, high - low), item_type, kinds)
    places = np.repeat(offsets - low - ends[:-1], sizes) + np.arange(ends[-1])
    if len(places) != len(items) or (places != np.arange(len(places))).any():
        items = items.take(pa.array(places))
    if not types.is_large_list(wanted):  # views were not to be hydrated, but what is in them
        width = np.int64 if types.is_large_list_view(wanted) else np.int32
        starts, counts = (pa.py_buffer(part.astype(width)) for part in (ends[:-1], sizes))
        return pa.Array.from_buffers(
            wanted, len(array), [_bits(array), starts, counts], array.null_count, 0, [items]
        )
    return pa.Array.from_buffers(
        wanted, len(array), [_bits(array), pa.py_buffer(ends)], array.null_count, 0, [items]
    )


def _lists(array: pa.Array, wanted: pa.DataType, kinds: Collection[str]) -> pa.Array:
    offsets = array.offsets.to_numpy()
    first, count = int(offsets[0]), int(offsets[-1] - offsets[0])
    if types.is_map(wanted):
        child = _entries(array, wanted, first, count, kinds)
    else:
        child = _plain(array.values.slice(first, count), wanted.value_type, kinds)
    buffers = [_bits(array), pa.py_buffer(offsets - offsets[0])]
    return pa.Array.from_buffers(wanted, len(array), buffers, array.null_count, 0, [child])


def _entries(
    array: pa.MapArray, wanted: pa.DataType, first: int, count: int, kinds: Collection[str]
) -> pa.Array:
    keys = _plain(array.keys.slice(first, count), wanted.key_type, kinds)
    items = _plain(array.items.slice(first, count), wanted.item_type, kinds)
    if keys.null_count:
        raise pa.ArrowInvalid("a key is null")
    return pa.Array.from_buffers(
        pa.struct([wanted.key_field, wanted.item_field]), count, [None], 0, 0, [keys, items]
    )


def _fixed_lists(array: pa.Array, wanted: pa.DataType, kinds: Collection[str]) -> pa.Array:
    size = wanted.list_size
    child = _plain(array.values.slice(array.offset * size, len(array) * size), wanted.value_type, kinds)
    return pa.Array.from_buffers(wanted, len(array), [_bits(array)], array.null_count, 0, [child])


def _structs(array: pa.Array, wanted: pa.DataType, kinds: Collection[str]) -> pa.Array:
    children = [
        _plain(array.field(index), wanted.field(index).type, kinds) for index in range(wanted.num_fields)
    ]
    return pa.Array.from_buffers(wanted, len(array), [_bits(array)], array.null_count, 0, children)


def _unions(array: pa.Array, wanted: pa.DataType, kinds: Collection[str]) -> pa.Array:
    children = [
        _plain(array.field(index), wanted.field(index).type, kinds) for index in range(wanted.num_fields)
    ]
    _, codes, *offsets = array.buffers()[: 2 if wanted.mode == "sparse" else 3]
    start, rows = array.offset, len(array)
    buffers: list[Any] = [
        None,
        codes.slice(start, rows),
        *(one.slice(4 * start, 4 * rows) for one in offsets),
    ]
    return pa.Array.from_buffers(wanted, len(array), buffers, 0, 0, children)


def _bits(array: pa.Array) -> pa.Buffer | None:
    """Which rows are valid, from the first on."""
    if not array.null_count:
        return None
    return pa.array(array.is_valid().to_numpy(zero_copy_only=False)).buffers()[1]


_NESTED = {
    lib.Type_LIST: _lists,
    lib.Type_LARGE_LIST: _lists,
    lib.Type_MAP: _lists,
    lib.Type_FIXED_SIZE_LIST: _fixed_lists,
    lib.Type_STRUCT: _structs,
    lib.Type_SPARSE_UNION: _unions,
    lib.Type_DENSE_UNION: _unions,
}
