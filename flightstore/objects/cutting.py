"""Tables cut out of stored ones, by rows or by columns. Pure, like composition.py, which it calls, and
columns.py.

The unit of sharing is a column of a stream. A cut between two streams shares both; a cut through one writes
the rows of that stream which are wanted, and of the columns that lie in it only. So a table that was written
in parts is cut for little, and one that was put whole is copied, each row once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import pyarrow as pa

from flightstore.errors import InvalidArgument
from flightstore.objects import columns as tables
from flightstore.objects.base import Object
from flightstore.objects.composition import Composition, Piece, Source, own_segments, table_of
from flightstore.objects.encoding import parts_of
from flightstore.objects.ipc import Stream

__all__ = ["cut_columns", "cut_rows"]


class _Run(NamedTuple):
    """Rows `start` to `stop` of the table that lie in one piece of a column, or a part of it."""

    piece: Piece
    whole: bool
    """Whether that is all of the piece."""
    start: int
    stop: int


def cut_columns(obj: Object, groups: Iterable[Iterable[str]]) -> list[Composition]:
    """Tables of some columns each; no row is written.

    Raises:
        InvalidArgument: the object is no table, or has no such column.
    """
    return [tables.select(obj, names) for names in groups]


def cut_rows(obj: Object, at: Iterable[int]) -> list[Composition]:
    """The tables before, between and after the rows of these numbers.

    Raises:
        InvalidArgument: the object is no table; the numbers do not ascend, or are not in it.
    """
    source, connector = tables.source_parts(obj)
    bounds = [0, *at, source.num_rows]
    if any(not isinstance(one, int) or isinstance(one, bool) for one in bounds) or any(
        two < one for one, two in pairwise(bounds)
    ):
        raise InvalidArgument(
            f"the table cannot be cut at the rows {bounds[1:-1][:10]}",
            hint=f"give numbers that ascend, from 0 to {source.num_rows:,}",
        )
    whole: pa.Table = obj.to_arrow()  # type: ignore[attr-defined]
    lengths = _Lengths()
    runs = [_runs(pieces, lengths) for pieces in source.columns]
    found = []
    for start, stop in pairwise(bounds):
        wanted, streams = _part(source, whole, runs, start, stop)
        found.append(tables.composed(obj, connector, wanted, streams))
    return found


class _Lengths:
    """How many rows segments have; each is looked at once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, int], int] = {}

    def of(self, piece: Piece) -> int:
        segment = piece.segment
        if segment.key not in self._known:
            layout = segment.layout
            if len(layout.batches) == layout.num_batches:
                rows = sum(rows for _, _, rows in layout.batches)
            else:
                rows = table_of(segment).num_rows
            self._known[segment.key] = rows
        return self._known[segment.key]


def _runs(pieces: Sequence[Piece], lengths: _Lengths) -> list[_Run]:
    ends = list(accumulate([lengths.of(piece) for piece in pieces], initial=0))
    return [
        _Run(piece, True, start, stop) for piece, (start, stop) in zip(pieces, pairwise(ends), strict=True)
    ]


def _part(
    source: Source, whole: pa.Table, runs: Sequence[Sequence[_Run]], start: int, stop: int
) -> tuple[Source, list[Stream]]:
    """The rows from `start` to `stop`, and the streams that have to be written for them."""
    kept = [_cut(of_column, start, stop) for of_column in runs]
    copied: dict[tuple[int, int], list[int]] = {}
    for column, of_column in enumerate(kept):
        for run in of_column:
            if not run.whole:
                copied.setdefault((run.start, run.stop), []).append(column)
    streams: list[tuple[Stream, pa.Schema]] = []
    places: dict[tuple[int, int, int], tuple[int, int]] = {}
    for (first, last), columns in copied.items():
        # The field's metadata goes along, so that the schema of the part is the schema of the table.
        rows = whole.select(columns).slice(first, last - first)
        own, inside = parts_of(rows)
        for column, (number, position) in zip(columns, inside, strict=True):
            places[column, first, last] = (len(streams) + number, position)
        streams += own
    segments = own_segments(streams)
    columns_of = []
    for column, of_column in enumerate(kept):
        pieces = []
        for run in of_column:
            if run.whole:
                pieces.append(run.piece)
            else:
                number, position = places[column, run.start, run.stop]
                pieces.append(Piece(segments[number], position))
        columns_of.append(tuple(pieces))
    return Source(source.schema, stop - start, columns_of), [stream for stream, _ in streams]


def _cut(runs: Sequence[_Run], start: int, stop: int) -> list[_Run]:
    """What of a column's runs lies between two rows; at least one piece, which may be empty."""
    kept = []
    for run in runs:
        low, high = max(run.start, start), min(run.stop, stop)
        if low < high:
            kept.append(_Run(run.piece, run.whole and (low, high) == (run.start, run.stop), low, high))
    if not kept and runs:
        kept.append(_Run(runs[0].piece, False, start, start))
    return kept
