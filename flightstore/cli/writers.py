"""Writing tables for `get`: what `flightstore.connectors.sources` writes."""

from __future__ import annotations

from flightstore.connectors.sources.encoders import write_table
from flightstore.connectors.sources.writing import atomic_file

__all__ = ["atomic_file", "write_table"]
