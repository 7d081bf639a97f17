"""Writing tables to files that appear whole or not at all.

A file is written under a hidden temporary name beside its target and renamed; a directory of files likewise,
all of it. So an error, an interrupt or the death of this process leaves nothing under the final name. Where a
file system cannot rename (object stores), the finished files are moved one by one.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from flightstore.connectors.sources.encoders import write_table
from flightstore.connectors.sources.formats import detect_format, format_of
from flightstore.connectors.sources.grouping import groups_of, rows_at
from flightstore.connectors.sources.places import NULL_KEY, resolve
from flightstore.connectors.sources.planning import known_format
from flightstore.connectors.sources.reading import Progress, threads_for
from flightstore.errors import FlightStoreError, InvalidArgument

__all__ = ["FileTaken", "WriteResult", "atomic_file", "write"]


class FileTaken(FlightStoreError, FileExistsError):
    """There is a file or directory of that name already."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What was written."""

    files: tuple[str, ...]
    """The files, as paths or URLs."""
    rows: int
    """Rows in all of them."""
    bytes: int
    """Bytes of all of them."""


@contextmanager
def atomic_file(path: str) -> Iterator[IO[bytes]]:
    """A local file that appears under `path` when the block ends well; otherwise nothing is left.

    It is written under a hidden temporary name in the same directory and renamed, so whatever was there
    before stays until the new file is whole. Only a SIGKILL leaves the temporary file (``.NAME.*.part``).
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(target)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def write(
    obj: Any,
    url: Any,
    *,
    format: str | None = None,
    partition_by: Sequence[str] | str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    storage_options: dict[str, Any] | None = None,
    overwrite: bool = False,
    **writer_options: Any,
) -> WriteResult:
    """Write a table to a file, or to a directory of files by the values of some columns.

    Nothing appears under the final name before it is whole.

    Args:
        obj: A stored table, or anything else that Arrow takes for one.
        url: The file's path or URL; with `partition_by` the directory's.
        format: As for `read`; None goes by the extension (and is Parquet for a directory).
        partition_by: Columns whose values make the directories (``country=DE/year=2026/part-0.parquet``);
        they are
            not in the files. The order of the rows of a file is that of the table. Private memory holds the
            rows of one file per thread.
        threads: How many files are written at the same time; None for the CPUs of this process,
            eight at most.
        progress: ``progress(done, total)`` in bytes of the table, called in this thread.
        storage_options: As for `read`.
        overwrite: Whether what is there already may be replaced; of a directory, all of it, provided that
            there is nothing in it but files of tables.
        writer_options: For Arrow's writer of the format: keyword arguments of ``ParquetWriter`` (and
            ``row_group_size``), ``ORCWriter``, ``pyarrow.csv.WriteOptions``, ``pyarrow.ipc.IpcWriteOptions``.

    Raises:
        FileTaken: it is there already, and `overwrite` is false.
        InvalidArgument: the format cannot hold a column; names it. There is no such format, column or option.
        MissingExtra: a library for the URL or the format is not installed.
    """
    table = _table(obj)
    filesystem, path = resolve(url, storage_options)
    shown = str(os.fspath(url)).rstrip("/")
    by = [partition_by] if isinstance(partition_by, str) else list(partition_by or ())
    if by and format is None:
        format = "parquet"
    file_format = known_format(format, path)
    if not format_of(file_format).writes:
        raise InvalidArgument(f"{file_format} is only read", hint="xlsx is a workbook that can be written")
    target = _Target(filesystem, path.rstrip("/"), shown)
    target.check(overwrite=overwrite, directory=bool(by))
    counted = _Counted(progress, table.nbytes)
    if by:
        return _write_directory(
            table, target, by, file_format, threads_for(threads), counted, writer_options, overwrite
        )
    with target.temporary(overwrite) as part:
        nbytes = _write_file(filesystem, part, table, file_format, counted, writer_options)
    counted.finish()
    return WriteResult((shown,), table.num_rows, nbytes)


def _table(obj: Any) -> pa.Table:
    if isinstance(obj, pa.Table):
        return obj
    if hasattr(obj, "to_arrow"):
        table = obj.to_arrow()
        if isinstance(table, pa.Table):
            return table
    if hasattr(obj, "__arrow_c_stream__") or hasattr(obj, "__dataframe__"):
        return pa.table(obj)
    raise InvalidArgument(f"a {type(obj).__name__} is no table", hint="give a stored table: store.get(name)")


class _Counted:
    """Progress in bytes of the table."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0
        self._caller = threading.get_ident()
        self._lock = threading.Lock()
        self.stopped = False

    def __call__(self, count: int) -> None:
        if self.stopped:
            raise _Stopped
        with self._lock:
            self._done += count
        if threading.get_ident() == self._caller:
            self.tell()

    def tell(self) -> None:
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)

    def finish(self) -> None:
        self._done = self._total
        self.tell()


class _Stopped(Exception):
    """Another file could not be written."""


class _Sink(io.RawIOBase):
    """A stream of the file system as a Python file; whoever writes to it may close it, and cannot seek."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream
        self.nbytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with memoryview(data) as view:
            self._stream.write(data)
            self.nbytes += view.nbytes
            return view.nbytes

    def tell(self) -> int:
        return self.nbytes


def _write_file(
    filesystem: Any,
    path: str,
    table: pa.Table,
    file_format: str,
    advance: Callable[[int], None],
    options: Any,
) -> int:
    with filesystem.open_output_stream(path, compression=None) as stream:
        sink = _Sink(stream)
        write_table(table, sink, file_format, advance, options)  # type: ignore[arg-type]
        return sink.nbytes


class _Target:
    """Where a file or directory is to appear."""

    def __init__(self, filesystem: Any, path: str, shown: str) -> None:
        self.filesystem = filesystem
        self.path = path
        self.shown = shown
        self.is_local = isinstance(filesystem, fs.LocalFileSystem)

    def check(self, *, overwrite: bool, directory: bool) -> None:
        """Refuse what must not be replaced."""
        found = self.filesystem.get_file_info(self.path)
        if found.type == fs.FileType.NotFound:
            return
        is_directory = found.type == fs.FileType.Directory
        if not overwrite:
            raise self.taken()
        if is_directory != directory:
            raise InvalidArgument(
                f"{self.shown} is a {'directory' if is_directory else 'file'} and will not be replaced by a "
                f"{'directory' if directory else 'file'}",
                hint="remove it, or choose another name",
            )
        if is_directory:
            self._refuse_others()

    def taken(self) -> FileTaken:
        """The error for what is there."""
        return FileTaken(f"{self.shown} is there already", hint="overwrite=True replaces it")

    def _refuse_others(self) -> None:
        """A directory that is to be replaced holds files of tables and nothing else."""
        for info in self.filesystem.get_file_info(fs.FileSelector(self.path, recursive=True)):
            if info.type == fs.FileType.File and detect_format(info.path) is None:
                raise InvalidArgument(
                    f"{self.shown} holds {info.path}, which is no table, and will not be replaced",
                    hint="remove it, or choose another name",
                )

    @contextmanager
    def temporary(self, overwrite: bool) -> Iterator[str]:
        """A hidden name beside it, for a file that gets the final name when the block ends well."""
        part = self.beside()
        if self.is_local:
            Path(part).parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            if not self.is_local:
                self.filesystem.move(part, self.path)
            elif overwrite:
                os.replace(part, self.path)
            else:
                try:
                    os.link(part, self.path)  # fails if it is there, unlike a rename
                except FileExistsError:
                    raise self.taken() from None
                os.unlink(part)
        except BaseException:
            with suppress(OSError, pa.ArrowException):
                self.filesystem.delete_file(part)
            raise

    @contextmanager
    def temporary_directory(self, overwrite: bool) -> Iterator[str]:
        """A hidden directory beside it, that gets the final name when the block ends well. One that is
        replaced is away for the instant between two renames.
        """
        part = self.beside()
        self.filesystem.create_dir(part, recursive=True)
        try:
            yield part
            if self.is_local:
                self._rename_directory(part, overwrite)
            else:
                self._move_files(part)
        except BaseException:
            with suppress(OSError, pa.ArrowException):
                self.filesystem.delete_dir(part)
            raise

    def _rename_directory(self, part: str, overwrite: bool) -> None:
        if not overwrite:
            try:
                os.rename(part, self.path)  # fails if there is something in it
            except (FileExistsError, NotADirectoryError) as error:
                raise self.taken() from error
            except OSError as error:
                raise self.taken() if error.errno == errno.ENOTEMPTY else error from error
            return
        old = self.beside()
        with suppress(FileNotFoundError):
            os.rename(self.path, old)
        try:
            os.rename(part, self.path)
        except BaseException:
            with suppress(OSError):
                os.rename(old, self.path)
            raise
        with suppress(FileNotFoundError):
            self.filesystem.delete_dir(old)

    def _move_files(self, part: str) -> None:
        selector = fs.FileSelector(part, recursive=True)
        files = [
            info.path for info in self.filesystem.get_file_info(selector) if info.type == fs.FileType.File
        ]
        if self.filesystem.get_file_info(self.path).type == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path)
        for path in files:
            target = self.path + path[path.index(part.rsplit("/", 1)[1]) + len(part.rsplit("/", 1)[1]) :]
            self.filesystem.create_dir(target.rpartition("/")[0], recursive=True)
            self.filesystem.move(path, target)
        with suppress(FileNotFoundError):  # object stores have no directories
            self.filesystem.delete_dir(part)

    def beside(self) -> str:
        """Another hidden name in the same directory."""
        folder, slash, name = self.path.rpartition("/")
        return f"{folder}{slash}.{name}.{secrets.token_hex(4)}.part"


def _write_directory(
    table: pa.Table,
    target: _Target,
    by: list[str],
    file_format: str,
    threads: int,
    counted: _Counted,
    options: Any,
    overwrite: bool,
) -> WriteResult:
    groups = groups_of(table, by)
    rest = table.select([index for index, name in enumerate(table.column_names) if name not in by])
    if not rest.num_columns:
        raise InvalidArgument("all columns are to make directories: none is left for the files")
    extension = (
        next(one for one in format_of(file_format).extensions)
        + file_format[len(format_of(file_format).name) :]
    )
    with target.temporary_directory(overwrite) as part:
        names = []

        def write_one(name: str, rows: Any) -> int:
            return _write_file(
                target.filesystem, f"{part}/{name}", rows_at(rest, rows), file_format, counted, options
            )

        pool = ThreadPoolExecutor(threads)
        try:
            futures = []
            for values, rows in groups:
                keys = [f"{quote(key)}={_key(value)}" for key, value in zip(by, values, strict=True)]
                names.append("/".join([*keys, f"part-0{extension}"]))
                target.filesystem.create_dir(f"{part}/{'/'.join(keys)}", recursive=True)
                futures.append(pool.submit(write_one, names[-1], rows))
            for done in as_completed(futures):
                done.result()
                counted.tell()
        except BaseException:
            counted.stopped = True
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        if not overwrite:
            target.check(overwrite=False, directory=True)
    counted.finish()
    nbytes = sum(future.result() for future in futures)
    return WriteResult(tuple(f"{target.shown}/{name}" for name in names), table.num_rows, nbytes)


def _key(value: str | None) -> str:
    return NULL_KEY if value is None else quote(value, safe=" ,;:@()+-_.")
