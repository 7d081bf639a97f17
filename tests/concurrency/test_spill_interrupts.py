"""A spill whose taking back is interrupted, too, is put right by the same process."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import flightstore
from flightstore.errors import SpillFailed
from flightstore.testing.faultystorage import faulty_url


@pytest.mark.req("FAIL-2", "FAIL-5")
def test_an_announcement_that_nobody_took_back_is_found_by_recover(
    store: flightstore.Store, tmp_path: Path
) -> None:
    store.put(b"x" * 70_000, "a")
    store.set_spill(faulty_url(tmp_path, fail=1))

    def interrupt(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name == "_take_back":
            sys.settrace(before)
            raise KeyboardInterrupt

    interrupted = False
    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        store.spill("a")
    except KeyboardInterrupt:  # not pytest.raises: it would keep what the interrupted frames held
        interrupted = True
    finally:
        sys.settrace(before)
    assert interrupted
    gc.collect()  # the storage's error holds them, too
    store.recover()
    assert store.fsck() == []
    with pytest.raises(SpillFailed):
        store.spill("a")
    store.set_spill(str(tmp_path))
    assert store.spill("a") > 0
    assert bytes(store.get("a").value()) == b"x" * 70_000
    store.delete("a")
    store.recover()
    assert store.stats().used_bytes == 0
    assert os.listdir(tmp_path) == []


@pytest.mark.req("INV-8")
def test_a_spill_under_way_is_no_damage(store: flightstore.Store, tmp_path: Path) -> None:
    store.put(b"x" * 70_000, "a")
    store.set_spill(str(tmp_path))
    findings = []

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name == "_write_file":
            sys.settrace(before)
            findings.append(store.fsck())

    before = sys.gettrace()
    sys.settrace(look)
    try:
        store.spill("a")
    finally:
        sys.settrace(before)
    assert findings == [[]]
