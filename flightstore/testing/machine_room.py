"""What the stateful machine knows of a store's use of memory: footprints, and when a StoreFull is justified.

Lives here: `Room`, for flightstore's own stores. A store that differs overrides its methods. Calls the
catalog of the store for the extents there are, and fsck.

When a StoreFull is justified (the promise in memory.allocator's docstring): not unless whole free pages are
lacking, counting as occupied every page that an extent of something live touches. Nothing else may occupy
memory at that moment: what was deleted and is held by nobody must have been given back first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from flightstore.catalog import keys
from flightstore.catalog.transaction import extent_of
from flightstore.errors import StoreFull
from flightstore.memory.allocator import PAGE, UNIT
from flightstore.objects.registry import encode
from flightstore.store import Store
from flightstore.testing.machine_clients import Executor
from flightstore.testing.model import Model

__all__ = ["Room"]

_SHORT_METADATA_BYTES = 512  # longer ones lie behind the payload


class Room:
    """The memory of one store, as foretold by the model."""

    def __init__(self, capacity_bytes: int, model: Model, executor: Executor) -> None:
        self.capacity_bytes = capacity_bytes
        self.model = model
        self._executor = executor

    @property
    def _store(self) -> Store:
        store = self._executor.store
        assert isinstance(store, Store)
        return store

    def footprint_bytes(self, value: Any, metadata: Any) -> int:
        """Bytes that a put takes."""
        return _up(_with_metadata(encode(value).size_bytes, metadata), UNIT)

    def footprint_in_place_bytes(self, nbytes: int, metadata: Any) -> int:
        """Bytes that a create takes: whole pages, at least one."""
        return _up(max(_with_metadata(nbytes, metadata), 1), PAGE)

    def check_full(self, error: StoreFull, asked_bytes: int) -> None:
        """A StoreFull for one request is justified, and its figures are right."""
        assert error.capacity_bytes == self.capacity_bytes
        assert _up(error.asked_bytes, UNIT) <= asked_bytes, f"asked {error.asked_bytes}, needs {asked_bytes}"
        if asked_bytes > self.capacity_bytes:
            return
        extents = self._extents()
        used = sum(length for _, length in extents)
        assert used == self.model.live_bytes(), (
            f"full with {used:,} bytes used, live: {self.model.live_bytes():,}"
        )
        assert error.free_bytes == self.capacity_bytes - used
        pages = {page for at, length in extents for page in range(at // PAGE, (at + length - 1) // PAGE + 1)}
        assert len(pages) * PAGE + _up(asked_bytes, PAGE) > self.capacity_bytes, (
            f"false StoreFull: {asked_bytes:,} asked, {len(pages)} pages occupied: {error}"
        )

    def check_full_for_many(self, asked_bytes: Sequence[int]) -> None:
        """A StoreFull for several objects at once is justified, wherever extents lie within their pages."""
        sizes = [thing.footprint_bytes for thing in self.model.live()] + list(asked_bytes)
        most = sum(_up(size, PAGE) + PAGE for size in sizes if size)
        assert most > self.capacity_bytes, f"false StoreFull: at most {most:,} bytes are wanted"

    def check_consistent(self) -> None:
        """The store's own check finds nothing."""
        findings = self._store.fsck()
        assert not findings, findings

    def _extents(self) -> list[tuple[int, int]]:
        """(offset, length) of every extent."""
        found = [extent_of(key, raw)[0] for key, raw in self._store._conn.catalog.items(keys.EXTENT)]
        return [(extent.offset, extent.length) for extent in found]


def _with_metadata(nbytes: int, metadata: Any) -> int:
    encoded = b"" if metadata is None else msgspec.msgpack.encode(metadata)
    return nbytes if len(encoded) <= _SHORT_METADATA_BYTES else _up(nbytes, UNIT) + len(encoded)


def _up(nbytes: int, step: int) -> int:
    return -(-nbytes // step) * step
