"""What the tests of spilling under faults share: objects that tell who they are."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import flightstore as fs
from flightstore.errors import SpillFailed, StoreFull

__all__ = [
    "MIB",
    "check_all",
    "delete_all",
    "files",
    "get_patiently",
    "not_got",
    "refused",
    "set_of",
    "value",
]

MIB = 1 << 20


def value(number: int, nbytes: int = MIB) -> bytes:
    """Bytes that tell which object they belong to."""
    return random.Random(number).randbytes(nbytes)


def set_of(store: fs.Store, count: int, nbytes: int = MIB, *, timeout: float = 60) -> dict[str, bytes]:
    """So many objects, each under its name."""
    contents = {f"n{number:03}": value(number, nbytes) for number in range(count)}
    for name, content in contents.items():
        store.put(content, name, timeout=timeout)
    return contents


def get_patiently(store: fs.Store, name: str, *, limit_s: float = 60) -> memoryview:
    """The object's bytes, got again as long as the storage fails. Whatever else is raised fails the test."""
    until = time.monotonic() + limit_s
    while True:
        try:
            return memoryview(store.get(name).value())
        except SpillFailed:
            if time.monotonic() > until:
                raise


def check_all(store: fs.Store, contents: dict[str, bytes]) -> None:
    """Everything is there, as it was put, and the store is sound."""
    for name, content in contents.items():
        assert bytes(get_patiently(store, name)) == content, name
    store.recover()
    assert store.fsck() == []


def delete_all(store: fs.Store) -> None:
    """Delete whatever there is."""
    store.delete([info.id for info in store.list()])
    store.recover()


def files(directory: Path) -> list[str]:
    """What lies in a spill directory."""
    return sorted(os.listdir(directory)) if directory.exists() else []


def not_got(store: fs.Store, name: str) -> fs.FlightStoreError:
    """The error of a get, without the frames that it went through: these hold leases."""
    try:
        store.get(name)
    except fs.FlightStoreError as error:
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    raise AssertionError(f"{name} could be got")


def refused(store: fs.Store, nbytes: int, timeout: float = 0) -> StoreFull:
    """The error for a put that finds no room."""
    began = time.monotonic()
    try:
        store.put(bytes(nbytes), "refused", timeout=timeout)
    except StoreFull as error:
        assert time.monotonic() - began < timeout + 30
        return error
    raise AssertionError("there was room")
