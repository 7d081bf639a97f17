"""Which Arrow types polars holds, and what becomes of the others: decided from the types alone.

Handing polars a type it does not know may panic, past every ``except Exception``, or change values silently
(seconds beyond the range of milliseconds become 0). So each field is judged here first, nested ones too, and
`converting` then changes the arrays as decided. Three verdicts:

- polars holds it, and so it is shared wherever its layout allows;
- polars has another type for the same values: changed in any case (seconds to milliseconds, times to
  nanoseconds, small decimals to 128 bits, a dictionary of dictionaries decoded);
- polars has none: NotConvertible, or, where the caller is not strict, the nearest type that keeps all values.

==========================  =====================================================
Arrow type                  where the caller is not strict
==========================  =====================================================
run-end encoded             decoded
list view                   list
decimal256                  Decimal if all values fit 38 digits, else String
union                       Struct: the type code, and a nullable field per member
month-day-nano interval     Struct of months, days, nanoseconds
time zone unknown to polars UTC, the same instants
same names in one struct    the later ones get a suffix: ``_2``
arrays of width 0, nested   List
==========================  =====================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

import pyarrow as pa
from pyarrow import types

from flightstore.connectors.polars.markers import EXTENSION_KEYS, is_sound, is_text_dictionary
from flightstore.errors import NotConvertible

__all__ = ["Judge", "has_extension", "is_held", "unique_names"]

DECIMAL_DIGITS = 38

_HELD = (
    types.is_null,
    types.is_boolean,
    types.is_integer,
    types.is_floating,
    types.is_string,
    types.is_large_string,
    types.is_string_view,
    types.is_binary,
    types.is_large_binary,
    types.is_binary_view,
    types.is_date,
)


def is_held(kind: pa.DataType) -> bool:
    """Whether polars takes a type as it is, whatever its values and metadata: so for most columns."""
    return not isinstance(kind, pa.BaseExtensionType) and _is_held(kind)  # some of those have no hash


@lru_cache(maxsize=4096)
def _is_held(kind: pa.DataType) -> bool:
    if any(check(kind) for check in _HELD):
        return True
    if types.is_timestamp(kind):
        return kind.tz in (None, "UTC") and kind.unit != "s"
    if types.is_duration(kind):
        return bool(kind.unit != "s")
    if types.is_time64(kind):
        return bool(kind.unit == "ns")
    if types.is_decimal128(kind):
        return bool(0 <= kind.scale <= kind.precision)
    if types.is_list(kind) or types.is_large_list(kind):
        return is_held(kind.value_type)
    if types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        names = [one.name for one in fields]
        return unique_names(names) == names and all(is_held(one.type) for one in fields)
    return False


def unique_names(names: Iterable[str]) -> list[str]:
    """The names, the later of two equal ones with a suffix, none with a NUL in it."""
    taken = set(names := [name.replace("\0", "\N{SYMBOL FOR NULL}") for name in names])
    seen: set[str] = set()
    found = []
    for name in names:
        new, count = name, 1
        while new in seen or (new != name and new in taken):
            count += 1
            new = f"{name}_{count}"
        seen.add(new)
        found.append(new)
    return found


@dataclass
class Judge:
    """Judges the fields of one column, and notes what changes."""

    strict: bool
    knows_zone: Callable[[str], bool]
    """Whether polars knows a time zone."""
    decimals_as_text: bool = False
    """Whether decimals of 256 bits become text: some do not fit 128."""
    notes: list[str] = field(default_factory=list)
    """What changes, in words."""
    narrows: bool = False
    """Whether a decimal may turn out not to fit its new type."""

    def field(self, given: pa.Field, path: str, *, taken: bool = False) -> pa.Field:
        """The field as polars is to get it.

        Args:
            given: The field.
            path: Its name with those of the fields around it, for messages.
            taken: Whether its values will be gathered by Arrow, which gathers neither views nor extension
                types.

        Raises:
            NotConvertible: polars has no such type.
        """
        metadata = self._metadata(given, path)
        found = given if metadata == given.metadata else given.with_metadata(metadata)
        if metadata and b"ARROW:extension:name" in metadata and _has_dictionary(given.type):
            left = {key: metadata[key] for key in metadata if key not in EXTENSION_KEYS}
            self.notes.append(f"{path}: polars has no extension type over a dictionary")
            found = given.with_metadata(left or None)
        return found.with_type(self.type(given.type, path, taken))

    def type(self, kind: pa.DataType, path: str, taken: bool = False) -> pa.DataType:
        """The type as polars is to get it; see `field`."""
        if any(check(kind) for check in _HELD):
            return _plain(kind) if taken else kind
        for check, rule in _RULES:
            if check(kind):
                found: pa.DataType = rule(self, kind, path, taken)
                return found
        return self._refuse(kind, path, "", None)

    def _metadata(self, given: pa.Field, path: str) -> dict[bytes, bytes] | None:
        metadata: dict[bytes, bytes] | None = given.metadata
        damaged = [key for key, value in (metadata or {}).items() if not is_sound(key, value, given.type)]
        if metadata is None or not damaged:
            return metadata
        if any(key in EXTENSION_KEYS for key in damaged):
            damaged += EXTENSION_KEYS
        self.notes.append(f"{path}: metadata that is damaged or no UTF-8 is left out")
        return {key: metadata[key] for key in metadata if key not in damaged} or None

    def _refuse(
        self, kind: pa.DataType, path: str, why: str, instead: pa.DataType | None, how: str = ""
    ) -> pa.DataType:
        """Raise, or take the type `instead` where the caller is not strict."""
        if instead is None or self.strict:
            remedy = "leave it out" if instead is None else "to_polars(strict=False) converts it"
            raise NotConvertible(
                f"column {path!r} is of type {kind}, which polars cannot hold{why}",
                hint=f"{remedy}{': ' + how if how else ''}; obj.to_arrow() holds everything",
            )
        return self._change(kind, path, instead, how)

    def _change(self, kind: pa.DataType, path: str, new: pa.DataType, how: str = "") -> pa.DataType:
        self.notes.append(f"{path}: {kind} becomes {how or new}")
        return new

    def _timestamp(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        unit, zone = kind.unit, kind.tz
        if zone and not self.knows_zone(zone):
            why = f": it does not know the time zone {zone!r}"
            zone = "UTC"
            kind = self._refuse(kind, path, why, pa.timestamp(unit, zone), "the same instants in UTC")
        return kind if unit != "s" else self._change(kind, path, pa.timestamp("ms", zone))

    def _duration(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        return kind if kind.unit != "s" else self._change(kind, path, pa.duration("ms"))

    def _time(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        return kind if kind == pa.time64("ns") else self._change(kind, path, pa.time64("ns"))

    def _decimal(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        scale = max(kind.scale, 0)
        digits = max(kind.precision - min(kind.scale, 0), scale)
        if types.is_decimal256(kind) or digits > DECIMAL_DIGITS:
            text = self.decimals_as_text or scale > DECIMAL_DIGITS
            new = pa.large_string() if text else pa.decimal128(DECIMAL_DIGITS, scale)
            how = "text, since 38 digits do not hold it" if text else ""
            self.narrows |= not text
            return self._refuse(kind, path, "", new, how)
        if types.is_decimal128(kind) and 0 <= kind.scale <= kind.precision:
            return kind
        return self._change(kind, path, pa.decimal128(digits, scale))

    def _binary(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        return kind if kind.byte_width else self._change(kind, path, pa.large_binary())

    def _interval(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        new = pa.struct([("months", pa.int32()), ("days", pa.int32()), ("nanoseconds", pa.int64())])
        return self._refuse(kind, path, "", new)

    def _encoded(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        self._refuse(kind, path, "", kind.value_type, "its values, decoded")
        return self.type(kind.value_type, path, taken=True)

    def _dictionary(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        values = kind.value_type
        if is_text_dictionary(kind):
            return kind
        new = self.type(values, path, taken=True)
        if is_held(values) and not taken and new.equals(values, check_metadata=True):
            return kind  # polars decodes it
        return self._change(kind, path, new, "its values, decoded")

    def _list(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        return _list_like(kind)(self.field(kind.value_field, f"{path}[]", taken=taken))

    def _view(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        self._refuse(kind, path, "", pa.large_list(kind.value_field), "a list")
        return pa.large_list(self.field(kind.value_field, f"{path}[]", taken=True))

    def _array(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        child = self.field(kind.value_field, f"{path}[]", taken=taken)
        if kind.list_size:
            return pa.list_(child, kind.list_size)
        why = " inside another, or of an extension type"
        return self._refuse(kind, path, why, pa.large_list(child), "an empty list")

    def _map(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        key = self.field(kind.key_field, f"{path}.key", taken=taken)
        return pa.map_(key, self.field(kind.item_field, f"{path}.value", taken=taken), kind.keys_sorted)

    def _struct(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        fields = [kind.field(i) for i in range(kind.num_fields)]
        names = unique_names([one.name for one in fields])
        if names != [one.name for one in fields]:
            new = pa.struct([one.with_name(name) for one, name in zip(fields, names, strict=True)])
            self._refuse(kind, path, ": two fields of one name, or a NUL in one", new, "fields are renamed")
        pairs = zip(fields, names, strict=True)
        return pa.struct([self.field(one.with_name(to), f"{path}.{to}", taken=taken) for one, to in pairs])

    def _union(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        members = [kind.field(i) for i in range(kind.num_fields)]
        names = unique_names(["type_code", *(one.name for one in members)])[1:]
        self._refuse(kind, path, "", pa.struct([]), "a struct of its members")
        pairs = zip(members, names, strict=True)
        fields = [self.field(one.with_name(to), f"{path}.{to}", taken=True) for one, to in pairs]
        return pa.struct([pa.field("type_code", pa.int8()), *(one.with_nullable(True) for one in fields)])

    def _extension(self, kind: pa.DataType, path: str, taken: bool) -> pa.DataType:
        storage = kind.storage_type
        new = self.type(storage, path, taken)
        serialized = getattr(kind, "__arrow_ext_serialize__", bytes)()
        same = new.equals(storage, check_metadata=True) and is_sound(b"", serialized, storage)
        if same and not taken and not _has_dictionary(storage) and not has_extension(storage):
            return kind
        return self._change(kind, path, new, f"{new}, not an extension type")


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type that Arrow gathers in place of a view."""
    if types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if types.is_binary_view(kind) else kind


def _list_like(kind: pa.DataType) -> Callable[[pa.Field], pa.DataType]:
    made: Callable[[pa.Field], pa.DataType] = pa.large_list if types.is_large_list(kind) else pa.list_
    return made


def _children(kind: pa.DataType) -> list[pa.DataType]:
    found = [kind.field(i).type for i in range(kind.num_fields)]
    if types.is_dictionary(kind):
        found.append(kind.value_type)
    return [*found, kind.storage_type] if isinstance(kind, pa.BaseExtensionType) else found


def _has_dictionary(kind: pa.DataType) -> bool:
    return types.is_dictionary(kind) or any(_has_dictionary(child) for child in _children(kind))


def has_extension(kind: pa.DataType) -> bool:
    """Whether an extension type occurs anywhere in a type."""
    return isinstance(kind, pa.BaseExtensionType) or any(has_extension(one) for one in _children(kind))


_Rule: TypeAlias = Callable[[Judge, pa.DataType, str, bool], pa.DataType]
_RULES: tuple[tuple[Callable[[pa.DataType], bool], _Rule], ...] = (
    (lambda kind: isinstance(kind, pa.BaseExtensionType), Judge._extension),
    (types.is_timestamp, Judge._timestamp),
    (types.is_duration, Judge._duration),
    (types.is_time, Judge._time),
    (types.is_decimal, Judge._decimal),
    (types.is_fixed_size_binary, Judge._binary),
    (types.is_interval, Judge._interval),
    (types.is_dictionary, Judge._dictionary),
    (types.is_list, Judge._list),
    (types.is_large_list, Judge._list),
    (types.is_fixed_size_list, Judge._array),
    (types.is_struct, Judge._struct),
    (types.is_map, Judge._map),
    (types.is_list_view, Judge._view),
    (types.is_large_list_view, Judge._view),
    (types.is_run_end_encoded, Judge._encoded),
    (types.is_union, Judge._union),
)
