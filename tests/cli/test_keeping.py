"""`flightstore pin`, `unpin`, `free`, `evict`, `spill`."""

from __future__ import annotations

from pathlib import Path

import pytest

import flightstore

from .conftest import Run


@pytest.mark.req("BAT-10")
def test_pins(run: Run, store: flightstore.Store) -> None:
    store.put(bytes(5_000), "a")
    assert run("pin", "a").code == 0
    assert store.stat("a").pinned
    assert "pinned" in run("stat", "a").out
    done = run("unpin", "a", "absent", "--json")
    assert done.code == 3
    assert done.json == {"unpinned": ["a"]}
    assert "there is no object absent" in done.err
    assert not store.stat("a").pinned


@pytest.mark.req("BAT-9", "API-9")
def test_free_and_evict(run: Run, store: flightstore.Store) -> None:
    store.put_many({"a": bytes(64_000), "b": bytes(64_000), "c": b"stays"})
    assert run("free", "a", "b").out == "freed a\nfreed b\n"
    assert run("ls", "--json").json["objects"][0]["evictable"] is True
    assert run("evict", "10k", "--json").json == {"freed_bytes": 64_000}
    assert "62.5 KiB" in run("evict", "--recursive").out
    assert [info.name for info in store.list()] == ["c"]
    assert run("evict", "lots").code == 2 or run("evict", "lots").code == 1


@pytest.mark.req("PLG-6")
def test_spill(run: Run, store: flightstore.Store, tmp_path: Path) -> None:
    refused = run("spill")
    assert refused.code != 0
    assert "no spill storage is configured" in refused.err
    store.put_many({"a": bytes(64_000), "b": b"short" * 100})
    assert run("spill", "--to", str(tmp_path / "spilled")).code == 0
    assert run("spill", "a", "--json").json == {"freed_bytes": 64_000}
    states = {row["name"]: row["state"] for row in run("ls", "--json").json["objects"]}
    assert states == {"a": "spilled", "b": "sealed"}
    assert bytes(store.get("a").value()) == bytes(64_000)
    assert store.stat("a").state == "sealed"
    assert run("spill").code == 0
    assert run("spill", "--off").out == "nothing is spilled\n"
    assert run("spill", "a", "--off").code != 0
    assert store.spill_url is None
