"""Spilled payload behind Arrow's own file systems: S3, Google Cloud, Azure, HDFS; nothing to install.

The URL is Arrow's (``s3://bucket/spill?endpoint_override=...&scheme=http``); `pyarrow.fs.FileSystem.from_uri`
says what may stand in it. Better keep credentials out of it, in the environment.

Whole or not at all: a file is written under a temporary name and then moved. In object stores, too, since
Arrow cannot give up an upload that has begun; there, moving is copying on the server, and S3 copies files of
at most 5 GiB. fsspec does better.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from flightstore.abc.storage import UNFINISHED, SpillStorage, check_spill_name, is_spill_name, masked_url
from flightstore.adapters.spill.common import (
    WrongLength,
    damaged,
    fill,
    os_errors,
    parts,
    scrubbed,
    without_slashes,
)
from flightstore.errors import InvalidArgument, MissingExtra

__all__ = ["ArrowStorage"]

_FETCHES = 4


class ArrowStorage(SpillStorage):
    """A folder of one of Arrow's file systems."""

    def __init__(self, url: str) -> None:
        self.url = without_slashes(url)
        self._fs, self._root = _open(self.url.removeprefix("arrow+"), url)

    def _at(self, name: str) -> str:
        return f"{self._root}/{check_spill_name(name)}"

    def write(self, name: str, pieces: Sequence[memoryview]) -> None:
        path = self._at(name)
        doing = f"writing {name}"
        unfinished = path + UNFINISHED
        try:
            with os_errors(self.url, doing):
                stream = self._create(unfinished)
            try:
                for part in parts(pieces):
                    with os_errors(self.url, doing):
                        stream.write(part)
            finally:
                with os_errors(self.url, doing):
                    stream.close()
            with os_errors(self.url, doing):
                self._fs.move(unfinished, path)
        except BaseException:
            with contextlib.suppress(Exception):
                self._fs.delete_file(unfinished)
            raise

    def _create(self, path: str) -> Any:
        try:
            return self._fs.open_output_stream(path, compression=None)
        except FileNotFoundError:
            self._fs.create_dir(self._root, recursive=True)
            return self._fs.open_output_stream(path, compression=None)

    def read_into(self, name: str, target: memoryview) -> None:
        path = self._at(name)
        with os_errors(self.url, f"reading {name}"), self._fs.open_input_file(path) as file:
            if file.size() != target.nbytes:
                raise damaged(self, name, file.size(), target.nbytes)
            try:
                fill(target, lambda start, end: file.read_at(end - start, start), _FETCHES)
            except WrongLength as error:
                raise damaged(self, name, file.size(), target.nbytes) from error

    def remove(self, name: str) -> None:
        self._remove(self._at(name), name)
        self._remove(self._at(name) + UNFINISHED, name)

    def remove_unfinished(self, name: str) -> None:
        self._remove(self._at(name) + UNFINISHED, name)

    def _remove(self, path: str, name: str) -> None:
        with contextlib.suppress(FileNotFoundError), os_errors(self.url, f"removing {name}"):
            self._fs.delete_file(path)

    def names(self, prefix: str = "") -> list[str]:
        from pyarrow.fs import FileSelector

        with os_errors(self.url, "listing"):
            found = self._fs.get_file_info(FileSelector(self._root, allow_not_found=True))
        ours = {info.base_name.removesuffix(UNFINISHED) for info in found}
        return sorted(name for name in ours if name.startswith(prefix) and is_spill_name(name))


def _open(address: str, url: str) -> tuple[Any, str]:
    """The file system, and where in it the folder is.

    Raises:
        InvalidArgument: Arrow does not know the scheme, or the URL makes no sense to it.
        MissingExtra: this build of Arrow has no such file system.
    """
    from pyarrow.fs import FileSystem

    try:
        fs, root = FileSystem.from_uri(address)
    except NotImplementedError as error:
        raise MissingExtra(
            f"this build of Arrow has no file system for {masked_url(url)}", hint="install fsspec"
        ) from error
    except Exception as error:
        said = scrubbed(str(error), url)
        raise InvalidArgument(f"Arrow cannot open {masked_url(url)}: {said}") from None
    return fs, root.rstrip("/")
