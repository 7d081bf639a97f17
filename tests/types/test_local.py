"""The conformance suite on a local store: get in the process that put, and in another one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import flightstore as fs
from flightstore.abc import AbstractStore
from flightstore.testing.children import Child, start_spawned
from flightstore.testing.stores.types import StoreTypeSuite
from flightstore.testing.types.equality import assert_same
from flightstore.testing.types.suite import CATALOGUES, TypeSuite

from .portable import pack, unpack

CAPACITY = "64MiB"


class LocalSuite(TypeSuite):
    """A store on this machine, in which every buffer is aligned."""

    aligned = True
    store: fs.Store

    @pytest.fixture(scope="class", autouse=True)
    @staticmethod
    def local_store(request: pytest.FixtureRequest) -> Iterator[fs.Store]:
        """A store for all tests of the class; empty and consistent when they are done."""
        parent = tempfile.mkdtemp(dir="/dev/shm", prefix="flightstore-test-")
        with fs.connect(f"{parent}/store", capacity=CAPACITY) as store:
            request.cls.store = store
            yield store
            store.recover()
            assert store.fsck() == []
            assert store.list() == []
            store.destroy()
        shutil.rmtree(parent)


class SameProcess(StoreTypeSuite):
    aligned = True

    def make_store(self, capacity_bytes: int) -> fs.Store:
        folder = tempfile.mkdtemp(dir="/dev/shm", prefix="flightstore-test-")
        return fs.connect(f"{folder}/store", capacity=capacity_bytes)

    def remove_store(self, store: AbstractStore) -> None:
        assert isinstance(store, fs.Store)
        store.recover()
        findings, path = store.fsck(), store.path
        store.destroy()
        Path(path).parent.rmdir()
        assert findings == []


class Question(NamedTuple):
    """What the other process is asked about an object."""

    object_id: fs.ObjectID
    name: str = ""
    """Compare it with this process's own value of the catalogue."""
    expected: bytes = b""
    """Compare it with this."""


def serve(address: str, path: str) -> None:
    """The other process: answer until nobody asks any more."""
    with Client(address) as connection, fs.connect(path) as store:
        while True:
            try:
                question: Question = connection.recv()
            except EOFError:
                return
            try:
                connection.send((True, answer(store, question)))
            except Exception as error:
                connection.send((False, error))


def answer(store: fs.Store, question: Question) -> bytes:
    """Nothing if the object is as expected; its value where nothing is expected."""
    actual = store.get(question.object_id).value()  # type: ignore[attr-defined]
    if not question.name and not question.expected:
        return pack(actual)
    catalogue, _, entry = question.name.partition("/")
    expected = CATALOGUES[catalogue][entry]() if question.name else unpack(question.expected)
    OtherProcess().check_same(expected, actual)
    return b""


class OtherProcess(LocalSuite):
    """A process beside this one."""

    connection: Connection

    @pytest.fixture(scope="class", autouse=True)
    @staticmethod
    def other_process(request: pytest.FixtureRequest, local_store: fs.Store) -> Iterator[None]:
        """A process that shares nothing with this one, for all tests of the class."""
        with tempfile.TemporaryDirectory() as folder, Listener(f"{folder}/socket") as listener:
            process: Child[None]
            with start_spawned(serve, f"{folder}/socket", local_store.path) as process:
                with listener.accept() as request.cls.connection:
                    yield
                process.result()

    def ask(self, value: Any, name: str, expected: bytes) -> bytes:
        object_id = self.store.put(value)
        try:
            self.connection.send(Question(object_id, name, expected))
            well, found = self.connection.recv()
        finally:
            self.store.delete(object_id)
        if not well:
            raise found
        return found

    def transfer(self, value: Any) -> Any:
        return unpack(self.ask(value, "", b""))

    def check(self, name: str, value: Any) -> None:
        self.ask(value, name, b"" if name else pack(value))


TestSameProcess = pytest.mark.req("TYP-1", "TYP-4")(SameProcess)
TestOtherProcess = pytest.mark.req("TYP-1", "TYP-4", "O-1")(OtherProcess)


@pytest.mark.parametrize("catalogue", ["arrow", "numpy"])
def test_what_is_sent_beside_the_store_is_exact(catalogue: str) -> None:
    for make in CATALOGUES[catalogue].values():
        value = make()
        if not isinstance(value, np.ndarray) or value.flags.forc:
            assert_same(value, unpack(pack(value)))
