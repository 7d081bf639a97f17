"""The conformance suite for tables that are composed, built in place, and got through a pickled handle."""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa
import pytest

import flightstore as fs

from .test_local import LocalSuite


def as_table(value: Any) -> pa.Table | None:
    """A table of the value's columns, where they have names of their own; None where it has none."""
    if isinstance(value, pa.ChunkedArray):
        return pa.table({"c": value})
    if isinstance(value, pa.Table) and 0 < len(set(value.schema.names)) == value.num_columns:
        return value
    return None


class Composing(LocalSuite):
    """Values that are not tables go the plain way."""

    max_examples = 40

    def check(self, name: str, value: Any) -> None:
        if isinstance(value, pa.Array):  # what is composed of parts has chunks
            value = pa.chunked_array([value], value.type)
        super().check(name, value)

    def transfer(self, value: Any) -> Any:
        table = as_table(value)
        made = None if table is None else self.made(table)
        try:
            if made is None:
                return self.store.get(self.store.put(value)).value()
            made_table = made.to_arrow()  # type: ignore[attr-defined]
            return made_table["c"] if isinstance(value, pa.ChunkedArray) else made_table
        finally:
            self.store.delete([info.id for info in self.store.list()])

    def made(self, table: pa.Table) -> fs.Object | None:
        """The table, stored in another way than by a put."""
        raise NotImplementedError


class WithColumns(Composing):
    """The second half of the columns is added to the first; half of the rows come by concatenation."""

    def made(self, table: pa.Table) -> fs.Object | None:
        half, rows = table.num_columns // 2, table.num_rows // 2
        parts = []
        for part in (table.slice(0, rows), table.slice(rows)):
            first = part.select(range(half)) if half else pa.table({"dropped": pa.nulls(part.num_rows)})
            first = first.replace_schema_metadata(table.schema.metadata)
            base = self.store.get(self.store.put(first, pickle=False))
            added = self.store.with_columns(base, part.select(range(half, table.num_columns)))
            parts.append(added if half else self.store.drop(added, "dropped"))
        return self.store.concat(parts)


class InPlace(Composing):
    """Each column is given to a builder: those of fixed width are written into their places."""

    def made(self, table: pa.Table) -> fs.Object | None:
        if any(
            column.null_count and not field.nullable
            for column, field in zip(table.columns, table.schema, strict=True)
        ):
            return None  # a builder refuses what contradicts its schema
        with self.store.create_table(table.schema, table.num_rows, "built") as builder:
            for name in table.schema.names:
                builder[name] = table[name]
        return self.store.get("built")


class Travelled(Composing):
    """The handle that is read came out of a pickle."""

    def made(self, table: pa.Table) -> fs.Object | None:
        obj: fs.Object = pickle.loads(pickle.dumps(self.store.get(self.store.put(table))))
        return obj if obj.kind == "table" else None


TestWithColumns = pytest.mark.req("TYP-1", "O-2")(WithColumns)
TestInPlace = pytest.mark.req("TYP-1", "O-3")(InPlace)
TestTravelled = pytest.mark.req("TYP-1", "API-11")(Travelled)
