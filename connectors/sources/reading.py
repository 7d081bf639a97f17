"""Reading files into the store: several threads decode, each writes what it has decoded straight into the
store's memory. What is not yet complete is a pending object: an error, an interrupt or the death of this
process leaves nothing.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

from flightstore.connectors.sources.formats import format_of, stem
from flightstore.connectors.sources.places import Place, find
from flightstore.connectors.sources.planning import Planner, dataset_plan
from flightstore.connectors.sources.units import Advance, Again, Plan, Unit, explained
from flightstore.errors import InvalidArgument

if TYPE_CHECKING:
    from flightstore.abc import AbstractStore
    from flightstore.objects.table import Table
    from flightstore.types import ObjectID

__all__ = ["Progress", "read", "read_into", "read_table", "threads_for"]

Progress = Callable[[int, int], object]
"""``progress(done, total)``: bytes of the files, called in the thread that called."""
_MOST_THREADS = 8
"""Private memory grows with the threads."""
_SECTION_BYTES = 8 << 20
"""Units of fewer bytes of file are read by one thread, one after the other, and their rows gathered."""


def read(
    url: Any,
    *,
    store: AbstractStore | None = None,
    name: str | None = None,
    format: str | None = None,
    columns: Sequence[str] | None = None,
    filter: Any = None,
    metadata: Any = None,
    partitions: pa.Schema | bool | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    storage_options: dict[str, Any] | None = None,
    timeout: float | None = 0,
    **reader_options: Any,
) -> Table:
    """Read files into the store as one table.

    The rows go straight into the store's memory, in the order of the files and within them, some 24 MiB at a
    time per thread: private memory stays bounded whatever the files' size. (JSON documents, Avro and
    workbooks are read whole.) Nothing is visible until all of it is there; an error, an interrupt and the
    death of this process leave nothing behind.

    Args:
        url: A path, a URL (what pyarrow.fs or fsspec opens: ``s3://``, ``memory://``, ``https://``, ...), a
            glob, a directory, an open binary file that can be seeked, a list of them; or a pyarrow dataset,
            whose fragments are read as its scanner reads them, a row group of Parquet at a time.
        store: Where to; None for the default store.
        name: The object's name; None for none.
        format: ``parquet``, ``csv``, ``tsv``, ``jsonl``, ``json``, ``arrow`` (IPC file, Feather), ``arrows``
            (IPC stream), ``orc``, ``avro``, ``xlsx``, ``ods``; text may be packed: ``csv.gz``. None goes by
            the files' extensions.
        columns: These columns, in this order; Parquet and ORC read no others.
        filter: Only rows that meet a pyarrow expression (``pc.field("x") > 3``), or pyarrow's list of tuples.
            Row groups that statistics exclude are not read.
        metadata: As for `Store.put`.
        partitions: Directories named ``key=value`` become columns: None tells their types (whole numbers,
            else text), a schema gives them, False leaves the columns out.
        threads: How many decode at the same time; None for the CPUs of this process, eight at most.
        progress: ``progress(done, total)`` in bytes of the files, called in this thread.
        storage_options: For fsspec, which then opens the URL.
        timeout: As for `Store.put`, for each part.
        reader_options: For Arrow's reader of the format: keyword arguments of ``ParquetFile``, ``ORCFile``,
            ``pyarrow.json.ParseOptions``; those of ``pyarrow.csv.ReadOptions``, ``ParseOptions`` and
            ``ConvertOptions``, by name. Of CSV only the empty field is null unless ``null_values`` says else.

    Returns:
        A reference on the table. All of it was copied, once; nothing of the files is referred to (see
        `adopt`).

    Raises:
        FileNotFoundError: there is no such file.
        FileUnreadable: a file is not what its format says; names it, and the row group.
        InvalidArgument: the extension tells no format; there is no such column or option.
        MissingExtra: a library for the URL or the format is not installed.
        StoreFull: there is no room.
    """
    if store is None:
        from flightstore import connect

        store = connect()
    object_id = read_into(
        store,
        url,
        name=name,
        format=format,
        columns=columns,
        filter=filter,
        metadata=metadata,
        partitions=partitions,
        threads=threads,
        progress=progress,
        storage_options=storage_options,
        timeout=timeout,
        **reader_options,
    )
    return store.get(object_id)  # type: ignore[return-value]


def read_into(
    store: AbstractStore,
    url: Any,
    *,
    name: str | None = None,
    format: str | None = None,
    columns: Sequence[str] | None = None,
    filter: Any = None,
    metadata: Any = None,
    partitions: pa.Schema | bool | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    storage_options: dict[str, Any] | None = None,
    timeout: float | None = 0,
    label: str | None = None,
    **reader_options: Any,
) -> ObjectID:
    """`read` that does not take a reference; `label` is what messages call an open file."""
    wanted = _expression(filter)
    if type(url).__module__.startswith("pyarrow.") and hasattr(url, "get_fragments"):
        for given, what in (
            (format, "format"),
            (partitions, "partitions"),
            (reader_options, "reader options"),
        ):
            if given:
                raise InvalidArgument(
                    f"a dataset has its {what} already", hint="give them to pyarrow.dataset"
                )
        plan = dataset_plan(url, columns, wanted)
        counted = _Progress(progress, sum(unit.nbytes for unit in plan.units))
        with store.create_stream(plan.schema, name, metadata=metadata, timeout=timeout) as writer:
            _load(plan, writer, threads_for(threads), counted)
        counted.finish()
        return writer.id
    places = find(url, storage_options)
    if label is not None:
        places = [replace(place, label=label) for place in places]
    counted = _Progress(progress, sum(place.nbytes for place in places))
    planner = Planner(
        places,
        format,
        columns=columns,
        wanted=wanted,
        partitions=partitions,
        options=reader_options,
        advance=counted,
    )
    while True:
        try:
            plan = planner.plan()
            with store.create_stream(plan.schema, name, metadata=metadata, timeout=timeout) as writer:
                _load(plan, writer, threads_for(threads), counted)
            break
        except Again:
            counted.restart()
    counted.finish()
    return writer.id


def read_table(
    file: IO[bytes],
    file_format: str,
    label: str,
    advance: Advance,
    nulls: Sequence[str] = (),
) -> pa.Table:
    """Read a whole file as an Arrow table in private memory.

    Args:
        file: The open file; it must be seekable.
        file_format: The name of a format that holds tables, as formats.py writes it (``csv.gz``).
        label: The file's name, for messages.
        advance: Called with the number of bytes consumed since the last call.
        nulls: CSV and TSV only: text that stands for a missing value, besides the empty field.

    Raises:
        FileUnreadable: the file is not in that format, is truncated, or contradicts itself.
        MissingExtra: the format needs a library that is not installed.
    """
    options: dict[str, Any] = {}
    if nulls and format_of(file_format).name in ("csv", "tsv"):
        options["null_values"] = ["", *nulls]
    nbytes = file.seek(0, os.SEEK_END)
    planner = Planner([Place(label, "", nbytes, file=file)], file_format, options=options, advance=advance)
    while True:
        try:
            plan = planner.plan()
            batches = [batch for unit in plan.units for batch in _batches(unit, advance)]
            return pa.Table.from_batches(batches, plan.schema)
        except Again:
            advance = _ignored


def threads_for(threads: int | None) -> int:
    """How many threads to use.

    Raises:
        InvalidArgument: it is no number from 1.
    """
    if threads is None:
        return min(max(len(os.sched_getaffinity(0)), 1), _MOST_THREADS)
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise InvalidArgument(f"{threads!r} is no number of threads")
    return threads


def _ignored(_count: int) -> None:
    """What was reported already."""


def _expression(filter: Any) -> Any:
    import pyarrow.compute as pc
    from pyarrow.parquet import filters_to_expression

    if filter is None or isinstance(filter, pc.Expression):
        return filter
    try:
        return filters_to_expression(filter)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise InvalidArgument(
            f"the filter is no expression: {error}", hint="pyarrow.compute.field('x') > 3, or [('x', '>', 3)]"
        ) from error


def _batches(unit: Unit, advance: Advance) -> Iterator[pa.RecordBatch]:
    with explained(unit.label, unit.file_format):
        yield from unit.batches(advance)


class _Progress:
    """Counts bytes, in any thread; tells of them in one."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0
        self._most = -1
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._done += count

    def tell(self) -> None:
        """Call back, if there is something new."""
        done = min(self._done, self._total)
        if self._progress is not None and done > self._most:
            self._most = done
            self._progress(done, self._total)

    def restart(self) -> None:
        """The files are read again; what was told stays told."""
        self._done = 0

    def finish(self) -> None:
        """All is done."""
        self._done = self._total
        self.tell()


def sections_of(units: Sequence[Unit]) -> list[list[Unit]]:
    """The units in runs that a thread reads one after the other."""
    sections: list[list[Unit]] = []
    nbytes = _SECTION_BYTES
    for unit in units:
        if nbytes >= _SECTION_BYTES:
            sections.append([])
            nbytes = 0
        sections[-1].append(unit)
        nbytes += unit.nbytes
    return sections


def _load(plan: Plan, writer: Any, threads: int, counted: _Progress) -> None:
    sections = sections_of(plan.units)
    if threads == 1 or len(sections) < 2:
        for unit in plan.units:
            for batch in _batches(unit, counted):
                writer.write(batch)
                counted.tell()
        return
    _Workers(sections, writer, counted).run(min(threads, len(sections)))


class _Workers:
    """Threads that read sections, each the next one that nobody reads yet."""

    def __init__(self, sections: Sequence[Sequence[Unit]], writer: Any, counted: _Progress) -> None:
        self._todo = iter(enumerate(sections))
        self._writer = writer
        self._counted = counted
        self._lock = threading.Lock()
        self._stopped = False
        self._news: queue.SimpleQueue[BaseException | bool | None] = queue.SimpleQueue()

    def run(self, threads: int) -> None:
        """Read all; raises the first error, when all threads have ended."""
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        try:
            for worker in workers:
                worker.start()
            self._follow(threads)
        finally:
            self._stopped = True
            for worker in workers:
                if worker.ident is not None:
                    worker.join()

    def _follow(self, running: int) -> None:
        while running:
            news = self._news.get()
            if isinstance(news, BaseException):
                raise news
            if news is None:
                running -= 1
            self._counted.tell()

    def _work(self) -> None:
        try:
            while (found := self._next()) is not None:
                number, units = found
                section = self._writer.section(number)
                for batch in itertools.chain.from_iterable(_batches(unit, self._counted) for unit in units):
                    if self._stopped:
                        return
                    section.write(batch)
                    self._news.put(True)
                section.close()
            self._news.put(None)
        except BaseException as error:
            self._news.put(error)

    def _next(self) -> tuple[int, Sequence[Unit]] | None:
        with self._lock:
            return None if self._stopped else next(self._todo, None)


def name_of(url: Any) -> str:
    """The name that a file's object gets when it is given none."""
    return stem(os.fspath(url))
