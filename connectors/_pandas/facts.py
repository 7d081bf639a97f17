"""The metadata of a pandas object's table: written when it is put, put right when columns come, go and change
their names.

Plain functions on schemas: neither pandas nor data is needed here. May call layout and standard.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pyarrow as pa

from flightstore.connectors._pandas.layout import KEY, Facts, make_layout, read_layout
from flightstore.connectors._pandas.standard import STANDARD_KEY, standard_metadata

__all__ = ["VERSION", "adapt", "write_schema"]

VERSION = 1


def write_schema(
    names: list[str], kinds: list[pa.DataType], facts: list[Facts | None], whole: Facts, rows: int
) -> pa.Schema:
    """The schema of a table with all its metadata, ours and pandas' own."""
    whole = {"version": VERSION, **whole, "rows": rows}
    fields = [
        pa.field(name, kind, metadata={KEY: _dumps(known)} if known else None)
        for name, kind, known in zip(names, kinds, facts, strict=True)
    ]
    layout = make_layout(whole, names, facts)
    metadata = {KEY: _dumps(whole), STANDARD_KEY: standard_metadata(kinds, layout)}
    return pa.schema(fields, metadata=metadata)


def _dumps(facts: Any) -> bytes:
    return json.dumps(facts, separators=(",", ":")).encode("ascii")


def adapt(schema: pa.Schema, num_rows: int) -> pa.Schema:
    """The schema with its metadata put right, after columns were added, dropped, renamed or reordered, or
    rows were joined.

    As pandas would have it: a column without facts is an ordinary one; an index that lost its only level,
    and a range of another length, become a default index; a series with a second column becomes a frame. Of
    several index levels those that are left stay.
    """
    layout = read_layout(schema)
    if layout is None:
        return schema
    whole = {**layout.whole, "kind": layout.kind, "rows": num_rows}
    index = whole["index"]
    if index["kind"] == "range" and len(range(*index["range"])) != num_rows:
        whole["index"] = {**index, "range": [0, num_rows, 1]}
    elif index["kind"] == "levels" and not layout.levels:
        whole["index"] = {"kind": "range", "range": [0, num_rows, 1], "label": None}
    elif index["kind"] == "levels" and len(layout.levels) != index["levels"]:
        left = len(layout.levels)
        whole["index"] = {**index, "levels": left, "multi": left > 1, "sortorder": None}
    layout = replace(layout, whole=whole)
    ours = {KEY: _dumps(whole), STANDARD_KEY: standard_metadata(schema.types, layout)}
    return schema.with_metadata({**schema.metadata, **ours})
