"""Any sample within every nested type, one column for each. May call raw, extensions and arrow_types.

Each column has four rows. Items are taken at offsets other than 0, some belong to no row, some to a null one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from flightstore.testing.types import raw
from flightstore.testing.types.arrow_types import VALUES
from flightstore.testing.types.extensions import label

__all__ = ["can_be_in_a_dictionary", "nested", "nested_columns"]

VALID = [True, False, True, True]


def nested(sample: pa.Array) -> pa.Table:
    """Four rows of the sample's values within each nested type."""
    columns = dict(nested_columns(sample))
    return pa.table(list(columns.values()), names=list(columns))


def nested_columns(sample: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """(name of the nesting, array of four rows)."""
    yield from _in_lists(sample)
    kind = sample.type
    field = pa.field("value", kind)
    pair = pa.struct([field, pa.field("number", pa.int8())])
    numbers = pa.array([1, None, 3, 4], pa.int8())
    yield "struct", raw.structs(pair, 4, [sample.slice(2), numbers], VALID)
    yield (
        "two structs",
        raw.structs(
            pa.struct([pa.field("s", pair)]), 4, [raw.structs(pair, 4, [sample, numbers], VALID)], VALID[::-1]
        ),
    )
    yield from _in_maps(sample)
    fields = [pa.field("number", pa.int8()), field]
    codes = [1, 0, 1, 1]
    yield "sparse_union", raw.union(pa.sparse_union(fields), codes, [numbers, sample.slice(1)])
    yield "dense_union", raw.union(pa.dense_union(fields), codes, [numbers, sample], [0, 2, 3, 7])
    encoded = pa.run_end_encoded(pa.int16(), kind)
    yield "run_end_encoded", raw.runs(encoded, [1, 3, 5], sample.slice(1, 3), 4)
    if can_be_in_a_dictionary(kind):
        places = pa.dictionary(pa.int8(), kind)
        yield "dictionary", raw.dictionary(places, [7, 1, 4, 1], sample, VALID)
    if not isinstance(kind, pa.BaseExtensionType):
        yield "extension", label(sample.slice(1, 4))


def can_be_in_a_dictionary(kind: pa.DataType) -> bool:
    """Whether Arrow's schemas have words for a dictionary whose values are of this type."""
    return not (pa.types.is_dictionary(kind) or isinstance(kind, pa.BaseExtensionType))


def _in_lists(sample: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    kind = sample.type
    for make in (pa.list_, pa.large_list):
        wanted = make(kind)
        yield str(wanted).partition("<")[0], raw.lists(wanted, [1, 3, 4, 4, 7], sample, VALID)
    for make in (pa.list_view, pa.large_list_view):
        wanted = make(kind)
        yield str(wanted).partition("<")[0], raw.list_views(wanted, [4, 1, 2, 6], [3, 2, 3, 0], sample, VALID)
    yield "fixed_size_list", raw.fixed_lists(pa.list_(kind, 2), 4, sample, VALID)


def _in_maps(sample: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    kind = sample.type
    numbers = pa.array(range(8), pa.int8())
    offsets = [1, 3, 4, 4, 7]
    yield "map of values", raw.maps(pa.map_(pa.int8(), kind), offsets, numbers, sample, VALID)
    keys = sample.slice(VALUES.start, VALUES.stop - VALUES.start)
    if not pa.types.is_null(kind):
        by_key = pa.map_(pa.field("key", kind, nullable=False), pa.int8())
        yield "map of keys", raw.maps(by_key, [0, 1, 2, 2, 4], keys, numbers.slice(0, 4), VALID)
