"""doctor on spilling: off in a crowded store, a storage without answer or room, files that are left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import flightstore
from flightstore.lifecycle import doctor_spill
from flightstore.testing.faultystorage import faulty_url

from .conftest import Run

pytestmark = pytest.mark.req("FAIL-5")

MIB = 1 << 20


def findings(run: Run) -> dict[str, Any]:
    return {finding["check"]: finding for finding in run("doctor", "--json").json["findings"]}


def test_spilling_is_off_in_a_crowded_store(run: Run, store: flightstore.Store, tmp_path: Path) -> None:
    store.put(bytes(220 * MIB), "large", evictable=True)
    assert findings(run)["spilling"]["severity"] == "ok", "it may be evicted"
    store.put(bytes(30 * MIB), "other")
    store.delete("large")
    store.put(bytes(220 * MIB), "large")
    found = findings(run)["spilling"]
    assert (found["severity"], "flightstore spill --to" in found["fix"]) == ("note", True)
    assert "spilling is off" in found["message"]
    run("spill", "--to", str(tmp_path / "spilled"))
    assert findings(run)["spilling"]["severity"] == "ok"
    assert findings(run)["spill storage"]["severity"] == "ok"


def test_a_storage_that_does_not_answer(run: Run, store: flightstore.Store, tmp_path: Path) -> None:
    place, away = tmp_path / "spilled", tmp_path / "away"
    store.set_spill(str(place))
    for name in ("a", "b"):
        store.put(bytes(MIB), name)
    store.spill()
    place.rename(away)
    place.write_text("a file")
    store.delete("a")
    store.recover()
    found = findings(run)
    for check in ("spill storage", "spill files"):
        assert found[check]["severity"] == "warning"
        assert str(place) in found[check]["message"]
    place.unlink()
    away.rename(place)
    run("recover")
    found = findings(run)
    assert {found[check]["severity"] for check in ("spilling", "spill storage", "spill files")} == {"ok"}


def test_a_storage_that_is_nearly_full(run: Run, store: flightstore.Store, tmp_path: Path) -> None:
    store.set_spill(faulty_url(tmp_path, full_bytes=10 * MIB))
    found = findings(run)["spill storage"]
    assert (found["severity"], "10.0 MiB free" in found["message"]) == ("warning", True)
    assert doctor_spill.check_storage("s3://x", None, "", 1).severity == "ok"
