"""What the columns of a pandas object's table are: values or index levels, their facts and labels.

The schema's facts: ``kind`` (frame, series or index), ``rows``, ``index``, ``columns``, ``attrs``,
``unique_labels``. A field's facts: ``dtype`` and what belongs to it (`encode`), ``level`` in the index,
``label`` and the field's ``name`` when that was written: a field that has another name now was renamed, and
is called so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from flightstore.connectors._pandas.buffers import NUMPY_TYPES

__all__ = ["KEY", "Facts", "Layout", "known_layout", "make_layout", "read_layout", "value_columns"]

KEY = b"flightstore.pandas"
KNOWN_LAYOUTS = 16

Facts: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """What the columns of a table are. Nothing in it may be changed: it is kept for later."""

    whole: Facts
    """The schema's facts."""
    names: tuple[str, ...]
    """The names of the fields."""
    fields: tuple[Facts | None, ...]
    """The facts of each field."""
    levels: tuple[int, ...]
    """Positions of the index levels, outermost first."""
    values: tuple[int, ...]
    """Positions of all other columns."""
    dtypes: tuple[np.dtype[Any] | None, ...] = ()
    """For each field NumPy's dtype of the same bytes; None where there is none, or facts say otherwise."""
    doubtful: tuple[int, ...] = ()
    """Positions of columns that pandas may not be able to hold."""
    made: dict[str, Any] = field(default_factory=dict, compare=False)
    """What was worked out from all this, by those who need it."""

    @property
    def kind(self) -> str:
        """What the table is: a series with a second column is a frame."""
        kind: str = self.whole["kind"]
        expected = {"series": 1, "index": 0}.get(kind)
        return kind if expected in (None, len(self.values)) else "frame"

    def label(self, position: int) -> Any:
        """The label of a column, or the name of a level, as a literal."""
        name, facts = self.names[position], self.fields[position]
        if facts and facts.get("name") == name and (facts.get("of") != "series" or self._is_own(name)):
            return facts["label"]
        columns = self.whole.get("columns")
        if columns and columns["kind"] == "range" and position not in self.levels:
            return _number(name, columns["range"])
        return name

    def _is_own(self, name: str) -> bool:
        """Whether this is the series itself, not one that was added: that goes by the column's name."""
        return bool(self.whole.get("series") == name)

    def is_new(self, position: int, known: frozenset[str]) -> bool:
        """Whether a column is none of those that the columns' index was made for, or is called
        otherwise now.
        """
        name, facts = self.names[position], self.fields[position]
        return name not in known or (facts is not None and facts.get("name", name) != name)


def _number(name: str, extent: list[int]) -> int | str:
    """The number of a range that a name stands for; the name if none."""
    plain = name.isascii() and name.removeprefix("-").isdecimal()
    return int(name) if plain and int(name) in range(*extent) and str(int(name)) == name else name


def make_layout(whole: Facts, names: Iterable[str], fields: Iterable[Facts | None]) -> Layout:
    """The layout of a table whose facts are these."""
    fields = tuple(fields)
    levels: dict[int, int] = {}
    if whole["index"]["kind"] == "levels":
        for position, facts in enumerate(fields):
            if facts and "level" in facts:
                levels.setdefault(facts["level"], position)
    index = set(levels.values())
    values = tuple([position for position in range(len(fields)) if position not in index])
    return Layout(whole, tuple(names), fields, tuple(levels[number] for number in sorted(levels)), values)


def read_layout(schema: pa.Schema) -> Layout | None:
    """What the columns of a pandas object's table are; None for any other table."""
    written = (schema.metadata or {}).get(KEY)
    if written is None:
        return None
    fields = [_field_facts(field.metadata) for field in schema]
    return make_layout(json.loads(written), schema.names, fields)


def _field_facts(metadata: dict[bytes, bytes] | None) -> Facts | None:
    written = metadata.get(KEY) if metadata else None
    facts: Facts | None = json.loads(written) if written is not None else None
    return facts


_known: tuple[tuple[pa.Schema, Layout], ...] = ()
"""Layouts of late, the latest first. Replaced as a whole: other threads may be looking through it."""


def known_layout(schema: pa.Schema) -> Layout:
    """The layout of any table's columns, worked out once for each schema that comes again."""
    global _known
    for known, layout in _known:
        if schema.equals(known, check_metadata=True):
            return layout
    layout = read_layout(schema) or make_layout(_PLAIN, schema.names, [None] * len(schema))
    dtypes = [
        None if facts and "dtype" in facts else NUMPY_TYPES.get(kind)
        for facts, kind in zip(layout.fields, schema.types, strict=True)
    ]
    doubtful = tuple([position for position, dtype in enumerate(dtypes) if dtype is None or dtype in _WIDE])
    layout = replace(layout, dtypes=tuple(dtypes), doubtful=doubtful)
    _known = ((schema, layout), *_known[: KNOWN_LAYOUTS - 1])
    return layout


_WIDE = (np.dtype(np.int64), np.dtype(np.uint64))
"""Integers that are no floats, where nulls ask for floats."""
_PLAIN: Facts = {
    "version": 1,
    "kind": "frame",
    "columns": {"kind": "names", "dtype": None, "label": None},
    "index": {"kind": "range", "range": [0, 0, 1], "label": None},
}
"""The facts of a table that no facts are written of."""


def value_columns(schema: pa.Schema) -> list[int]:
    """Which fields hold values rather than index levels; of an index put by itself, all do."""
    layout = read_layout(schema)
    if layout is None or layout.kind == "index":
        return list(range(len(schema)))
    return list(layout.values)
