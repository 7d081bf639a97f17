"""A table that is hard on file formats, and the round trip through one."""

from __future__ import annotations

import io
from datetime import date

import pyarrow as pa

from flightstore.cli import formats, readers, writers

TABLES = [name for name, one in formats.FORMATS.items() if one.holds == "table" and one.writes]
PACKED = [
    f"{name}.{packing}" for name in TABLES if formats.FORMATS[name].packed for packing in formats.PACKINGS
]


def ignore(_count: int) -> None:
    """An Advance for whom progress does not matter."""


def table() -> pa.Table:
    return pa.table(
        {
            "id": pa.array([1, 2, 2**53 - 1], pa.int64()),
            "price": pa.array([1.5, None, -0.25]),
            "name": pa.array(["plain", 'with "quotes", commas,\ttabs\nand lines', None]),
            "größe 名": pa.array(["ünï", None, "名前"]),
            "day": pa.array([date(2024, 2, 29), None, date(1969, 12, 31)]),
            "open": pa.array([True, False, None]),
        }
    )


def written(value: pa.Table, file_format: str) -> bytes:
    file = io.BytesIO()
    writers.write_table(value, file, file_format, ignore)
    return file.getvalue()


def read(content: bytes, file_format: str) -> pa.Table:
    return readers.read_table(io.BytesIO(content), file_format, "it", ignore)


def round_trip(value: pa.Table, file_format: str) -> pa.Table:
    return read(written(value, file_format), file_format)


def rows_of(value: pa.Table, file_format: str) -> list[dict[str, object]]:
    """The rows, as far as the format can tell them apart: JSON has no dates."""
    if file_format.partition(".")[0] in ("json", "jsonl"):
        value = value.drop_columns(["day"])
    return value.to_pylist()
