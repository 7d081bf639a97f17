"""Spilled payload behind fsspec: S3, Google Cloud, Azure, SFTP, SMB, WebDAV, HDFS and whatever else it knows.

Fields of the URL's query are options of its file system (``s3://bucket/spill?endpoint_url=...``); better keep
credentials out of the URL, in the environment or in fsspec's configuration. Chains (``dir::...``) work.

Whole or not at all: to S3 a file is uploaded in parts that its last request makes a file of. Elsewhere it is
written under a temporary name and then moved, which is as much at once as the file system's `mv` is. What a
killed upload to S3 has left is no file, shows nowhere, and costs money: let the bucket have a rule that
removes unfinished uploads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

from flightstore.abc.storage import UNFINISHED, SpillStorage, check_spill_name, is_spill_name, masked_url
from flightstore.adapters.spill.common import (
    WrongLength,
    damaged,
    fill,
    os_errors,
    parts,
    split_query,
    without_slashes,
)
from flightstore.errors import InvalidArgument, MissingExtra
from flightstore.objects.extras import require

__all__ = ["FsspecStorage"]

_UPLOADS = frozenset({"s3", "s3a"})
"""Protocols whose files appear with the last request of an upload, and whose library can give one up."""
_FETCHES = 4
"""Requests at once, where the library can."""


class FsspecStorage(SpillStorage):
    """A folder of a file system of fsspec."""

    def __init__(self, url: str) -> None:
        self.url = without_slashes(url)
        self._address, self._options = split_query(self.url.removeprefix("fsspec+"))
        self._protocols = [part.partition("://")[0] for part in self._address.split("::")]
        for protocol in self._protocols:
            _check_protocol(protocol, url)
        self._opening = threading.Lock()
        self._opened: tuple[Any, str] | None = None

    def _open(self) -> tuple[Any, str]:
        """The file system, and where in it the folder is. Made with the first use: it may connect."""
        if self._opened is None:
            url_to_fs = require("fsspec", "a spill storage").core.url_to_fs
            options: dict[str, Any] = {self._protocols[-1]: self._options} if self._options else {}
            with self._opening, os_errors(self.url, "connecting"):
                if self._opened is None:
                    fs, root = url_to_fs(self._address, skip_instance_cache=True, **options)
                    self._opened = fs, root.rstrip("/")
        return self._opened

    def _at(self, name: str) -> tuple[Any, str]:
        check_spill_name(name)
        fs, root = self._open()
        return fs, f"{root}/{name}"

    def write(self, name: str, pieces: Sequence[memoryview]) -> None:
        fs, path = self._at(name)
        if self._protocols[0] in _UPLOADS:
            self._upload(fs, path, name, pieces)
        else:
            self._write_and_move(fs, path, name, pieces)

    def _upload(self, fs: Any, path: str, name: str, pieces: Sequence[memoryview]) -> None:
        doing = f"writing {name}"
        with os_errors(self.url, doing):
            file = fs.open(path, "wb", autocommit=False)
        try:
            for part in parts(pieces):
                with os_errors(self.url, doing):
                    file.write(part)
            with os_errors(self.url, doing):
                file.close()
                file.commit()
        except BaseException:
            with contextlib.suppress(Exception):
                file.discard()
            file.closed = True  # or its finalizer would upload the rest
            raise

    def _write_and_move(self, fs: Any, path: str, name: str, pieces: Sequence[memoryview]) -> None:
        doing = f"writing {name}"
        unfinished = path + UNFINISHED
        try:
            with os_errors(self.url, doing):
                file = self._create(fs, unfinished)
            try:
                for part in parts(pieces):
                    with os_errors(self.url, doing):
                        file.write(part)
            finally:
                with os_errors(self.url, doing):
                    file.close()
            with os_errors(self.url, doing):
                fs.mv(unfinished, path)
        except BaseException:
            with contextlib.suppress(Exception):
                fs.rm_file(unfinished)
            raise

    def _create(self, fs: Any, path: str) -> Any:
        try:
            return fs.open(path, "wb")
        except FileNotFoundError:
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            return fs.open(path, "wb")

    def read_into(self, name: str, target: memoryview) -> None:
        fs, path = self._at(name)
        with os_errors(self.url, f"reading {name}"):
            fs.invalidate_cache(path)
            size = int(fs.info(path)["size"])
            if size != target.nbytes:
                raise damaged(self, name, size, target.nbytes)
            try:
                fill(
                    target,
                    lambda start, end: fs.cat_file(path, start=start, end=end),
                    _FETCHES if fs.async_impl else 1,
                )
            except WrongLength as error:
                raise damaged(self, name, int(fs.info(path)["size"]), target.nbytes) from error

    def remove(self, name: str) -> None:
        fs, path = self._at(name)
        self._remove(fs, path, name)
        self._remove(fs, path + UNFINISHED, name)

    def remove_unfinished(self, name: str) -> None:
        fs, path = self._at(name)
        self._remove(fs, path + UNFINISHED, name)

    def _remove(self, fs: Any, path: str, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), os_errors(self.url, f"removing {name}"):
            fs.rm_file(path)

    def names(self, prefix: str = "") -> list[str]:
        fs, root = self._open()
        try:
            with os_errors(self.url, "listing"):
                fs.invalidate_cache(root or "/")
                found = [path.rpartition("/")[2] for path in fs.ls(root or "/", detail=False)]
        except FileNotFoundError:
            return []
        ours = {name.removesuffix(UNFINISHED) for name in found if name.startswith(prefix)}
        return sorted(filter(is_spill_name, ours))


def _check_protocol(protocol: str, url: str) -> None:
    """Refuse what fsspec does not know.

    Raises:
        MissingExtra: fsspec, or what it needs for this protocol, is not installed.
        InvalidArgument: it does not know it.
    """
    fsspec = require("fsspec", f"the spill storage {masked_url(url)}")
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise MissingExtra(
            f"the spill storage {masked_url(url)} needs a library that is not installed: {error}",
            hint="install it beside fsspec",
        ) from error
    except ValueError as error:
        raise InvalidArgument(f"fsspec knows no {protocol}://") from error
