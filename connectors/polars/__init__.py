"""polars: data frames and series.

A frame is stored as the Arrow table that polars itself exports, text as string views: these are polars' own
layout, so that neither ``put`` nor ``get`` converts anything. Every other reader that knows Arrow reads the
table. What Arrow has no type for is said in the metadata of the field, so that it stays with the column
through any composition of the stored table; see `building`.

`building` makes the table, `fitting` decides what polars can hold of any table and changes the rest,
`resolving` makes the frame, `scanning` makes lazy ones, `reporting` measures what was shared, `wide` is about
128-bit integers.
"""

from __future__ import annotations

from flightstore.connectors import Connector
from flightstore.connectors.polars.building import adapt, build
from flightstore.connectors.polars.reporting import report
from flightstore.connectors.polars.resolving import resolve
from flightstore.connectors.polars.scanning import scan

__all__ = ["CONNECTOR", "scan"]

CONNECTOR = Connector(
    name="polars",
    types=(
        "polars.dataframe.frame.DataFrame",
        "polars.series.series.Series",
        "polars.lazyframe.frame.LazyFrame",
    ),
    build=build,
    resolve=resolve,
    report=report,
    adapt=adapt,
)
