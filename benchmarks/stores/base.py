"""A store in the eyes of a benchmark: what makes its sides, and what a side does.

A backend is the store as a whole, with its server if it has one. A side is one process's way in. Whatever a
side needs crosses process boundaries as a factory: a callable and its arguments.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from codec import Codec
from processes import Commanded, Helper, private_bytes
from values import with_column

Factory: TypeAlias = tuple[Any, ...]
"""(callable, *arguments): calling it gives a Side. Picklable."""


class Side(ABC):
    """One process's way into a store."""

    codec: Codec

    @abstractmethod
    def put(self, name: str, value: Any) -> None:
        """Store `value` under `name`, replacing what was there."""

    @abstractmethod
    def get(self, token: Any) -> Any:
        """A usable value that stays valid for as long as it is referred to."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove what `name` refers to."""

    @abstractmethod
    def close(self) -> None:
        """Give the store up; what is in it stays."""

    def attach(self) -> None:
        """Be ready to get; called in a process that will, before the first put."""
        return

    def prepare(self, value: Any) -> Any:
        """The form of a value that this side is handed."""
        return value

    def token(self, name: str) -> Any:
        """What another process gets `name` by; asked after the put, outside of its time."""
        return name

    def add_column(self, name: str, new: str, column: str, array: Any, value: Any) -> None:
        """Store `new`: the table `name`, of which `value` is at hand, and one more column. A whole put,
        unless the store knows better.
        """
        self.put(new, with_column(value, column, array))

    def unwrap(self, value: Any) -> Any:
        """The value itself, where :meth:`get` returns it together with what keeps it valid."""
        return value

    def used_bytes(self) -> int | None:
        """Bytes of the store in use, where the store tells."""
        return None


class Backend(ABC):
    """A store as a whole."""

    label: ClassVar[str]
    """What the tables call it."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose versions matter."""
    only: ClassVar[frozenset[str] | None] = None
    """The only workloads that it is measured with; None for all."""
    gets_once: ClassVar[bool] = False
    """Whether a value is gone when it was got."""

    def __init__(self, scratch: Path, work: Path, room_bytes: int) -> None:
        """Start what has to run.

        Args:
            scratch: An empty directory of its own on a memory file system.
            work: One on a disk, its path short enough for sockets.
            room_bytes: What it must hold at once, at its peak.
        """
        self.scratch, self.work, self.room_bytes = scratch, work, room_bytes

    @classmethod
    def unable_to_add(cls) -> str | None:
        """Why it cannot add a column to a table; None where it can, if only by putting all of it."""
        return None

    @abstractmethod
    def factory(self, name: str, room_bytes: int, codec: Codec, bulk: bool) -> Factory:
        """What makes sides of the store `name` for values of `codec`; the first call of it makes the store.

        Args:
            bulk: Values are large; a side may hold on to what makes copies needless.
        """

    def codec(self, value: Any, bulk: bool) -> Codec:
        """How it keeps values like this one, where it keeps bytes."""
        return Codec.of(value)

    def helper(self, worker: Callable[..., Any], factory: Factory) -> Commanded:
        """Another process with a ``worker(*factory)``."""
        return Helper(worker, *factory)

    def clear(self, name: str) -> None:
        """Remove the store `name`; its sides are closed."""
        shutil.rmtree(self.scratch / name, ignore_errors=True)

    def restart(self) -> None:
        """Give all memory back, so that the next put writes into fresh pages."""
        return

    def server_pids(self) -> list[int]:
        """The processes without which the store does not work."""
        return []

    def metadata_bytes(self, side: Side, payload_bytes: int) -> int:
        """Bytes kept besides a payload of that size, as far as can be told: by default its servers' heaps."""
        return private_bytes(self.server_pids())

    def versions(self) -> dict[str, str]:
        """Of the libraries that matter."""
        return {name: metadata.version(name) for name in (*self.libraries, "numpy", "pyarrow")}

    def close(self) -> None:
        """Stop what was started."""
        return


def make_side(factory: Factory) -> Side:
    """A side of this process."""
    build, *args = factory
    side: Side = build(*args)
    return side


def delete_all(side: Side, names: Iterable[str]) -> None:
    """Delete one after the other."""
    for name in names:
        side.delete(name)


def disk_bytes(directory: Path) -> int:
    """Memory or disk behind the files of a directory."""
    return sum(file.stat().st_blocks * 512 for file in os.scandir(directory))
