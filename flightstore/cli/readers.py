"""Reading files for `put`: what `flightstore.connectors.sources` reads, whole."""

from __future__ import annotations

from flightstore.connectors.sources.reading import read_table
from flightstore.connectors.sources.units import FileUnreadable
from flightstore.connectors.sources.whole import read_arrays

__all__ = ["FileUnreadable", "read_arrays", "read_table"]
