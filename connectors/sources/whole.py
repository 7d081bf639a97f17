"""Formats that are read whole before the first row is there: JSON documents, Avro, workbooks. And arrays."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import msgspec
import pyarrow as pa

from flightstore.connectors.sources import frames
from flightstore.connectors.sources.formats import format_of, packing_of
from flightstore.connectors.sources.packing import unpacked_source
from flightstore.connectors.sources.places import Place
from flightstore.connectors.sources.text import CountingFile, refuse_packed
from flightstore.connectors.sources.units import Advance, Unit, explained, unreadable

__all__ = ["open_whole", "read_arrays"]

_LARGEST_BLOCK_BYTES = (1 << 31) - 1
_BEGINNING_BYTES = 4096


def open_whole(
    place: Place, file_format: str, options: dict[str, Any], advance: Advance
) -> tuple[pa.Schema, Callable[[Sequence[str] | None], list[Unit]]]:
    """Read a file.

    Raises:
        FileUnreadable: it is not in that format.
        MissingExtra: the format needs a library that is not installed.
    """
    name = format_of(file_format).name
    with explained(place.label, file_format):
        if name == "json":
            refuse_packed(place, name, packing_of(file_format))
        file = place.open()
        if name == "json":
            table = _json(file, advance, packing_of(file_format), options)
        else:
            table = (frames.read_avro if name == "avro" else frames.read_workbook)(file, advance)

    def batches(_advance: Advance) -> Iterator[pa.RecordBatch]:
        yield from table.to_batches()

    return table.schema, lambda _columns: [Unit(place.label, file_format, 0, batches)]


def _json(file: IO[bytes], advance: Advance, packing: str, options: dict[str, Any]) -> pa.Table:
    """An array of records; or records one after the other, since such files are called .json, too."""
    from pyarrow import json

    text = unpacked_source(CountingFile(file, advance), packing).read().removeprefix(b"\xef\xbb\xbf")
    if text[:_BEGINNING_BYTES].lstrip()[:1] == b"[":
        # Arrow reads lines: the records are put on lines of their own, their numbers and texts unread.
        records = msgspec.json.decode(text, type=list[msgspec.Raw])
        text = b"\n".join([msgspec.json.format(bytes(record), indent=-1) for record in records])
        if not records:
            return pa.table({})
    elif not text.strip():
        raise ValueError("it is empty")
    block_bytes = 8 << 20
    while True:
        try:
            parse = json.ParseOptions(**{"newlines_in_values": True, **options})
            return json.read_json(io.BytesIO(text), json.ReadOptions(block_size=block_bytes), parse)
        except pa.ArrowInvalid as error:
            if "straddling" not in str(error) or block_bytes >= _LARGEST_BLOCK_BYTES:
                raise
        block_bytes = min(block_bytes * 16, _LARGEST_BLOCK_BYTES)


def read_arrays(file: IO[bytes], file_format: str, label: str) -> Any:
    """A NumPy array (npy), or a mapping of several (npz).

    Files that hold pickled objects are refused, for unpickling runs code.

    Raises:
        FileUnreadable: the file is not in that format, or holds pickles.
    """
    import numpy as np

    try:
        loaded = np.load(file, allow_pickle=False)
        several = isinstance(loaded, np.lib.npyio.NpzFile)
        if several != (file_format == "npz"):
            raise ValueError(f"it is an {'npz' if several else 'npy'} file")
        return {name: loaded[name] for name in loaded.files} if several else loaded
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise unreadable(label, file_format, error) from error
