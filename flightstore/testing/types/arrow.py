"""The catalogue of Arrow values: every type, alone and within every nested type, and every layout in memory.

Puts together what arrow_types, arrow_nesting, arrow_layouts and arrow_tables list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import pyarrow as pa

from flightstore.testing.types.arrow_layouts import ARRAY_LAYOUTS
from flightstore.testing.types.arrow_nesting import nested
from flightstore.testing.types.arrow_tables import INEXPRESSIBLE, LOOKALIKES, TABLES, unregistered
from flightstore.testing.types.arrow_types import NULLS, SAMPLES, VALUES, Sample

__all__ = ["CATALOGUE", "INEXPRESSIBLE", "LOOKALIKES", "SAMPLES", "children", "unregistered"]

Make: TypeAlias = Callable[[], Any]


def children(array: Any) -> Iterator[pa.Array]:
    """The arrays below an array, dictionaries included, as they lie in memory."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        yield array.storage
    elif pa.types.is_dictionary(kind):
        yield array.dictionary
    elif pa.types.is_run_end_encoded(kind):
        yield from (array.run_ends, array.values)
    elif pa.types.is_struct(kind) or pa.types.is_union(kind):
        yield from (array.field(i) for i in range(kind.num_fields))
    elif kind.num_fields:
        yield array.values


def _cut(array: pa.Array, rows: slice) -> pa.Array:
    return array.slice(rows.start, rows.stop - rows.start)


def _without_nulls(array: pa.Array) -> pa.Table:
    """Rows without nulls, from an array of their own, in a column that says so."""
    column = pa.concat_arrays([_cut(array, VALUES)])
    return pa.table([column], pa.schema([pa.field("x", column.type, nullable=pa.types.is_null(column.type))]))


def _in_chunks(array: pa.Array) -> pa.ChunkedArray:
    chunks = [array.slice(0, 0), array, array.slice(2, 3), array.slice(8), array.slice(6, 1), array]
    return pa.chunked_array(chunks, array.type)


def _beside_another(make: Sample) -> pa.Table:
    array = make()
    return pa.table({"before": pa.nulls(len(array)), "x": array})


def _of_type(sample: Sample) -> Iterator[tuple[str, Make]]:
    """Every form in which values of one type are put."""
    yield "", lambda: pa.table({"x": sample()})
    yield "without nulls", lambda: _without_nulls(sample())
    yield "all null", lambda: pa.table({"x": pa.concat_arrays([_cut(sample(), NULLS)] * 5)})
    yield "cut", lambda: pa.table({"x": sample()}).slice(3, 4)
    yield "in chunks", lambda: pa.table({"x": _in_chunks(sample())})
    yield "no rows", lambda: pa.table({"x": sample()}).slice(3, 0)
    yield "no chunks", lambda: pa.table({"x": pa.chunked_array([], sample().type)})
    yield "nested", lambda: nested(sample())
    yield "nested, cut", lambda: nested(sample()).slice(1, 2)
    yield "nested, in chunks", lambda: pa.concat_tables([nested(sample()).slice(i, 2) for i in (2, 0, 1)])
    yield "as an array", lambda: sample().slice(2, 4)
    yield "as a chunked array", lambda: _in_chunks(sample())


def _entries() -> Iterator[tuple[str, Make]]:
    for name, sample in SAMPLES.items():
        for form, make in _of_type(sample):
            yield f"{name}: {form}" if form else name, make
    for name, make in ARRAY_LAYOUTS.items():
        yield f"layout: {name}", partial(_beside_another, make)
        yield f"layout: {name}, as an array", make
    for name, make in TABLES.items():
        yield f"table: {name}", make


CATALOGUE: dict[str, Make] = dict(_entries())
"""Tables, record batches, arrays and chunked arrays by name; each call makes a new one."""
