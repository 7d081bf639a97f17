"""The tokens file, and the command that writes it."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from flightstore.cli.main import cli
from flightstore.errors import InvalidArgument
from flightstore.gateway.tokens import TokensFile, create, default_path, hash_of, lifetime, load, revoke


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "tokens.toml"


def test_a_token_is_stored_as_its_hash_alone(path: Path) -> None:
    made, secret = create(path, "laptop", rights="write", sessions=["A", 'B "x"\\ö'])
    assert secret is not None
    assert re.fullmatch(r"fst_[\w-]{43}", secret)
    assert made.hash == hash_of(secret)
    assert secret not in path.read_text()
    assert load(path) == {"laptop": made}
    assert made.sessions == ("A", 'B "x"\\ö')


def test_the_file_is_its_owners_and_nothing_is_left_beside(path: Path) -> None:
    before = os.umask(0)
    try:
        create(path, "a")
        create(path, "b")
        revoke(path, "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == ["tokens.toml"]
    assert set(load(path)) == {"b"}


def test_a_link_to_the_file_stays_one(path: Path, tmp_path: Path) -> None:
    create(path, "a")
    link = tmp_path / "link"
    link.symlink_to(path)
    create(link, "b")
    assert link.is_symlink()
    assert set(load(path)) == {"a", "b"}


def test_tokens_end(path: Path) -> None:
    before = datetime.now(UTC)
    made, _ = create(path, "a", expires=timedelta(hours=1))
    after = datetime.now(UTC)
    assert made.expires is not None
    assert before - timedelta(seconds=1) < made.expires - timedelta(hours=1) <= after  # whole seconds
    assert not load(path)["a"].is_expired()
    over, _ = create(path, "b", expires=timedelta(seconds=-5))
    assert over.is_expired()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("90m", 5400), ("12h", 43200), ("30d", 30 * 86400)]
)
def test_lifetimes(text: str, seconds: int) -> None:
    assert lifetime(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "30", "d", "-3d", "1.5h", "30y", "0d", "99999999d", "1d1h"])
def test_what_is_no_lifetime(text: str) -> None:
    with pytest.raises(InvalidArgument, match="time to live"):
        lifetime(text)


def test_names_are_unique_and_plain(path: Path) -> None:
    create(path, "a")
    with pytest.raises(InvalidArgument, match="has an entry 'a' already"):
        create(path, "a")
    for name in ("", "a b", 'a"', "a]", "a\n", "ä", "-a", "a" * 65):
        with pytest.raises(InvalidArgument):
            create(path, name)
    with pytest.raises(InvalidArgument):
        create(path, "b", sessions=[])
    with pytest.raises(InvalidArgument):
        create(path, "b", rights="owner")
    with pytest.raises(InvalidArgument, match="no entry 'b'"):
        revoke(path, "b")
    assert set(load(path)) == {"a"}


HASH = "0" * 64
MOMENT = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "text",
    [
        "tokens",
        "\xff",
        "[tokens.a]\n",
        f"[tokens.a]\ncreated = {MOMENT}\n",
        f"[tokens.a]\ncreated = {MOMENT}\nhash = 'short'\n",
        f"[tokens.a]\ncreated = {MOMENT}\nhash = '{HASH}'\nrights = 'root'\n",
        f"[tokens.a]\ncreated = {MOMENT}\nhash = '{HASH}'\nsession = 'A'\n",
        f"[tokens.a]\ncreated = {MOMENT}\nhash = '{HASH}'\nsessions = []\n",
        f"[tokens.a]\ncreated = {MOMENT}\nhash = '{HASH}'\nsessions = 'A'\n",
        f"[tokens.a]\ncreated = {MOMENT}\nhash = '{HASH}'\nexpires = 2026-01-01T00:00:00\n",
        f"[token.a]\ncreated = {MOMENT}\nhash = '{HASH}'\n",
    ],
)
def test_a_malformed_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(InvalidArgument, match=re.escape(str(file))):
        load(file)


def test_a_file_that_others_may_write_is_refused(path: Path) -> None:
    create(path, "a")
    path.chmod(0o640)
    assert set(load(path)) == {"a"}
    path.chmod(0o620)
    with pytest.raises(InvalidArgument, match="others may write"):
        load(path)


@pytest.mark.req("GW-5")
def test_changes_are_seen_at_once_and_a_bad_file_lets_nobody_in(path: Path) -> None:
    create(path, "a")
    file = TokensFile(path)
    for number in range(50):
        create(path, f"n{number}")
        assert f"n{number}" in file.entries()
        revoke(path, f"n{number}")
        assert f"n{number}" not in file.entries()
    good = path.read_text()
    path.write_text("rubbish")
    assert file.entries() == {}
    path.write_text(good)
    assert set(file.entries()) == {"a"}
    path.unlink()
    assert file.entries() == {}
    create(path, "b")
    assert set(file.entries()) == {"b"}


def test_processes_do_not_lose_each_others_entries(path: Path) -> None:
    script = (
        "import sys; from flightstore.gateway.tokens import create\n"
        "for number in range(20): create(sys.argv[1], f'{sys.argv[2]}-{number}')"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, path, name]) for name in "abc"]
    assert [process.wait(timeout=60) for process in running] == [0, 0, 0]
    assert set(load(path)) == {f"{name}-{number}" for name in "abc" for number in range(20)}


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("FLIGHTSTORE_TOKENS", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(cli, ["tokens", *arguments], catch_exceptions=False)
        return done.exit_code, done.stdout, done.stderr

    code, out, _ = run("list", "--json")
    assert (code, json.loads(out)["tokens"]) == (0, [])
    code, out, _ = run("create", "laptop", "--rights", "write", "--expires", "30d")
    secret = out.strip()
    assert (code, load(default_path())["laptop"].hash) == (0, hash_of(secret))
    assert default_path() == tmp_path / "flightstore" / "tokens.toml"
    code, out, _ = run("create", "job", "--session", "A", "--session", "B", "--json")
    document = json.loads(out)
    assert document["token"].startswith("fst_")
    assert (document["sessions"], document["rights"], document["expires"]) == (["A", "B"], "read", None)
    code, out, _ = run("create", "worker", "--certificate", "worker.test", "--json")
    assert json.loads(out)["token"] is None
    code, out, _ = run("list")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["name", "rights"],
        ["job", "read"],
        ["laptop", "write"],
        ["worker", "read"],
    ]
    assert secret not in out
    assert hash_of(secret) not in out
    assert run("revoke", "laptop")[0] == 0
    assert set(load(default_path())) == {"job", "worker"}
    code, _, err = run("revoke", "laptop")
    assert code == 2
    assert "no entry 'laptop'" in err
    monkeypatch.setenv("FLIGHTSTORE_TOKENS", str(tmp_path / "none"))
    assert run("list")[0] == 3
