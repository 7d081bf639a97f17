"""`flightstore sessions`, `session end`, and --session on the commands that work on objects."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import flightstore

from .conftest import Run, Start

pytestmark = pytest.mark.req("ISO-1", "ISO-2")


@pytest.fixture
def csv(tmp_path: Path) -> str:
    """A small file."""
    path = tmp_path / "orders.csv"
    path.write_text("id,price\n1,2.5\n2,3.5\n")
    return str(path)


def test_commands_work_on_the_objects_of_a_session(run: Run, store: flightstore.Store, csv: str) -> None:
    store.put(b"the store's own", "orders")
    assert run("put", csv, "--session", "job").code == 0
    assert run("put", csv, "--name", "more", "--session", "job").code == 0
    assert [info.objects for info in store.sessions()] == [2], "the second put went into the same session"
    shown = run("ls", "--session", "job", "--json").json["objects"]
    assert [(one["name"], one["kind"]) for one in shown] == [("more", "table"), ("orders", "table")]
    assert [one["kind"] for one in run("ls", "--json").json["objects"]] == ["blob"]
    assert run("get", "orders", "--session", "1", "--format", "csv").out.splitlines()[0] == '"id","price"'
    assert run("head", "orders", "--session", "job", "--json").json["rows"] == 2
    assert run("schema", "orders", "--session", "job", "--json").json["rows"] == 2
    assert run("stat", "more", "--session", "job").code == 0
    assert run("stat", "more").code == 3
    assert run("rm", "more", "--session", "job").code == 0
    assert [info.name for info in store.session("job", attach=True).list()] == ["orders"]
    assert store.contains("orders")


def test_only_put_begins_a_session_and_none_is_taken_over(
    run: Run, store: flightstore.Store, csv: str
) -> None:
    for command in (["ls"], ["get", "x"], ["stat", "x"], ["rm", "x"], ["head", "x"], ["schema", "x"]):
        done = run(*command, "--session", "job", "--json")
        assert (done.code, done.error["error"]) == (3, "SessionNotFound")
    assert store.sessions() == []
    with store.session("job", ephemeral=True) as session:
        run("put", csv, "--session", "job")
        assert session.contains("orders")
        assert store.sessions()[0].owner_pid == os.getpid()
        assert store.sessions()[0].state == "active"


def test_the_latest_of_a_name_is_meant(run: Run, start: Start, store: flightstore.Store, csv: str) -> None:
    start("put", csv, "--session", "job").communicate()
    assert not store.sessions()[0].owner_alive
    later = store.session("job")
    later.put(b"x", "later")
    assert [one["name"] for one in run("ls", "--session", "job", "--json").json["objects"]] == ["later"]
    assert [one["name"] for one in run("ls", "--session", "1", "--json").json["objects"]] == ["orders"]


def test_listing_sessions(run: Run, store: flightstore.Store) -> None:
    assert run("sessions", "--json").json == {"sessions": []}
    session = store.session("job", quota="1MiB", ephemeral=True)
    session.put(b"x" * 1000)
    (listed,) = run("sessions", "--json").json["sessions"]
    assert (listed["id"], listed["name"], listed["quota_bytes"], listed["used_bytes"]) == (
        session.number, "job", 1 << 20, 1024,
    )  # fmt: skip
    shown = run("sessions").out
    assert all(word in shown for word in ("job", f"pid {os.getpid()}", "1.0 MiB", "active"))


def test_ending_a_session(run: Run, store: flightstore.Store) -> None:
    sessions = [store.session(name) for name in ("a", "b")]
    for session in sessions:
        session.put(b"x" * 1000, "name")
    assert run("session", "end", "a").out.startswith("ended session 1 (1 objects, ")
    assert run("session", "end", str(sessions[1].number), "--json").json == {
        "ended": 2, "name": "b", "objects": 1, "bytes": 1024,
    }  # fmt: skip
    assert not any(session.contains("name") for session in sessions)
    assert run("session", "end", "a").code == 3
    assert run("recover").code == 0
    assert store.sessions() == []


def test_names_are_completed_within_a_session(store: flightstore.Store, start: Start) -> None:
    store.put(b"", "outside")
    session = store.session("job")
    session.put(b"", "inside")
    environment = os.environ | {
        "_FLIGHTSTORE_COMPLETE": "zsh_complete",
        "COMP_WORDS": "flightstore get --session job ",
        "COMP_CWORD": "4",
    }
    done = start(env=environment).communicate()[0].decode()
    assert "inside" in done
    assert "outside" not in done
