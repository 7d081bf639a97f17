"""A table that is hard on file formats, and the round trip through one."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

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


def exotic() -> dict[str, pa.Array]:
    """Columns that few formats hold as they are."""
    return {
        "u8": pa.array([255, None], pa.uint8()),
        "u32": pa.array([2**32 - 1, None], pa.uint32()),
        "half": pa.array([1.5, None], pa.float16()),
        "nulls": pa.nulls(2),
        "text view": pa.array(["ü", None], pa.string_view()),
        "bytes view": pa.array([b"\xff", None], pa.binary_view()),
        "list view": pa.array([["x", None], None], pa.list_view(pa.string())),
        "large list view": pa.array([[1], None], pa.large_list_view(pa.int8())),
        "runs": pa.RunEndEncodedArray.from_arrays([1, 2], ["a", "b"]),
        "dictionary": pa.array(["x", None]).dictionary_encode(),
        "dates": pa.array([["x", None], None], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        "pair": pa.array([[1, 2], None], pa.list_(pa.int32(), 2)),
        "uuid": pa.array([b"0123456789abcdef", None], pa.uuid()),
        "day64": pa.array([date(2024, 1, 1), None], pa.date64()),
        "clock": pa.array([time(1, 2, 3), None], pa.time64("us")),
        "span": pa.array([timedelta(days=1), None], pa.duration("us")),
        "zoned": pa.array([datetime(2024, 1, 1, tzinfo=UTC), None], pa.timestamp("us", "Europe/Berlin")),
        "moment": pa.array([datetime(2024, 1, 1), None], pa.timestamp("ns")),
        "decimal": pa.array([Decimal("1.25"), None], pa.decimal128(10, 2)),
        "wide": pa.array([Decimal("1.25"), None], pa.decimal256(50, 2)),
        "small decimal": pa.array([Decimal("1.25"), None], pa.decimal32(5, 2)),
        "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32())),
        "interval": pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
        "union": pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [pa.array([1, 2])]),
    }
