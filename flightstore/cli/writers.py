"""Writing tables for `get`: what `flightstore.connectors.sources` writes."""

from __future__ import annotations

from flightstore.connectors.sources.encoders import atomic_file, write_table

__all__ = ["atomic_file", "write_table"]
