"""Tables for clients that do not read all of Arrow's types: dictionaries, run-end encoding and views become
plain values, at any depth.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from flightstore.errors import InvalidArgument, NotConvertible

__all__ = ["KINDS", "hydrated", "plain_type"]

DICTIONARY, RUN_END, VIEW = KINDS = ("dictionary", "run_end", "view")
"""What can be asked for."""


def hydrated(table: pa.Table, kinds: Collection[str]) -> pa.Table:
    """The table with columns of these kinds as plain ones; itself if it has none of them.

    Raises:
        InvalidArgument: there is no such kind.
        NotConvertible: Arrow cannot convert a column; names it and its type.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise InvalidArgument(f"hydrate: {unknown[0]!r}", hint=f"there are {', '.join(KINDS)}")
    for index, field in enumerate(table.schema):
        wanted = plain_type(field.type, kinds)
        if wanted == field.type:
            continue
        column = table.column(index)
        try:
            chunks = [_plain(chunk, wanted, kinds) for chunk in column.chunks]
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise NotConvertible(
                f"column {field.name!r} of type {field.type} cannot be sent as {wanted}: {error}",
                hint="leave the column out, or do not ask for hydration",
            ) from error
        table = table.set_column(index, field.with_type(wanted), pa.chunked_array(chunks, wanted))
    return table


def plain_type(kind: pa.DataType, kinds: Collection[str]) -> pa.DataType:
    """What a type becomes."""
    types = pa.types
    if types.is_dictionary(kind) and DICTIONARY in kinds:
        return plain_type(kind.value_type, kinds)
    if types.is_run_end_encoded(kind) and RUN_END in kinds:
        return plain_type(kind.value_type, kinds)
    if VIEW in kinds:
        if types.is_string_view(kind):
            return pa.large_string()
        if types.is_binary_view(kind):
            return pa.large_binary()
        if types.is_list_view(kind) or types.is_large_list_view(kind):
            return pa.large_list(_plain_field(kind.value_field, kinds))
    return _of_plain_children(kind, kinds)


def _plain_field(field: pa.Field, kinds: Collection[str]) -> pa.Field:
    return field.with_type(plain_type(field.type, kinds))


def _of_plain_children(kind: pa.DataType, kinds: Collection[str]) -> pa.DataType:
    types = pa.types
    if types.is_list(kind):
        return pa.list_(_plain_field(kind.value_field, kinds))
    if types.is_large_list(kind):
        return pa.large_list(_plain_field(kind.value_field, kinds))
    if types.is_fixed_size_list(kind):
        return pa.list_(_plain_field(kind.value_field, kinds), kind.list_size)
    if types.is_struct(kind):
        return pa.struct([_plain_field(kind.field(index), kinds) for index in range(kind.num_fields)])
    if types.is_map(kind):
        key, item = _plain_field(kind.key_field, kinds), _plain_field(kind.item_field, kinds)
        return pa.map_(key, item, keys_sorted=kind.keys_sorted)
    return kind


def _plain(array: pa.Array, wanted: pa.DataType, kinds: Collection[str]) -> pa.Array:
    """An array as the type that plain_type says."""
    kind, types = array.type, pa.types
    if kind == wanted:
        return array
    if types.is_dictionary(kind) and DICTIONARY in kinds:
        values = _plain(array.dictionary, wanted, kinds)
        return values.take(array.indices)
    if types.is_run_end_encoded(kind) and RUN_END in kinds:
        return _plain(pa.compute.run_end_decode(array), wanted, kinds)
    if types.is_nested(kind):
        return _with_plain_children(array, wanted, kinds)
    return array.cast(wanted)


def _with_plain_children(array: pa.Array, wanted: pa.DataType, kinds: Collection[str]) -> pa.Array:
    kind, types = array.type, pa.types
    array = pa.concat_arrays([array])  # at offset 0, at every level
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        in_order = pa.large_list(kind.value_field)
        return _plain(array.cast(in_order), wanted, kinds)
    own = 1 if types.is_struct(kind) or types.is_fixed_size_list(kind) else 2
    if types.is_struct(kind):
        children = [array.field(index) for index in range(kind.num_fields)]
    elif types.is_map(kind):
        children = [_entries(array)]
    else:
        children = [array.values]
    plain = [_plain(child, wanted.field(index).type, kinds) for index, child in enumerate(children)]
    return pa.Array.from_buffers(wanted, len(array), array.buffers()[:own], array.null_count, 0, plain)


def _entries(array: pa.MapArray) -> pa.Array:
    kind = array.type
    fields = [kind.key_field, kind.item_field]
    return pa.StructArray.from_arrays([array.keys, array.items], fields=fields)
