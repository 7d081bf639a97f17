"""Slices on their way into the store: values of list views and dictionaries that no row refers to are left
out.

Arrow's writer cuts slices of all other types to their rows by itself (views: objects.views). May call
objects.capture and schemas. Equality holds: a compacted column has the same values and the same type.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from flightstore.objects.capture import referenced_bytes
from flightstore.objects.schemas import is_view, nested_types, storage

__all__ = ["compact_table"]

_SLACK_ENTRIES = 32
_SLACK_BYTES = 4096


def compact_table(table: pa.Table, *, dictionaries: bool) -> pa.Table:
    """The table without unused values of list views and, if asked, of dictionaries; itself if there are few.

    Args:
        table: Any table.
        dictionaries: Whether dictionaries may lose entries; a frame library's categories may not.
    """
    for index, field in enumerate(table.schema):
        if not any(_can_waste(kind) for kind in nested_types(field.type)):
            continue
        column = table.column(index)
        chunks = [_compacted(chunk, dictionaries) for chunk in column.chunks]
        if any(new is not old for new, old in zip(chunks, column.chunks, strict=True)):
            table = table.set_column(index, field, pa.chunked_array(chunks, field.type))
    return table


def _can_waste(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) or _is_list_view(kind)


def _is_list_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_map(kind))


def _compacted(array: pa.Array, dictionaries: bool) -> pa.Array:
    if isinstance(array.type, pa.BaseExtensionType):
        inner = _compacted(array.storage, dictionaries)
        return array if inner is array.storage else pa.ExtensionArray.from_storage(array.type, inner)
    if not _wastes(array, dictionaries):
        return array
    # Concatenation puts every level at offset 0 and takes only the range of values that lists refer to.
    return _rebuilt(pa.concat_arrays([array]), dictionaries)


def _wastes(array: pa.Array, dictionaries: bool) -> bool:
    """Whether something in the array, at any depth, holds many more values than its rows refer to."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _wastes(array.storage, dictionaries)
    if pa.types.is_dictionary(kind):
        return dictionaries and _unused(array) is not None
    if _is_list_view(kind):
        low, high = _range_used(array)
        return len(array.values) > high - low + _SLACK_ENTRIES or _wastes(array.values, dictionaries)
    if pa.types.is_struct(kind):
        return any(_wastes(array.field(index), dictionaries) for index in range(kind.num_fields))
    if _is_list(kind) and len(array):
        first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return _wastes(array.values.slice(first, last - first), dictionaries)
    return False


def _range_used(array: pa.Array) -> tuple[int, int]:
    """The range of values that the valid rows of a list view refer to."""
    offsets, sizes = array.offsets.to_numpy(), array.sizes.to_numpy()
    used = sizes > 0
    if array.null_count:
        used &= array.is_valid().to_numpy(zero_copy_only=False)
    if not used.any():
        return 0, 0
    return int(offsets[used].min()), int((offsets[used] + sizes[used]).max())


def _unused(array: pa.Array) -> np.ndarray[Any, Any] | None:
    """The entries of a dictionary that are used, ascending; None when leaving the others out saves little."""
    values = array.dictionary
    if len(values) <= len(array) or referenced_bytes(values) <= array.indices.nbytes + _SLACK_BYTES:
        return None
    used = np.sort(array.indices.drop_null().unique().to_numpy(zero_copy_only=False))
    return used if len(used) + len(values) // 4 < len(values) else None


def _rebuilt(array: pa.Array, dictionaries: bool) -> pa.Array:
    """An array at offset 0 with its dictionaries compacted, at any depth."""
    kind = storage(array.type)
    if pa.types.is_dictionary(kind):
        used = _unused(array) if dictionaries else None
        return array if used is None else _with_entries(array, used)
    if pa.types.is_struct(kind):
        children = [_rebuilt(array.field(index), dictionaries) for index in range(kind.num_fields)]
        return _with_children(array, children, 1)
    if _is_list(kind):
        return _with_children(array, [_rebuilt(array.values, dictionaries)], 2)
    return array


def _with_children(array: pa.Array, children: list[pa.Array], own_buffers: int) -> pa.Array:
    buffers = array.buffers()[:own_buffers]
    return pa.Array.from_buffers(array.type, len(array), buffers, array.null_count, 0, children)


def _with_entries(array: pa.DictionaryArray, used: np.ndarray[Any, Any]) -> pa.Array:
    """The same values over a dictionary of the entries `used` only, in their old order; itself where Arrow
    cannot make that.
    """
    values = _taken(array.dictionary, used)
    if values is None:
        return array
    indices = array.indices
    places = np.zeros(len(array.dictionary), np.int64)
    places[used] = np.arange(len(used))
    raw = indices.fill_null(0).to_numpy(zero_copy_only=False)
    if indices.null_count:  # whatever stands in a null row may be no index at all
        raw = np.where(indices.is_valid().to_numpy(zero_copy_only=False), raw, used[0] if len(used) else 0)
    fresh = places[raw] if len(used) else np.zeros(len(raw), np.int64)
    mask = indices.is_null().to_numpy(zero_copy_only=False) if indices.null_count else None
    new = pa.array(fresh, type=indices.type, mask=mask)
    return pa.DictionaryArray.from_arrays(new, values, ordered=array.type.ordered)


def _taken(values: pa.Array, chosen: np.ndarray[Any, Any]) -> pa.Array | None:
    """Some of the values; None for nested types with views, of which Arrow takes none."""
    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    if is_view(values.type):
        return values.cast(plain[values.type]).take(pa.array(chosen)).cast(values.type)
    try:
        return values.take(pa.array(chosen))
    except pa.ArrowNotImplementedError:
        return None
