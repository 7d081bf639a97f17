"""Write the tables of docs/how-to/types.md: which type is shared with which library, as measured here.

Each type is put into a store as a column, taken out in each form, and the addresses of what comes out are
compared with the store's mapping. `make docs` runs this; a test measures again and fails when the page says
something else.
"""

from __future__ import annotations

import decimal
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import flightstore as fs
from flightstore.objects.table import Table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "how-to" / "types.md"
ROWS = 1_000
BEGIN, END = "<!-- {}: made by `make docs`. -->", "<!-- end of {} -->"

Span = tuple[int, int]
"""Address and bytes of a piece of memory."""


# --- what is put ---

NUMBERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
NUMBERS += [pa.float16(), pa.float32(), pa.float64()]
ALIKE = {str(kind): "integers, floats" for kind in NUMBERS}
"""Columns that share a row of the tables, since the same is true of all of them."""


def columns() -> dict[str, pa.Array]:
    """A column of each type, by the words of the table."""
    numbers = np.arange(ROWS)
    text = [f"a text of more than twelve bytes, {n}" for n in numbers]
    lists = [[int(n), int(n) + 1] for n in numbers]
    instants = pa.array(numbers, pa.timestamp("us"))
    plain: dict[str, pa.Array] = {
        **{str(kind): pa.array(numbers % 100).cast(kind) for kind in NUMBERS},
        "int64, with nulls": with_nulls(pa.array(numbers, pa.int64())),
        "bool": pa.array(numbers % 2 == 0),
        "timestamp": instants,
        "timestamp of seconds": pa.array(numbers, pa.timestamp("s")),
        "timestamp with time zone": pa.array(numbers, pa.timestamp("us", "Europe/Paris")),
        "timestamp, with nulls": with_nulls(instants),
        "duration": pa.array(numbers, pa.duration("us")),
        "duration of seconds": pa.array(numbers, pa.duration("s")),
        "date32": pa.array(numbers.astype("i4"), pa.date32()),
        "date64": pa.array(numbers * 86_400_000, pa.date64()),
        "time64": pa.array(numbers, pa.time64("us")),
        "month_day_nano_interval": pa.array([(1, 2, 3)] * ROWS, pa.month_day_nano_interval()),
        "decimal128": pa.array([decimal.Decimal(f"{n}.50") for n in numbers], pa.decimal128(20, 2)),
        "decimal256": pa.array([decimal.Decimal(f"{n}.50") for n in numbers], pa.decimal256(50, 2)),
        "string": pa.array(text, pa.string()),
        "string, with nulls": with_nulls(pa.array(text, pa.string())),
        "large_string": pa.array(text, pa.large_string()),
        "string_view": pa.array(text, pa.string_view()),
        "binary": pa.array([one.encode() for one in text], pa.binary()),
        "binary of fixed size": pa.array([b"sixteen bytes..."] * ROWS, pa.binary(16)),
        "dictionary of text": pa.array([f"category {n % 10}" for n in numbers]).dictionary_encode(),
        "list": pa.array(lists, pa.list_(pa.int64())),
        "large_list": pa.array(lists, pa.large_list(pa.int64())),
        "list_view": pa.array(lists, pa.list_view(pa.int64())),
        "list of fixed size": pa.array(lists, pa.list_(pa.int64(), 2)),
        "struct": pa.array([{"a": int(n), "b": float(n)} for n in numbers]),
        "map": pa.array([[("key", int(n))] for n in numbers], pa.map_(pa.string(), pa.int64())),
        "run-end encoded": pa.RunEndEncodedArray.from_arrays(np.arange(1, ROWS + 1, dtype="i4"), numbers),
        "union": pa.UnionArray.from_sparse(
            pa.array(numbers % 2, pa.int8()), [pa.array(numbers), pa.array(text)]
        ),
        "uuid (extension type)": pa.ExtensionArray.from_storage(
            pa.uuid(), pa.array([b"0" * 16] * ROWS, pa.binary(16))
        ),
        "null": pa.nulls(ROWS),
    }
    return plain


def with_nulls(array: pa.Array) -> pa.Array:
    """The array with every third value missing."""
    mask = np.arange(len(array)) % 3 == 0
    return pa.array(
        [None if missing else value for value, missing in zip(array, mask, strict=True)], array.type
    )


# --- what comes out, and where it lies ---


def spans_of_array(array: Any) -> Iterator[Span]:
    """Of a NumPy array."""
    if array.dtype.hasobject:
        yield (id(array[0]), array.nbytes)  # Python's own objects
    elif array.nbytes:
        yield (array.__array_interface__["data"][0], array.nbytes)


def spans_of_arrow(data: Any) -> Iterator[Span]:
    """Of an Arrow array or chunked array, dictionaries included."""
    for chunk in data.chunks if isinstance(data, pa.ChunkedArray) else [data]:
        chunk = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
        yield from ((buffer.address, buffer.size) for buffer in chunk.buffers() if buffer is not None)
        if isinstance(chunk, pa.DictionaryArray):
            yield from spans_of_arrow(chunk.dictionary)


def spans_of_series(series: Any) -> Iterator[Span]:
    """Of a pandas series."""
    values = series.array
    if hasattr(values, "codes"):
        yield from spans_of_array(np.asarray(values.codes))
        yield from spans_of_series(values.categories.to_series())
    elif hasattr(values, "__arrow_array__") and hasattr(values, "_pa_array"):
        yield from spans_of_arrow(values._pa_array)
    else:
        inner = getattr(values, "_ndarray", None)
        yield from spans_of_array(inner if inner is not None else np.asarray(values))


def spans_of_polars(series: Any) -> Iterator[Span]:
    """Of a polars series, its categories included."""
    if series.dtype.__class__.__name__ in ("Categorical", "Enum"):
        yield from spans_of_arrow(pa.chunked_array(series).chunk(0).dictionary)
        series = series.to_physical()
    yield from spans_of_arrow(pa.chunked_array(series))


def pandas_numpy(obj: Table) -> Iterator[Span]:
    return spans_of_series(obj.to_pandas()["x"])


def pandas_arrow(obj: Table) -> Iterator[Span]:
    return spans_of_series(obj.to_pandas(dtype_backend="pyarrow")["x"])


FORMS: dict[str, Callable[[Table], Iterator[Span]]] = {
    "Arrow": lambda obj: spans_of_arrow(obj.to_arrow()["x"]),
    "pandas": pandas_numpy,
    'pandas, `dtype_backend="pyarrow"`': pandas_arrow,
    "polars": lambda obj: spans_of_polars(obj.to_polars()["x"]),
    "NumPy": lambda obj: spans_of_array(obj.to_numpy()),
}
"""How each form is made, and where its values lie."""

REPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "pandas": ("pandas", {}),
    'pandas, `dtype_backend="pyarrow"`': ("pandas", {"dtype_backend": "pyarrow"}),
    "polars": ("polars", {}),
}
"""The connector and options that report on each form."""


@dataclass(frozen=True)
class Measured:
    """What came of one type in one form."""

    state: str
    """``shared``, ``partly``, ``copied``, ``refused`` or ``-`` for no bytes at all."""
    why: str = ""
    """What the report, or the error, says about it."""
    reported: str = ""
    """The same as `state`, as the connector's report has it; empty where there is none."""


def arena_ranges(store: fs.Store) -> list[Span]:
    """Where this process has the store's memory: (first address, end) of each mapping."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    found = [line.split()[0].split("-") for line in maps if line.endswith(f" {store.path}/arena")]
    return [(int(first, 16), int(end, 16)) for first, end in found]


def measure(obj: Table, form: str, ranges: list[Span]) -> Measured:
    """Take a column out in one form, and look where it lies."""
    try:
        spans = [(address, size) for address, size in FORMS[form](obj) if size]
    except fs.NotConvertible as error:
        return Measured("refused", unless_strict(obj, form) or error.message)
    shared = sum(any(first <= address < end for first, end in ranges) for address, _ in spans)
    state = state_of(shared, len(spans) - shared)
    if form not in REPORTS:
        return Measured(state)
    connector, options = REPORTS[form]
    column = obj.conversion_report(connector, **options).columns[0]
    return Measured(state, column.reason, state_of(column.shared_bytes, column.copied_bytes))


def state_of(shared: int, copied: int) -> str:
    """What the table says where so much is shared and so much copied."""
    if not shared + copied:
        return "-"
    return "partly" if shared and copied else "shared" if shared else "copied"


def unless_strict(obj: Table, form: str) -> str:
    """What becomes of a column that is refused, where that can be asked for."""
    if form not in REPORTS:
        return ""
    connector, options = REPORTS[form]
    report = obj.conversion_report(connector, **options, strict=False)
    return f"with `strict=False`: {report.columns[0].reason}"


def measure_all() -> dict[str, dict[str, Measured]]:
    """Every type in every form, in a store made for it."""
    parent = tempfile.mkdtemp(prefix="flightstore-types-", dir="/dev/shm")
    try:
        store = fs.connect(f"{parent}/store", capacity="64MiB")
        found: dict[str, dict[str, Measured]] = {}
        for words, array in columns().items():
            obj = store.get(store.put(pa.table({"x": array})))
            assert isinstance(obj, Table)
            found[words] = {form: measure(obj, form, arena_ranges(store)) for form in FORMS}
        store.destroy()
        return found
    finally:
        shutil.rmtree(parent)


# --- the page ---


def sharing_table(found: dict[str, dict[str, Measured]]) -> str:
    """Type by library.

    Raises:
        ValueError: what ALIKE says is not so.
    """
    lines = [f"| Arrow type | {' | '.join(FORMS)} |", "|---" * (len(FORMS) + 1) + "|"]
    rows: dict[str, list[str]] = {}
    for words, row in found.items():
        states = [f"**{one.state}**" if one.state == "refused" else one.state for one in row.values()]
        known = rows.setdefault(ALIKE.get(words, words), states)
        if known != states:
            raise ValueError(f"{words} is not like the others of its row: {states}, {known}")
    lines += [f"| {words} | {' | '.join(states)} |" for words, states in rows.items()]
    return "\n".join(lines)


def reasons_table(found: dict[str, dict[str, Measured]]) -> str:
    """What is said of whatever is not simply shared."""
    lines = ["| Arrow type | library | | what is said |", "|---|---|---|---|"]
    for words, row in found.items():
        for form, one in row.items():
            if one.why:
                lines.append(f"| {words} | {form} | {one.state} | {one.why.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def versions() -> str:
    """What was measured."""
    return ", ".join(f"{library} {version(library)}" for library in ("pyarrow", "pandas", "polars", "numpy"))


def filled(page: str, parts: dict[str, str]) -> str:
    """The page with its marked parts put anew.

    Raises:
        ValueError: the page has no such part.
    """
    for name, text in parts.items():
        before, begin, rest = page.partition(BEGIN.format(name))
        _, end, after = rest.partition(END.format(name))
        if not (begin and end):
            raise ValueError(f"{PAGE} has no part {name!r}")
        page = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    return page


def tables(found: dict[str, dict[str, Measured]]) -> dict[str, str]:
    """The parts of the page that are measured."""
    return {"sharing": sharing_table(found), "reasons": reasons_table(found)}


def main() -> int:
    """Write the page's tables."""
    PAGE.write_text(
        filled(PAGE.read_text(), {**tables(measure_all()), "versions": f"Measured with {versions()}."})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
