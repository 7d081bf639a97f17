"""Writing tables for `get`: what `flightstore.connectors.sources` writes, loaded when something is
written."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from flightstore.cli.output import Advance

__all__ = ["atomic_file", "write_table"]


def atomic_file(path: str) -> AbstractContextManager[IO[bytes]]:
    """A file that appears under `path` when the block ends well; otherwise nothing is left."""
    from flightstore.connectors.sources import writing

    return writing.atomic_file(path)


def write_table(table: pa.Table, file: IO[bytes], file_format: str, advance: Advance) -> None:
    """Write a table to a binary file; see `flightstore.connectors.sources.encoders.write_table`."""
    from flightstore.connectors.sources import encoders

    encoders.write_table(table, file, file_format, advance)
