"""Where a value lies, and who has the file open: without Ray, with a process that is called like its own."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from flightstore.connectors.ray import deploy, from_ray, from_ray_dataset, register, to_ray, to_ray_dataset
from flightstore.connectors.ray.memory import (
    NotMappable,
    Place,
    buffers_of,
    descriptor_of,
    place_of,
    start_of,
)
from flightstore.errors import MissingExtra
from flightstore.testing.children import child, spawned, start

PAGES = 16
AT = 3 * mmap.PAGESIZE + 640


class Mapped:
    """An unlinked file, and this process's mapping of it."""

    def __init__(self, folder: str) -> None:
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by who asked for it
        self.file.truncate(PAGES * mmap.PAGESIZE)
        self.pages = mmap.mmap(self.file.fileno(), 0)

    def array(self, at: int, count: int) -> Any:
        """Numbers that lie there."""
        return np.frombuffer(self.pages, np.int64, count, at)


@pytest.fixture
def in_memory(store_dir: str) -> Iterator[Mapped]:
    mapped = Mapped(os.path.dirname(store_dir))
    yield mapped
    mapped.file.close()


@pytest.mark.req("O-5")
@pytest.mark.parametrize("kind", ["array", "table", "frame"])
def test_the_place_of_a_value(in_memory: Mapped, kind: str) -> None:
    array = in_memory.array(AT, 500)
    value: Any = array
    if kind == "table":
        value = pa.table({"n": array, "m": in_memory.array(AT + 8000, 500), "s": ["x"] * 500})
    elif kind == "frame":
        value = pd.DataFrame({"n": array}, copy=False)
    place = place_of(buffers_of(value))
    status = os.fstat(in_memory.file.fileno())
    assert (place.device, place.inode, place.offset) == (status.st_dev, status.st_ino, AT)
    assert place.length == (12000 if kind == "table" else 4000)
    assert place.address == array.ctypes.data


@pytest.mark.req("O-5")
@pytest.mark.parametrize(
    "value", [b"bytes", {"a": 1}, np.arange(1000), pa.table({"n": [1]}), threading.Lock(), lambda: 0]
)
def test_private_memory_is_no_place(value: Any) -> None:
    with pytest.raises(NotMappable, match="private memory"):
        place_of(buffers_of(value))


@pytest.mark.req("O-5")
def test_a_file_on_disk_is_no_place(tmp_path: Path) -> None:
    mapped = Mapped(str(tmp_path))
    with pytest.raises(NotMappable, match="on disk"):
        place_of(buffers_of(mapped.array(0, 100)))
    mapped.file.close()


def be_a_raylet(descriptor: int, ready: int) -> None:
    """Hold a descriptor under that name, until killed."""
    ctypes.CDLL(None).prctl(15, b"raylet")
    os.write(ready, b"x")
    threading.Event().wait()


@pytest.mark.req("O-5")
def test_who_has_it_open(in_memory: Mapped) -> None:
    place = place_of(buffers_of(in_memory.array(AT, 500)))
    with pytest.raises(NotMappable, match="was not found"):
        descriptor_of(place)
    array = in_memory.array(AT, 500)
    heard, ready = os.pipe()
    with start(be_a_raylet, in_memory.file.fileno(), ready) as raylet:
        os.read(heard, 1)
        path = descriptor_of(place)
        assert path.startswith(f"/proc/{raylet.pid}/fd/")
        array.flags.writeable = True
        array[:] = 7
        with open(path, "rb") as file:
            file.seek(place.offset)
            assert file.read(place.length) == bytes(array)
    os.close(heard)
    os.close(ready)
    with pytest.raises(NotMappable, match="was not found"):
        descriptor_of(place)


def as_another_user(place: Place) -> str:
    """What somebody else is told who looks for the raylet."""
    os.setuid(65534)
    try:
        return descriptor_of(place)
    except NotMappable as error:
        return str(error)


@pytest.mark.needs("root")
@pytest.mark.req("O-5")
def test_the_raylet_of_another_user(in_memory: Mapped) -> None:
    place = place_of(buffers_of(in_memory.array(AT, 500)))
    heard, ready = os.pipe()
    with start(be_a_raylet, in_memory.file.fileno(), ready):
        os.read(heard, 1)
        assert "belongs to another user" in child(as_another_user, place)
    os.close(heard)
    os.close(ready)


def test_a_process_is_known_by_its_start() -> None:
    mine = start_of(os.getpid())
    assert mine is not None
    assert child(lambda: start_of(os.getpid())) not in (None, 0)
    with start(threading.Event().wait) as waiting:
        assert start_of(waiting.pid) is not None
    assert start_of(waiting.pid) is None


def without_ray() -> list[str]:
    """What each function says where Ray is not installed."""
    sys.modules["ray"] = None  # type: ignore[assignment]
    calls: list[Any] = [
        lambda: from_ray(None),
        lambda: to_ray(None),  # type: ignore[arg-type]
        lambda: from_ray_dataset(None),
        lambda: to_ray_dataset(None),  # type: ignore[arg-type]
        deploy,
        register,
    ]
    said = []
    for call in calls:
        try:
            call()
        except MissingExtra as error:
            said.append(error.hint)
    return said


def test_a_missing_ray_is_told() -> None:
    assert spawned(without_ray) == ["pip install 'flightstore[ray]'"] * 6
