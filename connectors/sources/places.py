"""Where files are: paths, globs, directories and URLs -> file systems and files, with what their directories
say.

URLs that pyarrow.fs knows (s3, gs, hdfs, file) are opened by it, all others, and all that come with
`storage_options`, by fsspec. The order of files is that of their names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from flightstore.errors import InvalidArgument, MissingExtra

__all__ = ["NULL_KEY", "Place", "directory_keys", "find", "resolve"]

NULL_KEY = "__HIVE_DEFAULT_PARTITION__"
"""The directory for rows without a value."""
_GLOB = re.compile(r"[*?\[]")
_BY_ARROW = frozenset({"file", "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss"})


@dataclass(frozen=True, slots=True)
class Place:
    """A file."""

    label: str
    """Its name, for messages."""
    path: str
    """Its name in the file system."""
    nbytes: int
    """Its size; 0 where that is not known."""
    filesystem: Any = None
    """The pyarrow.fs.FileSystem; None for an open file."""
    file: Any = None
    """An open binary file, seekable."""
    keys: dict[str, str | None] = field(default_factory=dict)
    """Columns that its directories give (``year=2026``), as text."""

    @property
    def is_local(self) -> bool:
        """Whether it can be mapped."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def open(self) -> Any:
        """A binary file, at its beginning."""
        if self.file is not None:
            self.file.seek(0)
            return self.file
        return self.filesystem.open_input_file(self.path)


def resolve(url: Any, storage_options: dict[str, Any] | None) -> tuple[Any, str]:
    """The file system (pyarrow's) and the path in it.

    Raises:
        InvalidArgument: there is no such kind of URL.
        MissingExtra: it needs a library that is not installed.
    """
    text = os.fspath(url) if not isinstance(url, str) else url
    scheme = text.partition("://")[0] if "://" in text else ""
    if not scheme:
        return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text))
    if scheme in _BY_ARROW and not storage_options:
        try:
            filesystem, path = fs.FileSystem.from_uri(text)
        except (pa.ArrowException, ValueError) as error:
            raise InvalidArgument(f"{text} is no URL that can be opened: {error}") from error
        return filesystem, path
    return _by_fsspec(text, storage_options or {})


def _by_fsspec(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    try:
        core = import_module("fsspec.core")
        filesystem, path = core.url_to_fs(url, **options)
    except ImportError as error:
        raise MissingExtra(
            f"{url} needs fsspec, and its package for such URLs: {error}",
            hint="pip install 'flightstore[fsspec]'",
        ) from error
    except ValueError as error:
        raise InvalidArgument(f"{url} is no URL that can be opened: {error}") from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


def find(url: Any, storage_options: dict[str, Any] | None = None) -> list[Place]:
    """The files that a path, a URL, a glob, a directory, an open file, or several of them mean.

    Files in directories whose names begin with ``.`` or ``_`` are not taken.

    Raises:
        FileNotFoundError: there are none.
        InvalidArgument, MissingExtra: as `resolve`.
    """
    if hasattr(url, "read") and hasattr(url, "seek"):
        return [_open_file(url)]
    if isinstance(url, Iterable) and not isinstance(url, str | bytes | os.PathLike):
        return [place for one in url for place in find(one, storage_options)]
    if not isinstance(url, str | os.PathLike):
        raise InvalidArgument(f"a {type(url).__name__} is no path, URL or open file")
    filesystem, path = resolve(url, storage_options)
    shown = str(os.fspath(url))
    found = _at(filesystem, path, shown)
    if not found:
        raise FileNotFoundError(2, "there is no such file, or no file in it", shown)
    return found


def _open_file(file: Any) -> Place:
    at = file.tell()
    nbytes = file.seek(0, os.SEEK_END)
    file.seek(at)
    return Place(str(getattr(file, "name", "the file")), "", nbytes or file.tell(), file=file)


def _at(filesystem: Any, path: str, shown: str) -> list[Place]:
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.File:
        return [Place(shown, info.path, info.size or 0, filesystem)]
    if info.type == fs.FileType.Directory:
        return _below(filesystem, path, shown)
    if not _GLOB.search(path):
        # HTTP servers do not list: whether there is a file is told by opening it.
        return [Place(shown, path, 0, filesystem)] if shown.startswith(("http://", "https://")) else []
    base = path[: _GLOB.search(path).start()].rpartition("/")[0]  # type: ignore[union-attr]
    places = []
    for place in _below(filesystem, base or "/", base):
        if _matches(place.path.split("/"), path.split("/")):
            places.append(replace(place, keys=directory_keys(place.path)))
    return places


def _below(filesystem: Any, base: str, shown: str) -> list[Place]:
    selector = fs.FileSelector(base, recursive=True, allow_not_found=True)
    places = []
    for info in sorted(filesystem.get_file_info(selector), key=lambda one: one.path):
        inside = (
            info.path[len(base.rstrip("/")) :].strip("/") if info.path.startswith(base) else info.base_name
        )
        if info.type != fs.FileType.File or any(part[:1] in "._" for part in inside.split("/")):
            continue
        label = f"{shown.rstrip('/')}/{inside}"
        places.append(Place(label, info.path, info.size or 0, filesystem, keys=directory_keys(inside)))
    return places


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether a path fits a glob, segment by segment; ``**`` is any number of them."""
    if not pattern or not parts:
        return not pattern and not parts
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern) or pattern[1:] == []
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def directory_keys(path: str) -> dict[str, str | None]:
    """The columns that a path's directories give: ``year=2026/month=3/part-0.parquet``."""
    keys: dict[str, str | None] = {}
    for part in path.split("/")[:-1]:
        name, equals, text = part.partition("=")
        if equals and name:
            keys[unquote(name)] = None if text == NULL_KEY else unquote(text)
    return keys
