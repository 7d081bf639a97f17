"""Builders that are forgotten, not aborted: the next write of their process clears them away, and works."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

import flightstore as fs


@pytest.mark.req("API-6")
@pytest.mark.parametrize("forgotten", [1, 3])
def test_the_write_after_forgotten_builders_succeeds(store_dir: Path, forgotten: int) -> None:
    with fs.connect(store_dir, capacity="16MiB") as store:
        builders = [store.create(1000, name=f"forgotten {i}") for i in range(forgotten)]
        assert store.stats().pending == forgotten
        builders.clear()
        gc.collect()
        store.put(b"value", name="next")
        assert bytes(store.get("next").value()) == b"value"
        assert store.stats().pending == 0
        store.recover()
        assert store.stats().dying == 0
        assert store.fsck() == []
