"""The conformance suite on borrowed memory: every value whose buffers lie in somebody else's file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import flightstore as fs
from flightstore.testing.lenders import Lender
from flightstore.testing.types.equality import assert_same

from .test_local import LocalSuite


class Borrowed(LocalSuite):
    aligned = False
    lender: Lender

    @pytest.fixture(scope="class", autouse=True)
    @staticmethod
    def lending(request: pytest.FixtureRequest, local_store: fs.Store) -> Iterator[None]:
        """A file to borrow from, for all tests of the class."""
        request.cls.lender = Lender(f"{local_store.path}/../lender", 64 << 20)
        yield
        local_store.recover()
        assert local_store.loans() == []

    def moved(self, value: Any) -> Any:
        """The value with its buffers in the file; itself, if pickle is not exact for it."""
        moved = self.lender.moved(value)
        try:
            assert_same(value, moved)
        except AssertionError:
            return value
        return moved

    def transfer(self, value: Any) -> Any:
        self.lender.rewind()
        try:
            object_id = self.store.put_borrowed(self.moved(value), self.lender.loan())
        except fs.NotBorrowable:
            object_id = self.store.put(value)
        try:
            return self.store.get(object_id).value()
        finally:
            self.store.delete(object_id)


TestBorrowed = pytest.mark.req("TYP-1", "TYP-4", "O-5")(Borrowed)
