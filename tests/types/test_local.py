"""The conformance suite on a local store: get in the process that put, and in another one."""

from __future__ import annotations

import pickle
import shutil
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, NamedTuple

import numpy as np
import pytest

import flightstore as fs
from flightstore.testing.children import Child, start_spawned
from flightstore.testing.types.suite import CATALOGUES, TypeSuite

CAPACITY = "64MiB"


class LocalSuite(TypeSuite):
    """What both have in common: a store, and that the memory of values is aligned."""

    aligned = True
    store: fs.Store

    @pytest.fixture(scope="class", autouse=True)
    @staticmethod
    def local_store(request: pytest.FixtureRequest) -> Iterator[fs.Store]:
        """A store for all tests of the class, consistent afterwards and empty."""
        parent = tempfile.mkdtemp(dir="/dev/shm", prefix="flightstore-test-")
        with fs.connect(f"{parent}/store", capacity=CAPACITY) as store:
            request.cls.store = store
            yield store
            store.recover()
            assert store.fsck() == []
            assert store.list() == []
            store.destroy()
        shutil.rmtree(parent)


class SameProcess(LocalSuite):
    def transfer(self, value: Any) -> Any:
        object_id = self.store.put(value)
        try:
            return self.store.get(object_id).value()
        finally:
            self.store.delete(object_id)


class Portable(NamedTuple):
    """A NumPy array, that pickle would change: it does not keep every byte order."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: str
    data: bytes

    def value(self) -> np.ndarray[Any, Any]:
        return np.ndarray(self.shape, self.dtype, self.data, order="F" if self.order == "F" else "C")


def portable(value: Any) -> Any:
    """The value in a form that pickle keeps exactly."""
    if not isinstance(value, np.ndarray) or value.dtype.hasobject or value.dtype.kind == "T":
        return value
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    return Portable(value.dtype, value.shape, order, value.tobytes(order))


def from_portable(value: Any) -> Any:
    return value.value() if isinstance(value, Portable) else value


def serve(address: str, path: str) -> None:
    """The other process: get objects, and compare them or hand their values back."""
    with Client(address) as connection, fs.connect(path) as store:
        try:
            while True:
                connection.send(answer(store, *connection.recv()))
        except EOFError:
            return


def answer(store: fs.Store, object_id: fs.ObjectID, name: str, expected: Any) -> tuple[bool, Any]:
    """(True, the value or None), or (False, what went wrong).

    With a name, the value is compared with this process's own value of the catalogue, or with the one sent.
    """
    try:
        actual = store.get(object_id).value()
        if not name:
            return True, portable(actual)
        catalogue, _, entry = name.partition("/")
        own = CATALOGUES[catalogue][entry]() if catalogue in CATALOGUES else from_portable(expected)
        OtherProcess().check_same(own, actual)
    except Exception as error:
        return False, error
    return True, None


class OtherProcess(LocalSuite):
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

    def ask(self, value: Any, name: str = "") -> Any:
        object_id = self.store.put(value)
        try:
            sent = None if name.partition("/")[0] in CATALOGUES else portable(value)
            self.connection.send((object_id, name, sent))
            well, found = self.connection.recv()
        finally:
            self.store.delete(object_id)
        if not well:
            raise found
        return from_portable(found)

    def transfer(self, value: Any) -> Any:
        return self.ask(value)

    def check(self, name: str, value: Any) -> None:
        self.ask(value, name)


TestSameProcess = pytest.mark.req("TYP-1", "TYP-4")(SameProcess)
TestOtherProcess = pytest.mark.req("TYP-1", "TYP-4", "O-1")(OtherProcess)


def test_portable_arrays_are_exact() -> None:
    for make in CATALOGUES["numpy"].values():
        value = make()
        sent = from_portable(pickle.loads(pickle.dumps(portable(value))))
        assert (sent.dtype, sent.shape) == (value.dtype, value.shape)
