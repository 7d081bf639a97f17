"""Indexes both ways: an index of the rows lies in columns of the table, one per level; an index of the
columns is the names of the fields where it is made of texts, and lies in the metadata where it is anything
else.

May call encode, decode, layout and what they call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from flightstore.connectors._pandas.buffers import joined
from flightstore.connectors._pandas.decode import decode_dictionary, decode_level
from flightstore.connectors._pandas.defaults import DEFAULT, Conversion
from flightstore.connectors._pandas.embedded import embed_batch, embedded_batch
from flightstore.connectors._pandas.encode import encode_codes, encode_dictionary, encode_level
from flightstore.connectors._pandas.layout import Facts, Layout, make_layout
from flightstore.connectors._pandas.literals import Writer, read_literal
from flightstore.connectors._pandas.standard import pandas_type

__all__ = ["Columns", "Levels", "decode_columns", "decode_index", "encode_columns", "encode_index"]


class Levels(NamedTuple):
    """An index of the rows, for Arrow."""

    names: list[str]
    """Names of its fields."""
    arrays: list[Any]
    facts: list[Facts | None]
    described: Facts
    """What the schema's facts say of it."""


class Columns(NamedTuple):
    """An index of the columns, for Arrow."""

    names: list[str]
    """Names of the fields: readable, each once."""
    facts: list[Facts | None]
    """For each field its label, where that is not its name."""
    described: Facts
    """What the schema's facts say of it."""


def _field_name(label: Any) -> str:
    """A readable name for a label, such as every language takes."""
    text = str(tuple(map(str, label))) if type(label) is tuple else str(label)
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _named_once(wanted: Iterable[str], taken: set[str]) -> list[str]:
    """The names, those that are taken with a number behind; adds them to `taken`."""
    names = []
    for name in wanted:
        number = 0
        free = name
        while free in taken:
            number += 1
            free = f"{name}.{number}"
        taken.add(free)
        names.append(free)
    return names


def _labelled(name: str, label: Any, writer: Writer) -> Facts | None:
    """The facts that bring a label back, None if the name is the label."""
    if type(label) is str and label == name:
        return None
    facts = {"name": name, "label": writer.write(label)}
    shown = _field_name(label)
    return facts if name == shown else {**facts, "text": shown}  # the name has a number behind


def encode_index(index: pd.Index, writer: Writer, taken: set[str]) -> Levels:
    """An index of the rows.

    Args:
        index: Any index.
        writer: How to write what JSON has not.
        taken: Names of fields that are not free any more; those of the levels are added.
    """
    if isinstance(index, pd.RangeIndex):
        extent = [index.start, index.stop, index.step]
        return Levels([], [], [], {"kind": "range", "range": extent, "label": writer.write(index.name)})
    names = [_level_name(name, number, taken) for number, name in enumerate(index.names)]
    is_multi = isinstance(index, pd.MultiIndex)
    encoded = _encode_levels(index, writer) if is_multi else [encode_level(index, writer)]
    facts: list[Facts | None] = []
    for number, (name, label, level) in enumerate(zip(names, index.names, encoded, strict=True)):
        facts.append({**(level[1] or {}), "level": number, **(_labelled(name, label, writer) or {})})
    described: Facts = {"kind": "levels", "levels": len(names), "multi": is_multi}
    if is_multi:
        described["sortorder"] = index.sortorder
    return Levels(names, [level[0] for level in encoded], facts, described)


def _level_name(label: Any, number: int, taken: set[str]) -> str:
    plain = f"__index_level_{number}__"
    name = plain if label is None else _field_name(label)
    return _named_once([plain if name in taken else name], taken)[0]


def _encode_levels(index: pd.MultiIndex, writer: Writer) -> list[tuple[Any, Facts]]:
    found = []
    for level, codes in zip(index.levels, index.codes, strict=True):
        values, facts = encode_dictionary(level.rename(None), writer, not len(index))
        array = pa.DictionaryArray.from_arrays(encode_codes(np.asarray(codes)), values, safe=False)
        found.append((array, {"dtype": "level", "values": facts}))
    return found


def decode_index(table: pa.Table, layout: Layout, wanted: Conversion = DEFAULT) -> pd.Index:
    """The index of the rows; a default one where that of old does not fit any more."""
    described, rows = layout.whole["index"], table.num_rows
    if described["kind"] == "range":
        extent = range(*described["range"])
        return pd.RangeIndex(
            extent if len(extent) == rows else range(rows), name=read_literal(described["label"])
        )
    if not layout.levels:
        return pd.RangeIndex(rows)
    names = [read_literal(layout.label(position)) for position in layout.levels]
    levels = [(table.column(position), layout.fields[position]) for position in layout.levels]
    if len(levels) == 1 and not (described["multi"] and described["levels"] == 1):
        return _single(*levels[0], names[0], wanted)
    parts = [_codes_and_level(column, facts) for column, facts in levels]
    codes, values = zip(*parts, strict=True)
    order = described.get("sortorder") if len(levels) == described["levels"] else None
    return pd.MultiIndex(values, codes, order, names, verify_integrity=False)


def _is_level(column: Any, facts: Facts | None) -> bool:
    return bool(facts and facts.get("dtype") == "level" and pa.types.is_dictionary(column.type))


def _single(column: Any, facts: Facts | None, name: Any, wanted: Conversion) -> pd.Index:
    """An index of one level; the only one that is left of several, perhaps."""
    if not _is_level(column, facts):
        return decode_level(column, facts, name, wanted)
    assert facts is not None
    codes, values = decode_dictionary(column, facts["values"])
    return pd.MultiIndex([values], [codes], names=[name], verify_integrity=False).get_level_values(0)


def _codes_and_level(column: Any, facts: Facts | None) -> tuple[Any, pd.Index]:
    if _is_level(column, facts):
        assert facts is not None
        return decode_dictionary(column, facts["values"])
    codes, values = decode_level(column, facts, None).factorize()
    return codes, values


def encode_columns(columns: pd.Index, writer: Writer) -> Columns:
    """An index of the columns."""
    labels = columns.tolist()
    names = labels
    if not all(type(label) is str and label.isascii() and "\0" not in label for label in labels):
        names = [_field_name(label) for label in labels]
    if len(set(names)) < len(names):
        names = _named_once(names, set())
    if isinstance(columns, pd.RangeIndex):
        extent = [columns.start, columns.stop, columns.step]
        described = {"kind": "range", "range": extent, "label": writer.write(columns.name)}
        return Columns(names, [None] * len(names), described)
    dtype = _text_dtype(columns.dtype)
    is_text = dtype == "object" or (dtype is not None and all(type(label) is str for label in labels))
    if is_text and not isinstance(columns, pd.MultiIndex):
        known = [_labelled(*pair, writer) for pair in zip(names, labels, strict=True)]
        return Columns(names, known, {"kind": "names", "dtype": dtype, "label": writer.write(columns.name)})
    return _stored(columns, names, labels, writer)


def encode_label(label: Any, writer: Writer) -> Columns:
    """The name of a series."""
    if label is None:  # as its frame would call it
        return Columns(["0"], [{"name": "0", "label": None, "of": "series"}], {})
    name = _field_name(label)
    facts = _labelled(name, label, writer)
    return Columns([name], [{**facts, "of": "series"} if facts else None], {})


def _text_dtype(dtype: Any) -> Any:
    if isinstance(dtype, pd.StringDtype):
        return [dtype.storage, "nan" if dtype.na_value is np.nan else "NA"]
    return "object" if dtype == np.dtype(object) else None


def _stored(columns: pd.Index, names: list[str], labels: list[Any], writer: Writer) -> Columns:
    """Columns with labels that are no texts: their index whole, beside the label of each."""
    levels = encode_index(columns, writer, set())
    arrays = [joined(array) for array in levels.arrays]
    described = {
        "kind": "stored",
        "index": levels.described,
        "facts": levels.facts,
        "fields": names,
        "batch": embed_batch(pa.record_batch(arrays, names=levels.names)),
        "indexes": [
            [writer.write(name), *_described_level(array, level)]
            for name, array, level in zip(columns.names, arrays, _levels_of(columns), strict=True)
        ],
    }
    facts = [_labelled(name, label, writer) for name, label in zip(names, labels, strict=True)]
    return Columns(names, facts, described)


def _levels_of(index: pd.Index) -> list[pd.Index]:
    return list(index.levels) if isinstance(index, pd.MultiIndex) else [index]


def _described_level(array: pa.Array, level: pd.Index) -> tuple[str, str, Any]:
    """What pandas' own metadata calls the labels of a level."""
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    if isinstance(level, pd.DatetimeIndex):
        return pandas_type(kind), f"datetime64[{level.unit}]", {"timezone": kind.tz} if kind.tz else None
    if isinstance(level.dtype, np.dtype) and level.dtype.kind in "iuf":
        return pandas_type(kind), str(level.dtype), None
    return "unicode", "object", {"encoding": "UTF-8"}


def decode_columns(layout: Layout) -> pd.Index:
    """The index of the columns: as it was, without those that are gone, with those that were added."""
    if "columns" not in layout.made:
        layout.made["columns"] = _decode_columns(layout)
    columns: pd.Index = layout.made["columns"]
    return columns.view()  # names may be given to it, which are nobody else's


def _decode_columns(layout: Layout) -> pd.Index:
    described = layout.whole.get("columns")
    labels = [layout.label(position) for position in layout.values]
    if described is None:  # a series that became a frame
        return pd.Index(
            [0 if label is None else read_literal(label) for label in labels], tupleize_cols=False
        )
    if described["kind"] == "names":
        return _text_columns([read_literal(label) for label in labels], described)
    if described["kind"] == "range":
        return _range_columns([read_literal(label) for label in labels], described)
    return _stored_columns(layout, labels, described)


def _text_columns(labels: list[Any], described: Facts) -> pd.Index:
    name, dtype = read_literal(described["label"]), described["dtype"]
    if dtype is None:
        return pd.Index(labels, name=name)
    if dtype != "object" and all(type(label) is str for label in labels):
        dtype = pd.StringDtype(dtype[0], na_value=np.nan if dtype[1] == "nan" else pd.NA)
        return pd.Index(labels, dtype=dtype, name=name)
    values = np.fromiter(labels, dtype=object, count=len(labels))
    return pd.Index(values, dtype=object, name=name, tupleize_cols=False)


def _range_columns(labels: list[Any], described: Facts) -> pd.Index:
    name, extent = read_literal(described["label"]), range(*described["range"])
    if labels == list(extent):
        return pd.RangeIndex(extent, name=name)
    if all(type(label) is int for label in labels):
        return pd.Index(np.array(labels, np.int64), name=name)
    values = np.fromiter(labels, dtype=object, count=len(labels))
    return pd.Index(values, dtype=object, name=name, tupleize_cols=False)


def _stored_columns(layout: Layout, labels: list[Any], described: Facts) -> pd.Index:
    stored = _read_stored(described)
    fields = described["fields"]
    names = [layout.names[position] for position in layout.values]
    known = frozenset(fields)
    new = [layout.is_new(position, known) for position in layout.values]
    if names == fields and not any(new):
        return stored
    places = {name: place for place, name in enumerate(fields)}
    columns = stored.take([places[name] for name, added in zip(names, new, strict=True) if not added])
    for place, added in enumerate(new):
        if added:
            columns = columns.insert(place, read_literal(labels[place]))
    return columns


def _read_stored(described: Facts) -> pd.Index:
    """The index that `_stored` wrote."""
    batch = embedded_batch(described["batch"])
    layout = make_layout(
        {"kind": "index", "index": described["index"]}, batch.schema.names, described["facts"]
    )
    return decode_index(pa.Table.from_batches([batch]), layout)
