"""Arrow arrays changed to the types that `fitting` decided on. Values are kept, or ArrowInvalid is raised.

Only what must change is made anew: offsets, validity and children that fit are shared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

__all__ = ["convert"]


def convert(array: pa.Array, to: pa.DataType) -> pa.Array:
    """The array as `to`, which `fitting` made of its type.

    Raises:
        pyarrow.ArrowInvalid: a value does not fit.
    """
    return _converted(_converted(array, to), to)  # what the first pass cut out may be loose


def _converted(array: pa.Array, to: pa.DataType) -> pa.Array:
    kind = array.type
    if kind.equals(to, check_metadata=True) and not _is_loose(array):
        return array
    for check, change in _CHANGES:
        if check(kind):
            return change(array, to)
    return array.cast(to)


def _is_loose(array: pa.Array) -> bool:
    """Whether an array of arrays, at any depth, has more values than it shows: polars refuses it."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return _is_loose(array.storage)
    if types.is_fixed_size_list(kind):
        loose = array.offset or len(array.values) != len(array) * kind.list_size
        return bool(loose) or _is_loose(array.values)
    if types.is_struct(kind):
        return any(_is_loose(array.field(i)) for i in range(kind.num_fields))
    if types.is_map(kind):
        return _is_loose(array.keys) or _is_loose(array.items)
    return (types.is_list(kind) or types.is_large_list(kind)) and _is_loose(array.values)


def _extension(array: pa.Array, to: pa.DataType) -> pa.Array:
    if array.type != to:
        return _converted(array.storage, to)
    return pa.ExtensionArray.from_storage(to, _converted(array.storage, to.storage_type))


def _dictionary(array: pa.Array, to: pa.DataType) -> pa.Array:
    return _converted(array.dictionary, to).take(array.indices)


def _run_end_encoded(array: pa.Array, to: pa.DataType) -> pa.Array:
    rows = np.arange(array.offset, array.offset + len(array))
    runs = np.searchsorted(array.run_ends.to_numpy(zero_copy_only=False), rows, side="right")
    return _converted(array.values, to).take(pa.array(runs))


def _list(array: pa.Array, to: pa.DataType) -> pa.Array:
    buffers = array.buffers()[:2]
    children = [_converted(array.values, to.value_type)]
    return pa.Array.from_buffers(to, len(array), buffers, offset=array.offset, children=children)


def _list_view(array: pa.Array, to: pa.DataType) -> pa.Array:
    """The values in the order of the rows; shared if they lie so."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
    ends = np.zeros(len(array) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    starts = array.offsets.to_numpy(zero_copy_only=False)
    wanted = np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths)
    values = _converted(array.values, to.value_type)
    if len(wanted) and np.array_equal(wanted, np.arange(wanted[0], wanted[0] + len(wanted))):
        values = values.slice(wanted[0], len(wanted))
    else:
        values = values.take(pa.array(wanted))
    return pa.Array.from_buffers(to, len(array), [_validity(array), pa.py_buffer(ends)], children=[values])


def _fixed_size_list(array: pa.Array, to: pa.DataType) -> pa.Array:
    """With exactly the values of its rows."""
    width = array.type.list_size
    if not types.is_fixed_size_list(to):  # of width 0: empty lists
        offsets = pa.py_buffer(np.zeros(len(array) + 1, np.int64))
        children = [_converted(array.values.slice(0, 0), to.value_type)]
        return pa.Array.from_buffers(to, len(array), [_validity(array), offsets], children=children)
    values = array.values.slice(array.offset * width, len(array) * width)
    children = [_converted(values, to.value_type)]
    return pa.Array.from_buffers(to, len(array), [_validity(array)], children=children)


def _map(array: pa.Array, to: pa.DataType) -> pa.Array:
    keys, items = _converted(array.keys, to.key_type), _converted(array.items, to.item_type)
    if keys.null_count:  # behind an encoding that hid them; Arrow would abort the process
        raise pa.ArrowInvalid("a key of a map is null")
    entries = pa.StructArray.from_arrays([keys, items], fields=[to.key_field, to.item_field])
    buffers = array.buffers()[:2]
    return pa.Array.from_buffers(to, len(array), buffers, offset=array.offset, children=[entries])


def _struct(array: pa.Array, to: pa.DataType) -> pa.Array:
    if not to.num_fields:
        return array.cast(to)
    children = [_converted(array.field(i), to.field(i).type) for i in range(to.num_fields)]
    return pa.Array.from_buffers(to, len(array), [_validity(array)], children=children)


def _union(array: pa.Array, to: pa.DataType) -> pa.Array:
    """The type code, and each member where the code is its own, null elsewhere."""
    buffers, here = array.buffers(), slice(array.offset, array.offset + len(array))
    codes = np.frombuffer(buffers[1] or b"", np.int8)[here]
    is_dense = array.type.mode == "dense"
    rows = np.frombuffer(buffers[2] or b"", np.int32)[here] if is_dense else np.arange(len(array))
    children = [pa.array(codes)]
    for i, code in enumerate(array.type.type_codes):
        member = _converted(array.field(i), to.field(i + 1).type)
        children.append(member.take(pa.array(rows, mask=codes != code)))
    return pa.StructArray.from_arrays(children, fields=[to.field(i) for i in range(to.num_fields)])


def _interval(array: pa.Array, to: pa.DataType) -> pa.Array:
    layout = np.dtype([("months", "i4"), ("days", "i4"), ("nanoseconds", "i8")])
    raw = np.frombuffer(array.buffers()[1] or b"", layout)[array.offset : array.offset + len(array)]
    children = [pa.array(np.ascontiguousarray(raw[name])) for name in raw.dtype.names or ()]
    return pa.Array.from_buffers(to, len(array), [_validity(array)], children=children)


def _empty_binary(array: pa.Array, to: pa.DataType) -> pa.Array:
    offsets = pa.py_buffer(np.zeros(len(array) + 1, np.int64))
    return pa.Array.from_buffers(to, len(array), [_validity(array), offsets, pa.py_buffer(b"")])


def _decimal(array: pa.Array, to: pa.DataType) -> pa.Array:
    return array.cast(pa.string()).cast(to) if types.is_large_string(to) else array.cast(to)


def _validity(array: pa.Array) -> pa.Buffer | None:
    """The bitmap of valid rows, from bit 0 on."""
    if not array.null_count:
        return None
    return array.is_valid().buffers()[1]


def _is_view(kind: pa.DataType) -> bool:
    return bool(types.is_list_view(kind) or types.is_large_list_view(kind))


_Change: TypeAlias = Callable[[pa.Array, pa.DataType], pa.Array]
_CHANGES: tuple[tuple[Callable[[pa.DataType], bool], _Change], ...] = (
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _extension),
    (types.is_dictionary, _dictionary),
    (types.is_run_end_encoded, _run_end_encoded),
    (types.is_list, _list),
    (types.is_large_list, _list),
    (_is_view, _list_view),
    (types.is_fixed_size_list, _fixed_size_list),
    (types.is_map, _map),
    (types.is_struct, _struct),
    (types.is_union, _union),
    (types.is_interval, _interval),
    (types.is_decimal, _decimal),
    (lambda kind: types.is_fixed_size_binary(kind) and not kind.byte_width, _empty_binary),
)
