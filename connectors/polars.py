"""polars data frames."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from flightstore.connectors import Connector
from flightstore.errors import NotStorable
from flightstore.objects.base import Object
from flightstore.objects.extras import require

__all__ = ["CONNECTOR"]


def build(frame: Any, *, pickle: bool) -> pa.Table:
    """An Arrow table of a data frame, as ``to_arrow`` converts it.

    Raises:
        NotStorable: a column is of a type that Arrow has not, Python objects for one.
    """
    objects = [name for name, kind in frame.schema.items() if str(kind) == "Object"]
    if objects:
        raise NotStorable(
            f"column {objects[0]!r} of this polars DataFrame holds Python objects",
            hint="cast it to a type that Arrow knows",
        )
    try:
        return frame.to_arrow()
    except pa.ArrowException as error:  # polars has types of its own, 128-bit integers for one
        raise NotStorable(
            f"Arrow cannot hold this polars DataFrame of types {frame.schema}: {error}",
            hint="cast the column to a type that Arrow knows, or allow pickle",
        ) from error


def resolve(obj: Object, **options: Any) -> Any:
    """A polars data frame; see ``Table.to_polars``."""
    polars = require("polars", "to_polars()")
    return polars.from_arrow(pa.table(obj), rechunk=False)


CONNECTOR = Connector(
    name="polars", types=("polars.dataframe.frame.DataFrame",), build=build, resolve=resolve
)
