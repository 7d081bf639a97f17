"""The built-in store passes the suite that every store must pass."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flightstore as fs
from flightstore.abc import AbstractStore
from flightstore.testing.children import Child, start
from flightstore.testing.stores import Capability, StoreSuite
from flightstore.testing.stores.backend import missing_methods


class Local(StoreSuite):
    """Stores in shared memory, each in a folder of its own."""

    capabilities = Capability.of_the_contract()
    spill = ""

    def make_store(self, capacity_bytes: int) -> fs.Store:
        folder = tempfile.mkdtemp(dir="/dev/shm", prefix="flightstore-test-")
        return fs.connect(f"{folder}/store", capacity=capacity_bytes)

    def make_spilling_store(self, capacity_bytes: int) -> fs.Store:
        store = self.make_store(capacity_bytes)
        spill = tempfile.mkdtemp(prefix="flightstore-test-spill-")
        store.set_spill(spill)  # type: ignore[attr-defined]
        self.spill = spill
        return store

    def another_client(self, store: AbstractStore) -> fs.Store:
        assert isinstance(store, fs.Store)
        return fs.connect(store.path)

    def start_in_client(self, store: AbstractStore, function: Callable[..., Any], *args: Any) -> Child[Any]:
        assert isinstance(store, fs.Store)
        return start(connected, store.path, function, *args)

    def remove_store(self, store: AbstractStore) -> None:
        assert isinstance(store, fs.Store)
        store.recover()
        findings, path = store.fsck(), store.path
        store.destroy()
        shutil.rmtree(Path(path).parent)
        assert findings == []
        if self.spill:
            left_over = list(Path(self.spill).iterdir())
            shutil.rmtree(self.spill)
            assert left_over == []


def connected(path: str, function: Callable[..., Any], *args: Any) -> Any:
    with fs.connect(path) as store:
        return function(store, *args)


TestLocal = pytest.mark.req("PLG-1", "API-3", "API-5", "API-7", "API-8", "API-11", "API-13", "O-1")(Local)


def test_what_the_contract_has_no_methods_for_cannot_be_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(AbstractStore, "wait_async")
    assert missing_methods(Capability.WAITING | Capability.IN_PLACE) == ["wait_async"]
    assert Capability.WAITING not in Capability.of_the_contract()
    with pytest.raises(TypeError, match=r"TooMuch declares .*'wait_async'"):
        type("TooMuch", (StoreSuite,), {"capabilities": Capability.WAITING})
