"""Any stored table as a polars frame over the store's memory. Calls the rest of this package.

polars is never called with what it cannot hold. Most columns go over in one call, shared as polars shares
them. Taken one by one: categories, whose codes polars would copy although they can be shared; and what
`building` stored under a marker.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from flightstore.connectors.polars.converting import convert
from flightstore.connectors.polars.fitting import Judge, is_held, unique_names
from flightstore.connectors.polars.markers import (
    ENUM_KEYS,
    KEY,
    OBJECT,
    SERIES,
    categories_of,
    is_text_dictionary,
    marker,
)
from flightstore.connectors.polars.wide import has_wide, import_wide
from flightstore.errors import NotConvertible
from flightstore.objects.base import Object
from flightstore.objects.extras import require

__all__ = ["Fitted", "fit", "make_series", "resolve", "table_of"]


def resolve(obj: Object, *, strict: bool = True) -> Any:
    """The data frame, or the series that was put as one; shares the store's memory wherever polars can.

    The memory lives as long as the frame, or anything made of it that shares it.

    Args:
        obj: A stored table, whoever put it.
        strict: Refuse types that polars has no equal of. Otherwise they are converted, keeping all values;
            `fitting` lists into what, and ``obj.conversion_report("polars", strict=False)`` says it.

    Raises:
        MissingExtra: polars is not installed.
        NotConvertible: polars cannot hold it; names the column and its type.
    """
    polars = require("polars", "to_polars()")
    table = table_of(obj)
    trusted = _is_ours(obj)
    fitted = fit(polars, table, strict, trusted)
    plain = [column for column in fitted if column.how == "shared"]
    if len(plain) == len(fitted):
        frame = _frame_of(polars, plain, table.num_rows)
    else:
        known = {series.name: series for series in _frame_of(polars, plain, table.num_rows).iter_columns()}
        frame = polars.DataFrame(
            [known.get(column.field.name, None) if column.how == "shared" else make_series(polars, column)
             for column in fitted]
        )
    return frame.to_series() if is_series(table) else frame
