"""INV-8: starting a spill does not unpin. What is pinned or held by the time it is over stays in memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.lifecycle.storage_local import LocalStorage
from flightstore.lifecycle.storages import register_spill_storage
from flightstore.testing.children import ChildDied, child, start

pytestmark = pytest.mark.req("INV-8")

MIB = 1 << 20


class Interrupted(LocalStorage):
    """A directory; while a file is half-written, something else happens."""

    meanwhile: Callable[[], object]

    def __init__(self, url: str) -> None:
        super().__init__(url.removeprefix("interrupted+"))
        self.url = "interrupted+" + self.url

    def write(self, name: str, pieces: Sequence[memoryview]) -> None:
        with self._made_file(self.local_path(name) + ".part"):
            type(self).meanwhile()
        super().write(name, pieces)


@pytest.fixture
def during(store: fs.Store, tmp_path: Path) -> Iterator[type[Interrupted]]:
    """The store spills there; ``during.meanwhile`` is called in the middle of every write."""
    register_spill_storage("interrupted", Interrupted)
    Interrupted.meanwhile = staticmethod(lambda: None)
    store.set_spill(f"interrupted+file://{tmp_path}/spilled")
    yield Interrupted
    Interrupted.meanwhile = staticmethod(lambda: None)


def states(store: fs.Store) -> dict[str | None, tuple[bool, str]]:
    return {info.name: (info.pinned, info.state) for info in store.list()}


def test_pins_outlast_the_spilling_of_others(store: fs.Store, during: type[Interrupted]) -> None:
    store.put_many({"pinned": bytes(MIB), "twice": bytes(MIB), "other": bytes(MIB)})
    store.pin(["pinned", "twice", "twice"])
    seen = []
    during.meanwhile = staticmethod(lambda: seen.append(states(store)))
    assert store.spill() == MIB
    expected = {"pinned": (True, "sealed"), "twice": (True, "sealed")}
    assert seen == [expected | {"other": (False, "sealed")}]
    assert states(store) == expected | {"other": (False, "spilled")}
    store.put(bytes(2 * MIB))
    with pytest.raises(fs.StoreFull):
        store.put(bytes(3 * MIB))
    assert store.unpin(["pinned", "twice"]) == 2
    assert store.spill("twice") == 0, "it was pinned twice"
    assert store.unpin("twice") == 1


@pytest.mark.parametrize("how", ["here", "in another process"])
def test_a_pin_set_while_it_is_being_written(store: fs.Store, during: type[Interrupted], how: str) -> None:
    """It counts: the bytes stay where they are, though the file was finished."""
    store.put_many({"a": b"a" * MIB, "b": b"b" * MIB})
    place = np.frombuffer(store.get("a").value(), np.uint8).ctypes.data
    pin = (lambda: store.pin("a")) if how == "here" else (lambda: child(lambda: store.pin("a")))
    during.meanwhile = staticmethod(pin)
    assert store.spill() == MIB
    assert states(store) == {"a": (True, "sealed"), "b": (False, "spilled")}
    assert np.frombuffer(store.get("a").value(), np.uint8).ctypes.data == place
    during.meanwhile = staticmethod(lambda: None)
    while store.unpin("a"):  # once, and once more for the write of b
        pass
    assert store.spill("a") == MIB
    assert bytes(store.get("a").value()) == b"a" * MIB


def test_a_reference_taken_while_it_is_being_written(store: fs.Store, during: type[Interrupted]) -> None:
    store.put(b"a" * MIB, "a")
    held = []
    during.meanwhile = staticmethod(lambda: held.append(memoryview(store.get("a").value())))
    assert store.spill() == 0
    assert states(store) == {"a": (False, "sealed")}
    store.put(bytes(3 * MIB))
    assert bytes(held[0]) == b"a" * MIB


def test_what_a_pinned_object_shares_stays(store: fs.Store, during: type[Interrupted]) -> None:
    """Also when it is pinned, or made, during the write of the bytes that it shares."""
    store.put(pa.table({"x": range(100_000)}), "base")
    store.select("base", ["x"], "selected").release()
    during.meanwhile = staticmethod(lambda: store.pin("selected"))
    assert store.spill("base") == 0
    assert states(store) == {"base": (False, "sealed"), "selected": (True, "sealed")}


@pytest.mark.parametrize("ending", ["fails", "is killed"])
def test_a_spill_that_comes_to_nothing_unpins_nothing(
    store: fs.Store, during: type[Interrupted], ending: str
) -> None:
    store.put_many({"pinned": bytes(MIB), "a": bytes(MIB)})
    store.pin("pinned")

    def meanwhile() -> None:
        store.pin("a")
        if ending == "fails":
            raise OSError("no such disk")
        os.kill(os.getpid(), signal.SIGKILL)

    during.meanwhile = staticmethod(meanwhile)
    with start(store.spill) as process, pytest.raises((fs.SpillFailed, ChildDied)):
        process.result()
    store.recover()
    assert states(store) == {"pinned": (True, "sealed"), "a": (True, "sealed")}
    assert store.evict() == store.spill() == 0
