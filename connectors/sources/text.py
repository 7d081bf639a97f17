"""CSV, TSV and JSON lines, block by block. Their types are inferred from all of the file.

Arrow's streaming readers take the types of the first block for those of the file. Here, what a later block
refutes is a reason to begin again (`Again`) with what is known by then, so the result is the same as of
reading the whole file at once: of a CSV column the next of the types that Arrow would try, of JSON the types
that all of its lines have. So is a line that is longer than a block, and a value that spans lines.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import pyarrow as pa

from flightstore.connectors.sources.formats import format_of, packing_of
from flightstore.connectors.sources.packing import unpacked_source
from flightstore.connectors.sources.places import Place
from flightstore.connectors.sources.units import Advance, Again, Unit, explained
from flightstore.errors import InvalidArgument

__all__ = ["CountingFile", "Text", "ignore", "refuse_packed"]

_BLOCK_BYTES = 8 << 20
_LARGEST_BLOCK_BYTES = (1 << 31) - 1
_BEGINNING_BYTES = 4096
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_MAGIC = {
    "gz": b"\x1f\x8b",
    "bz2": b"BZh",
    "zst": b"\x28\xb5\x2f\xfd",
    "lz4": b"\x04\x22\x4d\x18",
    "xz": b"\xfd7zXZ\0",
}
"""How packed files begin (Brotli's have no sign)."""
_MAGIC_BYTES = max(map(len, _MAGIC.values()))
_TYPES = (
    pa.null(),
    pa.int64(),
    pa.bool_(),
    pa.date32(),
    pa.time32("s"),
    pa.timestamp("s"),
    pa.timestamp("s", "UTC"),
    pa.timestamp("ns"),
    pa.timestamp("ns", "UTC"),
    pa.float64(),
    pa.string(),
    pa.binary(),
)
"""What Arrow tries for a column of CSV, in its order."""
_CSV_COLUMN = re.compile(r"In CSV column #(\d+): .*CSV conversion error|In CSV column #(\d+): .*invalid UTF8")


class CountingFile(io.RawIOBase):
    """A binary file that reports how many bytes were read from it."""

    def __init__(self, file: IO[bytes], advance: Advance) -> None:
        super().__init__()
        self._file = file
        self._advance = advance

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        data = self._file.read(-1 if size is None else size)
        self._advance(len(data))
        return data

    def readall(self) -> bytes:
        return self.read()


def ignore(_count: int) -> None:
    """An Advance for a look at bytes that are not reported, or were."""


class Text:
    """A file of text. What is learned about it stays from one plan to the next."""

    def __init__(self, place: Place, file_format: str, options: dict[str, Any]) -> None:
        self.place = place
        self.file_format = file_format
        self.packing = packing_of(file_format)
        self.name = format_of(file_format).name
        self._options = options
        self._block_bytes = int(options.get("block_size") or _BLOCK_BYTES)
        self._many_lines = False
        self._first: Exception | None = None
        self._types: dict[str, pa.DataType] = {}
        self._inferred: pa.Schema | None = None
        self._known: pa.Schema | None = None

    def open(self) -> tuple[pa.Schema, Callable[[Sequence[str] | None], list[Unit]]]:
        """Look at the file.

        Raises:
            FileUnreadable: it is not in that format.
            Again: it is to be looked at again.
        """
        with explained(self.place.label, self.file_format):
            refuse_packed(self.place, self.name, self.packing)
            if self.name == "jsonl" and not self._beginning():
                return pa.schema([]), lambda _columns: []
            schema = self._reacting(lambda: self._reader(ignore).schema)
        return schema, lambda _columns: [
            Unit(self.place.label, self.file_format, self.place.nbytes, self._batches)
        ]

    def _batches(self, advance: Advance) -> Iterator[pa.RecordBatch]:
        reader = self._reacting(lambda: self._reader(advance))
        while True:
            batch = self._reacting(lambda: next(reader, None))
            if batch is None:
                return
            yield batch

    def _reader(self, advance: Advance) -> Any:
        beginning = self._beginning()
        source = unpacked_source(CountingFile(self.place.open(), advance), self.packing)
        return self._json(source) if self.name == "jsonl" else self._csv(source, beginning)

    def _reacting(self, act: Callable[[], Any]) -> Any:
        """What `act` returns; an error that tells something about the file is learned from."""
        try:
            return act()
        except pa.ArrowMemoryError:
            raise
        except pa.ArrowInvalid as error:
            self._learn(error)
            raise Again from error

    def _learn(self, error: pa.ArrowInvalid) -> None:
        """Find out what else the file may be; raises the error if nothing."""
        text = str(error)
        if "straddling" in text and self._block_bytes < _LARGEST_BLOCK_BYTES:
            self._block_bytes = min(self._block_bytes * 16, _LARGEST_BLOCK_BYTES)
        elif self.name == "jsonl":
            if self._inferred is not None:
                raise error
            self._inferred = self._of_all_lines()
        elif (found := _CSV_COLUMN.search(text)) is not None:
            self._widen(int(found.group(1) or found.group(2)), error)
        elif not self._many_lines:
            # A quoted value with line ends in it may span blocks. Arrow notices, and can look out for such
            # values, which costs a quarter of its speed: hence only now.
            self._many_lines, self._first = True, error
        else:
            raise self._first or error

    # --- CSV ---

    def _csv(self, source: Any, beginning: bytes) -> Any:
        from pyarrow import csv

        delimiter = "\t" if self.name == "tsv" else ","
        read: dict[str, Any] = {"encoding": "utf-16" if beginning.startswith(_UTF16) else "utf-8"}
        parse: dict[str, Any] = {
            "delimiter": self._options.get("delimiter", delimiter),
            "newlines_in_values": self._many_lines,
        }
        parse["ignore_empty_lines"] = not _has_one_column(beginning, parse["delimiter"])
        # Only the empty field is null by itself: Arrow's list (NA, null, ...) would eat Namibia's country
        # code. In quotes, even that is text, so that "" and nothing stay two things.
        convert: dict[str, Any] = {
            "null_values": [""],
            "strings_can_be_null": True,
            "quoted_strings_can_be_null": False,
        }
        groups = (
            (read, csv.ReadOptions()),
            (parse, csv.ParseOptions()),
            (convert, csv.ConvertOptions()),
        )
        for name, value in self._options.items():
            group = next((given for given, known in groups if hasattr(known, name)), None)
            if group is None:
                raise InvalidArgument(
                    f"{name!r} is no option of CSV",
                    hint="take those of pyarrow.csv.ReadOptions, ParseOptions, ConvertOptions",
                )
            group[name] = value
        read["block_size"] = self._block_bytes
        convert["column_types"] = {**_types_of(convert.get("column_types")), **self._types}
        opened = csv.open_csv(
            source, csv.ReadOptions(**read), csv.ParseOptions(**parse), csv.ConvertOptions(**convert)
        )
        self._known = opened.schema
        return opened

    def _widen(self, index: int, error: pa.ArrowInvalid) -> None:
        """Take the next type for a column that has a value which is none of the one taken so far."""
        if self._known is None:  # types are inferred from the first block, so it fits them
            raise error
        name = self._known.names[index]
        current = self._types.get(name, self._known.field(index).type)
        given = _types_of(self._options.get("column_types"))
        if name in given or current not in _TYPES[:-1] or self._known.names.count(name) > 1:
            raise error
        self._types[name] = _TYPES[_TYPES.index(current) + 1]

    # --- JSON lines ---

    def _json(self, source: Any) -> Any:
        from pyarrow import json

        parse: dict[str, Any] = dict(self._options)
        parse.pop("block_size", None)
        if self._inferred is not None:
            parse |= {"explicit_schema": self._inferred, "unexpected_field_behavior": "error"}
        try:
            options = json.ParseOptions(**parse)
        except TypeError as error:
            raise InvalidArgument(f"no such option of JSON: {error}") from error
        return json.open_json(source, json.ReadOptions(block_size=self._block_bytes), options)

    def _of_all_lines(self) -> pa.Schema:
        """The columns of all lines, each as wide as its widest value."""
        from pyarrow import json

        merged: dict[str, pa.DataType] = {}
        for lines in self._blocks():
            for field in json.read_json(
                io.BytesIO(lines), json.ReadOptions(block_size=_block_for(lines))
            ).schema:
                merged[field.name] = wider(merged.get(field.name, pa.null()), field.type, field.name)
        return pa.schema(list(merged.items()))

    def _blocks(self) -> Iterator[bytes]:
        """The text in pieces of whole lines."""
        source = unpacked_source(CountingFile(self.place.open(), ignore), self.packing)
        rest = b""
        while data := bytes(source.read(_BLOCK_BYTES)):
            end = data.rfind(b"\n") + 1
            if end:
                yield rest + data[:end]
                rest = data[end:]
            else:
                rest += data
        if rest.strip():
            yield rest

    # --- beginnings ---

    def _beginning(self) -> bytes:
        """The first bytes of the text, for a look."""
        source = unpacked_source(CountingFile(self.place.open(), ignore), self.packing)
        return bytes(source.read(_BEGINNING_BYTES))


def refuse_packed(place: Place, name: str, packing: str) -> None:
    """Refuse a packed file that is taken for plain text: as CSV, any bytes can be read somehow.

    Raises:
        ValueError: it is one.
    """
    magic = bytes(place.open().read(_MAGIC_BYTES))
    found = next((kind for kind, begins in _MAGIC.items() if magic.startswith(begins)), "")
    if found and not packing:
        raise ValueError(f"it is packed; its format is {name}.{found}")


def wider(one: pa.DataType, two: pa.DataType, name: str) -> pa.DataType:
    """The type that holds the values of both, as JSON's are inferred.

    Raises:
        ValueError: there is none; names the column.
    """
    types = pa.types
    if one == two or types.is_null(two):
        return one
    if types.is_null(one):
        return two
    numbers = {pa.int64(), pa.float64()}
    if {one, two} <= numbers:
        return pa.float64()
    if types.is_struct(one) and types.is_struct(two):
        fields = {one.field(i).name: one.field(i).type for i in range(one.num_fields)}
        for i in range(two.num_fields):
            field = two.field(i)
            fields[field.name] = wider(fields.get(field.name, pa.null()), field.type, f"{name}.{field.name}")
        return pa.struct(list(fields.items()))
    if types.is_list(one) and types.is_list(two):
        return pa.list_(wider(one.value_type, two.value_type, f"{name}[]"))
    texts = (types.is_string, types.is_timestamp)
    if any(known(one) for known in texts) and any(known(two) for known in texts):
        return pa.string()
    raise ValueError(f"column {name!r} is {one} in some lines and {two} in others")


def _block_for(lines: bytes) -> int:
    return min(max(len(lines), 1 << 16), _LARGEST_BLOCK_BYTES)


def _types_of(given: Any) -> dict[str, pa.DataType]:
    if isinstance(given, pa.Schema):
        return {field.name: field.type for field in given}
    return dict(given or {})


def _has_one_column(beginning: bytes, delimiter: str) -> bool:
    """Whether a file has one column only: there, a blank line is a row, whose field is missing."""
    lines = beginning.splitlines()
    return len(lines) > 1 and bool(lines[0]) and delimiter.encode() not in lines[0]
