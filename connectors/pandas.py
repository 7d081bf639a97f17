"""pandas data frames."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from flightstore.connectors import Connector
from flightstore.errors import NotStorable
from flightstore.objects.base import Object
from flightstore.objects.extras import require

__all__ = ["CONNECTOR"]


def build(frame: Any, *, pickle: bool) -> pa.Table:
    """An Arrow table of a data frame, as ``pa.Table.from_pandas`` converts it.

    Raises:
        NotStorable: Arrow cannot hold it; names the column.
    """
    try:
        return pa.Table.from_pandas(frame)
    except MemoryError:
        raise
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError, OverflowError) as error:
        said = " ".join(
            str(part) for part in error.args
        )  # pyarrow appends the column's name to the arguments
        raise NotStorable(
            f"Arrow cannot hold this pandas DataFrame: {said}",
            hint="give the column one type that Arrow knows, or allow pickle",
        ) from error


def resolve(obj: Object, **options: Any) -> Any:
    """A pandas data frame; see ``Table.to_pandas``."""
    require("pandas", "to_pandas()")
    options.setdefault("split_blocks", True)
    return pa.table(obj).to_pandas(**options)


CONNECTOR = Connector(
    name="pandas",
    types=("pandas.DataFrame", "pandas.core.frame.DataFrame"),
    build=build,
    resolve=resolve,
)
