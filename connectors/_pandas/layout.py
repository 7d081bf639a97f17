"""What the columns of a pandas object's table are: values or index levels, their facts and labels.

The schema's facts: ``kind`` (frame, series or index), ``rows``, ``index``, ``columns``, ``attrs``,
``unique_labels``. A field's facts: ``dtype`` and what belongs to it (`encode`), ``level`` in the index, ``label``
and the field's ``name`` when that was written: a field that has another name now was renamed, and is called so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from flightstore.connectors._pandas.buffers import NUMPY_TYPES

__all__ = ["KEY", "Facts", "Layout", "is_new", "known_layout", "label_of", "read_layout", "value_columns"]

KEY = b"flightstore.pandas"
KNOWN_LAYOUTS = 16

Facts: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """What the columns of a table are."""

    whole: Facts
    """The schema's facts."""
    fields: tuple[Facts | None, ...]
    """The facts of each field."""
    levels: tuple[int, ...]
    """Positions of the index levels, outermost first."""
    values: tuple[int, ...]
    """Positions of all other columns."""
    dtypes: tuple[np.dtype[Any] | None, ...] = ()
    """For each field NumPy's dtype of the same bytes; None where there is none, or facts say otherwise."""

    @property
    def kind(self) -> str:
        """What the table is: a series with a second column is a frame."""
        kind: str = self.whole["kind"]
        expected = {"series": 1, "index": 0}.get(kind)
        return kind if expected in (None, len(self.values)) else "frame"

    def label(self, schema: pa.Schema, position: int) -> Any:
        """The label of a column, or the name of a level, as a literal."""
        return label_of(schema.field(position).name, self.fields[position])


_known: tuple[tuple[pa.Schema, Layout], ...] = ()
"""Layouts of late, the latest first. Replaced as a whole: other threads may be looking through it."""


def label_of(name: str, facts: Facts | None) -> Any:
    """The label of a column, or the name of a level, as a literal."""
    return facts["label"] if facts and facts.get("name") == name else name


def read_layout(schema: pa.Schema) -> Layout | None:
    """What the columns of a pandas object's table are; None for any other table."""
    written = (schema.metadata or {}).get(KEY)
    if written is None:
        return None
    whole = json.loads(written)
    fields = tuple([_field_facts(field.metadata) for field in schema])
    levels: dict[int, int] = {}
    if whole["index"]["kind"] == "levels":
        for position, facts in enumerate(fields):
            if facts and "level" in facts:
                levels.setdefault(facts["level"], position)
    index = {levels[number] for number in levels}
    values = tuple([position for position in range(len(fields)) if position not in index])
    return Layout(whole, fields, tuple(levels[number] for number in sorted(levels)), values)


def known_layout(schema: pa.Schema) -> Layout:
    """The layout of any table's columns, worked out once for each schema that comes again."""
    global _known
    for known, layout in _known:
        if schema.equals(known, check_metadata=True):
            return layout
    layout = read_layout(schema) or _plain_layout(len(schema))
    dtypes = [
        None if facts and "dtype" in facts else NUMPY_TYPES.get(field.type)
        for facts, field in zip(layout.fields, schema, strict=True)
    ]
    layout = replace(layout, dtypes=tuple(dtypes))
    _known = ((schema, layout), *_known[: KNOWN_LAYOUTS - 1])
    return layout


def _plain_layout(length: int) -> Layout:
    """A frame of columns without facts."""
    columns = {"kind": "names", "dtype": None, "label": None}
    index = {"kind": "range", "range": [0, 0, 1], "label": None}
    whole = {"version": 1, "kind": "frame", "columns": columns, "index": index}
    return Layout(whole, (None,) * length, (), tuple(range(length)))


def _field_facts(metadata: dict[bytes, bytes] | None) -> Facts | None:
    written = metadata.get(KEY) if metadata else None
    facts: Facts | None = json.loads(written) if written is not None else None
    return facts


def value_columns(schema: pa.Schema) -> list[int]:
    """Which fields hold values rather than index levels; of an index put by itself, all do."""
    layout = read_layout(schema)
    if layout is None or layout.kind == "index":
        return list(range(len(schema)))
    return list(layout.values)


def is_new(name: str, facts: Facts | None, known: frozenset[str]) -> bool:
    """Whether a column is none of those that the columns' index was made for, or is called otherwise now."""
    return name not in known or (facts is not None and "name" in facts and facts["name"] != name)
