"""Arrow arrays of views, written out: pandas does not know views throughout, and Arrow's own cast of list
views makes invalid arrays where they hold nulls. May call nothing else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["without_views"]


def without_views(column: pa.Array | pa.ChunkedArray, *, fixed: bool = False) -> Any:
    """The same values without views at any depth; the column itself where there are none.

    Args:
        column: Any column.
        fixed: Whether lists of fixed size are to become plain ones, too.
    """
    if not _has_views(column.type, fixed):
        return column
    if isinstance(column, pa.Array):
        return _written_out(column, fixed)
    chunks = [_written_out(chunk, fixed) for chunk in column.chunks]
    return pa.chunked_array(chunks or [_written_out(pa.nulls(0, column.type), fixed)])


def _is_view(kind: pa.DataType, fixed: bool) -> bool:
    types = pa.types
    tests = (types.is_string_view, types.is_binary_view, types.is_list_view, types.is_large_list_view)
    return any(test(kind) for test in tests) or (fixed and bool(types.is_fixed_size_list(kind)))


def _has_views(kind: pa.DataType, fixed: bool) -> bool:
    if isinstance(kind, pa.BaseExtensionType) or pa.types.is_union(kind) or pa.types.is_run_end_encoded(kind):
        return False
    if pa.types.is_dictionary(kind):
        return _has_views(kind.value_type, fixed)
    inner = (kind.field(place).type for place in range(kind.num_fields))
    return _is_view(kind, fixed) or any(_has_views(part, fixed) for part in inner)


def _written_out(array: pa.Array, fixed: bool) -> Any:
    kind, types = array.type, pa.types
    if not _has_views(kind, fixed):
        return array
    if types.is_string_view(kind):
        return array.cast(pa.large_string())
    if types.is_binary_view(kind):
        return array.cast(pa.large_binary())
    if types.is_dictionary(kind):
        values = _written_out(array.dictionary, fixed)
        return pa.DictionaryArray.from_arrays(array.indices, values, ordered=kind.ordered)
    if array.offset:
        array = pa.concat_arrays([array])
    mask = array.is_null() if array.null_count else None
    if types.is_struct(kind):
        children = [_written_out(array.field(place), fixed) for place in range(kind.num_fields)]
        return pa.StructArray.from_arrays(children, [field.name for field in kind], mask=mask)
    if types.is_map(kind):
        keys, items = _written_out(array.keys, fixed), _written_out(array.items, fixed)
        return pa.MapArray.from_arrays(array.offsets, keys, items, mask=mask)
    return _lists(array, mask, fixed)


def _lists(array: pa.Array, mask: pa.Array | None, fixed: bool) -> Any:
    """Lists of any layout as plain ones, which hold the values of their rows only, in order."""
    kind = array.type
    if pa.types.is_fixed_size_list(kind):
        lengths = np.full(len(array), kind.list_size, np.int64)
        if not fixed:
            return pa.FixedSizeListArray.from_arrays(
                _written_out(array.values, fixed), kind.list_size, mask=mask
            )
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = np.diff(array.offsets.to_numpy()).astype(np.int64)
    else:
        lengths = array.sizes.to_numpy().astype(np.int64)
    if mask is not None:
        lengths = np.where(mask.to_numpy(zero_copy_only=False), 0, lengths)
    is_large = pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind)
    made, offset = (pa.LargeListArray, np.int64) if is_large else (pa.ListArray, np.int32)
    offsets = np.append(0, np.cumsum(lengths)).astype(offset)
    return made.from_arrays(pa.array(offsets), _written_out(array.flatten(), fixed), mask=mask)
