"""Every type and layout through a store. Needs pytest and hypothesis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from flightstore.abc import AbstractStore
from flightstore.testing.stores.backend import Backend
from flightstore.testing.types.suite import TypeSuite

__all__ = ["StoreTypeSuite"]


class StoreTypeSuite(Backend, TypeSuite):
    """The suite of types, on one store; what a backend cannot hold it says in `unsupported`."""

    capacity_bytes: ClassVar[int] = 64 << 20
    """Of the store that the values go through."""

    @pytest.fixture(autouse=True)
    def _through(self, types_store: AbstractStore) -> None:
        self._store = types_store

    @pytest.fixture(scope="class")
    @classmethod
    def types_store(cls) -> Iterator[AbstractStore]:
        """One store for all tests of the class."""
        backend = cls()
        store = backend.make_store(cls.capacity_bytes)
        yield store
        assert store.list() == []
        backend.remove_store(store)

    def transfer(self, value: Any) -> Any:
        object_id = self._store.put(value)
        try:
            return self._store.get(object_id).value()
        finally:
            self._store.delete(object_id)
