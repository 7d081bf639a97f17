"""From files to a plan: which columns there are, and which units hold their rows.

Files of one table may differ: a column that one of them lacks is null there, numbers are as wide as the
widest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from flightstore.connectors.sources.columnar import COLUMNAR, open_columnar, scanned
from flightstore.connectors.sources.formats import FORMATS, detect_format, format_for, format_of
from flightstore.connectors.sources.places import Place
from flightstore.connectors.sources.text import Text, ignore
from flightstore.connectors.sources.units import Advance, Plan, Unit, conformed, unreadable
from flightstore.connectors.sources.whole import open_whole
from flightstore.errors import InvalidArgument

__all__ = ["Planner", "dataset_plan", "known_format"]

_TEXTS = ("csv", "tsv", "jsonl")


def known_format(given: str | None, path: str) -> str:
    """The format's own name: that of `given`, or of the file's extension.

    Raises:
        InvalidArgument: there is no such format, or the extension tells none.
    """
    if given is None:
        return format_for(path)
    text = given.lower().removeprefix(".")
    found = text if text in FORMATS else detect_format(f"x.{text}")
    if found is None and text in ("feather", "ipc"):
        found = "arrow"
    if found is None or format_of(found).holds != "table":
        known = ", ".join(one.name for one in FORMATS.values() if one.holds == "table")
        raise InvalidArgument(f"{given!r} is no format of tables", hint=f"take one of {known}")
    return found


class Planner:
    """Makes plans for some files; text is planned anew when more is known about it."""

    def __init__(
        self,
        places: Sequence[Place],
        file_format: str | None,
        *,
        columns: Sequence[str] | None = None,
        wanted: Any = None,
        partitions: Any = None,
        options: dict[str, Any] | None = None,
        advance: Advance = ignore,
    ) -> None:
        self._places = places
        self._formats = [known_format(file_format, place.path or place.label) for place in places]
        self._columns = list(columns) if columns is not None else None
        self._wanted = wanted
        self._partitions = partitions
        self._options = options or {}
        self._advance = advance
        self._texts: dict[int, Text] = {}
        self._opened: dict[int, Any] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(place.nbytes for place in self._places)

    def plan(self) -> Plan:
        """Look at all files.

        Raises:
            FileUnreadable: one is not in its format, or does not go with the others; names it.
            InvalidArgument: there is no such column or option.
            Again: a text is to be looked at again.
        """
        opened = [self._open(index) for index in range(len(self._places))]
        kinds = self._key_types()
        whole = self._whole_schema([schema for schema, _ in opened], kinds)
        schema = whole if self._columns is None else _selected(whole, self._columns)
        units: list[Unit] = []
        for index, (own, units_of) in enumerate(opened):
            keys = {name: _key(self._places[index].keys.get(name), kind) for name, kind in kinds.items()}
            units += self._units(index, own, units_of, whole, schema, keys)
        return Plan(schema, units)

    def _open(self, index: int) -> Any:
        place, file_format = self._places[index], self._formats[index]
        name = format_of(file_format).name
        if name in _TEXTS:
            if index not in self._texts:
                self._texts[index] = Text(place, file_format, self._options)
            return self._texts[index].open()
        if index not in self._opened:
            if name in COLUMNAR:
                self._opened[index] = open_columnar(place, name, self._options)
            else:
                self._opened[index] = open_whole(place, file_format, self._options, self._advance)
        return self._opened[index]

    def _key_types(self) -> dict[str, pa.DataType]:
        """The columns that directories give, and their types: whole numbers, or text."""
        if self._partitions is False:
            return {}
        names = list(dict.fromkeys(name for place in self._places for name in place.keys))
        given = {field.name: field.type for field in self._partitions} if self._partitions else {}
        kinds = {}
        for name in names:
            values = [place.keys.get(name) for place in self._places]
            kinds[name] = given.get(name) or (pa.int64() if all(map(_is_whole, values)) else pa.string())
        return kinds

    def _whole_schema(self, schemas: list[pa.Schema], kinds: dict[str, pa.DataType]) -> pa.Schema:
        whole = schemas[0]
        for place, schema in zip(self._places[1:], schemas[1:], strict=True):
            if schema.equals(whole):
                continue
            try:
                whole = pa.unify_schemas([whole, schema], promote_options="permissive")
            except (pa.ArrowException, ValueError, TypeError) as error:
                raise unreadable(
                    place.label, f"a part of one table with {self._places[0].label}", error
                ) from error
        fields = [field for field in whole if field.name not in kinds]
        if not kinds:
            return whole
        return pa.schema([*fields, *[pa.field(name, kind) for name, kind in kinds.items()]], whole.metadata)

    def _units(
        self,
        index: int,
        own: pa.Schema,
        units_of: Any,
        whole: pa.Schema,
        schema: pa.Schema,
        keys: dict[str, Any],
    ) -> list[Unit]:
        place, name = self._places[index], self._formats[index]
        wanted = self._wanted
        if wanted is None:
            columns = None if self._columns is None else [one for one in self._columns if one in own.names]
            found = units_of(columns or None if own.names else None)
            return [_changed(unit, schema, keys, None, None) for unit in found]
        if name in ("parquet", "orc") and place.filesystem is not None and not self._options:
            return [
                _changed(unit, schema, {}, None, None) for unit in scanned(name, place, whole, keys, wanted)
            ]
        return [_changed(unit, schema, keys, wanted, whole) for unit in units_of(None)]


def _changed(
    unit: Unit, schema: pa.Schema, keys: dict[str, Any], wanted: Any, whole: pa.Schema | None
) -> Unit:
    """The unit with the whole table's columns, and the rows that are wanted."""

    def batches(advance: Advance) -> Any:
        found = unit.batches(advance)
        if wanted is not None:
            assert whole is not None
            found = (
                batch
                for one in conformed(found, whole, keys)
                for batch in pa.Table.from_batches([one]).filter(wanted).to_batches()
            )
            return conformed(found, schema, {})
        return conformed(found, schema, {name: value for name, value in keys.items() if name in schema.names})

    return Unit(unit.label, unit.file_format, unit.nbytes, batches)


def dataset_plan(dataset: Any, columns: Sequence[str] | None, wanted: Any) -> Plan:
    """The plan of a pyarrow dataset: Arrow reads its fragments, Parquet by row groups.

    Raises:
        InvalidArgument: there is no such column.
    """
    whole = dataset.schema
    schema = whole if columns is None else _selected(whole, list(columns))
    pieces: list[Any] = []
    for fragment in dataset.get_fragments(wanted):
        by_groups = getattr(fragment, "split_by_row_group", None)
        pieces += by_groups(wanted, whole) if by_groups is not None else [fragment]

    def unit(piece: Any) -> Unit:
        groups = getattr(piece, "row_groups", None) or []
        nbytes = sum(group.total_byte_size for group in groups)
        where = f", row group {groups[0].id}" if groups else ""

        def batches(advance: Advance) -> Iterator[pa.RecordBatch]:
            scanner = piece.scanner(
                whole, columns=schema.names, filter=wanted, use_threads=False, batch_readahead=1
            )
            yield from conformed(scanner.to_batches(), schema, {})
            advance(nbytes)

        label = str(getattr(piece, "path", "") or "a fragment of the dataset")
        return Unit(f"{label}{where}", "a dataset", nbytes, batches)

    return Plan(schema, [unit(piece) for piece in pieces])


def _selected(schema: pa.Schema, columns: list[str]) -> pa.Schema:
    for name in columns:
        count = schema.names.count(name) if isinstance(name, str) else 0
        if count != 1 or columns.count(name) > 1:
            problem = (
                "is named twice"
                if columns.count(name) > 1
                else "no column is"
                if not count
                else "two columns are"
            )
            shown = ", ".join(schema.names[:20]) + (", ..." if len(schema.names) > 20 else "")
            raise InvalidArgument(
                f"cannot take the column {name!r}: {problem} called so", hint=f"columns: {shown}"
            )
    return pa.schema([schema.field(name) for name in columns], schema.metadata)


def _is_whole(text: str | None) -> bool:
    return text is None or (text.removeprefix("-").isdecimal() and -(1 << 63) <= int(text) < 1 << 63)


def _key(text: str | None, kind: pa.DataType) -> Any:
    return None if text is None else pa.scalar(text).cast(kind).as_py()
