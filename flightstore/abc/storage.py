"""Spill storages: where the payload of spilled objects lies outside of memory, named by a URL.

What backends implement, and what those who implement them need. A storage keeps *files*: runs of bytes under
plain names, written once, read whole, removed. It knows nothing of objects. Who uses it announces in the
catalog what is about to be written, and checks a checksum of its own on what is read.

- Everything about a storage is in its URL, so that any process can make it again and finds the same files.
- Nobody writes a name that somebody else is writing or reading: the catalog says whose it is.
- A file need not survive the machine: what was spilled is gone with the store, which lives in memory.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

from flightstore.errors import InvalidArgument

__all__ = [
    "UNFINISHED",
    "SpillStorage",
    "SpillStorageFactory",
    "check_spill_name",
    "is_spill_name",
    "masked_url",
]

UNFINISHED = ".part"
"""Ends the temporary name under which a file is written, where a storage needs one."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


class SpillStorage(ABC):
    """One place for spilled payload. Thread-safe; made from its URL alone, in any process.

    A storage that was made before a fork is not used in the child: it makes its own.
    """

    url: str
    """The URL it was made from, normalised: a storage made from this one is the same place. May hold
    credentials: show `masked_url(storage.url)`."""

    @abstractmethod
    def write(self, name: str, pieces: Sequence[memoryview]) -> None:
        """Write a file: the bytes of all `pieces`, one behind the other. Replaces one of that name.

        Whole or not at all: no reader, in any process, ever finds a part of it. What a write that fails, or
        is interrupted, has left behind is removed if that can be; see :meth:`remove_unfinished`.

        Args:
            name: 1 to 200 letters, digits and ``_``, ``-``, ``.``; see :func:`check_spill_name`.
            pieces: Contiguous memory, not copied as a whole. May be empty, and hold empty ones.

        Raises:
            OSError: it cannot be written; ENOSPC where there is no room.
        """

    @abstractmethod
    def read_into(self, name: str, target: memoryview) -> None:
        """Read a whole file into `target`, which is as long as the file.

        When this returns or raises, nobody writes to `target` any more.

        Raises:
            FileNotFoundError: there is no such file.
            SpillDamaged: the file is shorter or longer than `target`.
            OSError: it cannot be read.
        """

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file; afterwards nothing of that name is left, finished or not. Idempotent.

        Raises:
            OSError: it cannot be removed.
        """

    @abstractmethod
    def remove_unfinished(self, name: str) -> None:
        """Remove what a killed :meth:`write` of that name has left; a finished file stays. Idempotent.

        Raises:
            OSError: it cannot be removed.
        """

    @abstractmethod
    def names(self, prefix: str = "") -> list[str]:
        """Names that begin with `prefix` and under which there is a file, finished or not, in order.

        Raises:
            OSError: the storage cannot be listed.
        """

    def local_path(self, name: str) -> str | None:
        """Where a file lies, or will lie, on this machine, if it can be mapped there; else None."""
        return None

    def free_bytes(self) -> int | None:
        """Bytes that can still be written, as far as is known; else None."""
        return None

    def same_file_system(self, path: str) -> bool:
        """Whether the files take room from the file system that holds `path`: spilling there frees none."""
        return False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {masked_url(self.url)}>"


SpillStorageFactory: TypeAlias = Callable[[str], SpillStorage]
"""Makes a storage from its URL, or raises InvalidArgument or MissingExtra. Makes no file or directory yet."""


def check_spill_name(name: str) -> str:
    """The name, if it can be one of a spilled file.

    Raises:
        InvalidArgument: it is something else than 1 to 200 letters, digits and ``_``, ``-``, ``.``, begins
            with ``-`` or ``.``, or ends like a temporary name.
    """
    if not is_spill_name(name):
        raise InvalidArgument(f"{name!r} cannot be the name of a spilled file")
    return name


def is_spill_name(name: str) -> bool:
    """Whether it can be the name of a spilled file; see :func:`check_spill_name`."""
    return _NAME.fullmatch(name) is not None and not name.endswith(UNFINISHED)


def masked_url(url: str) -> str:
    """The URL without credentials, for messages: user, password and all values of the query are hidden."""
    place, mark, query = url.partition("?")
    place = re.sub(r"://(?!/).*@", "://***@", place)  # greedy: secrets may hold unescaped slashes
    if not mark:
        return place
    return place + "?" + re.sub(r"=[^&]*", "=***", query)
