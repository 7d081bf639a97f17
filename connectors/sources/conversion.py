"""Which Arrow types a file format holds, and casting a table to them before it is written.

A format's rule says for each plain type what it is written as: itself, a wider type that loses nothing, or
None where the format has nothing like it. Lists, structs and maps are walked through. Whatever a rule does
not allow is refused by column and type, before anything is written. Calls pyarrow only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flightstore.errors import InvalidArgument

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["HINT", "RULES", "Rule", "converted"]

HINT = "choose another format with --format (arrow and arrows hold every type)"


@dataclass(frozen=True, slots=True)
class Rule:
    """What one format holds."""

    plain: Callable[[Any], Any]
    """A type that is neither nested nor encoded -> the type it is written as, None if it cannot be."""
    nested: frozenset[str] = frozenset()
    """Which nested types it has: ``list``, ``fixed``, ``struct``, ``map``.

    ``records`` instead of ``map`` writes maps as lists of records of key and value.
    """
    extensions: bool = False
    """Whether extension types stay what they are; otherwise their storage is written."""
    encoded: bool = False
    """Whether dictionaries stay what they are; otherwise their values are written."""
    list_views: bool = False
    """Whether list views stay what they are; otherwise lists are written, where they are whole columns."""


def converted(table: pa.Table, file_format: str) -> pa.Table:
    """The table with each column of the type that the format writes it as.

    Raises:
        InvalidArgument: the format cannot hold a column, or not one of its values; names the column.
    """
    import pyarrow as pa

    rule = RULES.get(file_format)
    if rule is None:
        return table
    table = _plain_layout(table, rule)
    for index, field in enumerate(table.schema):
        target = _target(field.type, rule)
        if target is None:
            message = f"column {field.name!r} ({field.type}) cannot be written as {file_format}"
            raise InvalidArgument(message, hint=HINT)
        if target == field.type:
            continue
        try:
            column = table.column(index).cast(target)
        except pa.ArrowException as error:
            message = f"column {field.name!r} ({field.type}) cannot be written as {file_format}: {error}"
            raise InvalidArgument(message, hint=HINT) from error
        table = table.set_column(index, field.with_type(target), column)
    return table


def _plain_layout(table: pa.Table, rule: Rule) -> pa.Table:
    """The table with columns of run-ends and of list views written out: Arrow's cast does neither right."""
    import pyarrow as pa
    from pyarrow.compute import call_function

    for index, field in enumerate(table.schema):
        column = table.column(index)
        if pa.types.is_run_end_encoded(field.type):
            try:
                column = call_function("run_end_decode", [column])
            except pa.ArrowException as error:
                message = f"column {field.name!r} ({field.type}) cannot be written out: {error}"
                raise InvalidArgument(message, hint=HINT) from error
        elif _is_list_view(field.type) and not rule.list_views:
            column = pa.chunked_array([_listed(chunk) for chunk in column.chunks], _list_type(field.type))
        else:
            continue
        table = table.set_column(index, field.with_type(column.type), column)
    return table


def _is_list_view(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def _list_type(kind: Any) -> pa.DataType:
    import pyarrow as pa

    make = pa.large_list if pa.types.is_large_list_view(kind) else pa.list_
    return make(kind.value_field)


def _listed(array: Any) -> pa.Array:
    """An array of list views as one of lists."""
    import numpy as np
    import pyarrow as pa
    from pyarrow.compute import call_function

    lengths = call_function("list_value_length", [array]).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    kind = _list_type(array.type)
    large = pa.types.is_large_list(kind)
    make = pa.LargeListArray if large else pa.ListArray
    ends = pa.array(offsets, pa.int64() if large else pa.int32())
    return make.from_arrays(ends, array.flatten(), type=kind, mask=array.is_null())


def _target(kind: pa.DataType, rule: Rule) -> Any:
    """The type that a type is written as; None where a part of it cannot be."""
    import pyarrow as pa

    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        # Arrow's Parquet reader aborts the process on an extension of dictionaries.
        keeps = rule.extensions and not types.is_dictionary(kind.storage_type)
        return kind if keeps else _target(kind.storage_type, rule)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        if rule.encoded:
            return kind
        return _target(kind.value_type, rule)
    if types.is_union(kind):
        return None
    if types.is_struct(kind):
        return _struct_target(kind, rule)
    if types.is_map(kind):
        key, item = _target(kind.key_type, rule), _target(kind.item_type, rule)
        if key is None or item is None or not rule.nested & {"map", "records"}:
            return None
        if "map" in rule.nested:
            return pa.map_(key, item)
        return pa.list_(pa.struct([pa.field("key", key), pa.field("value", item)]))
    if types.is_nested(kind):
        return _list_target(kind, rule)
    return rule.plain(kind)


def _struct_target(kind: pa.StructType, rule: Rule) -> Any:
    import pyarrow as pa

    fields = [kind.field(i) for i in range(kind.num_fields)]
    targets = [_target(field.type, rule) for field in fields]
    if "struct" not in rule.nested or None in targets:
        return None
    return pa.struct([field.with_type(target) for field, target in zip(fields, targets, strict=True)])


def _list_target(kind: Any, rule: Rule) -> Any:
    import pyarrow as pa

    item = _target(kind.value_type, rule)
    if item is None or "list" not in rule.nested:
        return None
    if _is_list_view(kind):
        return kind if rule.list_views and item == kind.value_type else None
    field = kind.value_field.with_type(item)
    if pa.types.is_fixed_size_list(kind) and "fixed" in rule.nested:
        if not kind.list_size and rule.list_views:
            return None  # Parquet files of such lists can be written, not read
        return pa.list_(field, kind.list_size)
    return pa.large_list(field) if pa.types.is_large_list(kind) else pa.list_(field)


def _without_views(kind: pa.DataType) -> pa.DataType:
    """Text and bytes in the layout that every writer knows."""
    import pyarrow as pa

    if pa.types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(kind) else kind


def _csv(kind: pa.DataType) -> Any:
    import pyarrow as pa

    return None if pa.types.is_interval(kind) else _without_views(_wide_decimal(kind))


def _json(kind: pa.DataType) -> Any:
    """Times and decimals become text: Python's datetime would lose nanoseconds."""
    import pyarrow as pa

    types = pa.types
    if types.is_timestamp(kind) or types.is_time(kind) or types.is_decimal(kind):
        return pa.string()
    return pa.int64() if types.is_duration(kind) else kind


def _orc(kind: pa.DataType) -> Any:
    import pyarrow as pa

    types = pa.types
    if types.is_time(kind) or types.is_duration(kind) or types.is_interval(kind):
        return None
    if types.is_decimal(kind):
        return pa.decimal128(kind.precision, kind.scale) if kind.precision <= 38 else None
    return _without_views(_signed(kind))


def _avro(kind: pa.DataType) -> Any:
    """Of the times, Avro as polars writes it has days, and moments without a zone to the microsecond."""
    import pyarrow as pa

    types = pa.types
    if types.is_timestamp(kind):
        return pa.timestamp("us" if kind.unit == "ns" else kind.unit) if kind.tz is None else None
    if types.is_int8(kind) or types.is_int16(kind):
        return pa.int32()
    target = _orc(kind)
    return pa.int32() if target == pa.int16() else target


def _xlsx(kind: pa.DataType) -> Any:
    """Moments are exact to the millisecond, decimals are floats."""
    import pyarrow as pa

    types = pa.types
    if types.is_timestamp(kind):
        return pa.timestamp("ms") if kind.tz is None else None
    if types.is_decimal(kind):
        return pa.float64()
    plain = types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_date(kind)
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    return _without_views(_signed(kind)) if plain or text or types.is_null(kind) else None


def _signed(kind: pa.DataType) -> pa.DataType:
    """A type without what only Arrow and few others have: unsigned numbers, half floats, nulls by themselves.

    Numbers beyond 2^63 do not fit; the cast says so.
    """
    import pyarrow as pa

    wider: Mapping[Any, Any] = {
        pa.uint8(): pa.int16(),
        pa.uint16(): pa.int32(),
        pa.uint32(): pa.int64(),
        pa.uint64(): pa.int64(),
        pa.float16(): pa.float32(),
        pa.date64(): pa.date32(),
        pa.null(): pa.string(),
    }
    return wider.get(kind, kind)


def _wide_decimal(kind: pa.DataType) -> pa.DataType:
    """Decimals in the width that every writer knows."""
    import pyarrow as pa

    narrow = pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind)
    return pa.decimal128(kind.precision, kind.scale) if narrow else kind


_ALL_NESTED = frozenset({"list", "fixed", "struct", "map"})
_RECORDS = frozenset({"list", "fixed", "struct", "records"})

RULES: Mapping[str, Rule] = {
    "csv": Rule(_csv),
    "tsv": Rule(_csv),
    "json": Rule(_json, _RECORDS, extensions=True),
    "jsonl": Rule(_json, _RECORDS, extensions=True),
    "parquet": Rule(lambda kind: kind, _ALL_NESTED, extensions=True, encoded=True, list_views=True),
    "orc": Rule(_orc, _ALL_NESTED),
    "avro": Rule(_avro, frozenset({"list", "struct"})),
    "xlsx": Rule(_xlsx),
}
"""Rules of the formats that do not hold every type, by the format's name."""
