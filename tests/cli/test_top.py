"""top: at a real terminal, key by key and signal by signal; as lines and as JSON; and that it only looks."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

import flightstore
from flightstore.cli.top import SORTS
from flightstore.cli.top_view import KEYS, Frame, rendered
from flightstore.lifecycle.registry import connection_for, release_connection
from flightstore.lifecycle.watching import ORDERS, Look, look, matching_ids, matching_names

from .conftest import COMMAND, Run, Start, Terminal

ALTERNATE, NORMAL = "\x1b[?1049h", "\x1b[?1049l"
SHOW_CURSOR = "\x1b[?25h"
TAKE_THE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(1, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
Launch = Callable[..., "Live"]


class Live:
    """`flightstore top` at a terminal of its own, which controls it as a user's terminal does."""

    def __init__(self, command: tuple[str, ...], lines: int = 30, columns: int = 100, **options: Any) -> None:
        self.terminal = Terminal()
        self.terminal.resize(lines, columns)
        self.before = termios.tcgetattr(self.terminal.theirs)
        environment = {key: value for key, value in os.environ.items() if key not in ("LINES", "COLUMNS")}
        theirs = self.terminal.theirs
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_THE_TERMINAL, *command],
            **({"stdin": theirs, "stdout": theirs, "stderr": theirs} | options),
            env=environment | {"TERM": "xterm-256color"},
            start_new_session=True,
        )

    def ended(self) -> int:
        """The exit code, once it has ended; the terminal must be as it was."""
        code = self.process.wait(timeout=60)
        assert termios.tcgetattr(self.terminal.theirs) == self.before
        return code


@pytest.fixture
def top(store_path: str) -> Iterator[Launch]:
    """Start `flightstore top` at a terminal."""
    started: list[Live] = []

    def launch(*arguments: str, **options: Any) -> Live:
        live = Live((*COMMAND, "top", *arguments), **options)
        started.append(live)
        return live

    yield launch
    for live in started:
        live.process.kill()
        live.process.wait(timeout=60)
        if live.terminal.theirs >= 0:
            live.terminal.text()


def transactions(store: flightstore.Store) -> int:
    """Write transactions that the store's catalog has seen."""
    catalog = store._conn.catalog
    with catalog.gate:
        number: int = catalog.environment().info()["last_txnid"]
    return number


def look_at(store: flightstore.Store, order: str = "size", most: int = 20) -> Look:
    connection = connection_for(store.path, 0)
    try:
        return look(connection, order, most)
    finally:
        release_connection(connection)


# --- at a terminal ---


@pytest.mark.req("API-10")
def test_it_shows_the_store_and_q_ends_it(top: Launch, store: flightstore.Store) -> None:
    store.put(np.zeros(1_000_000), "weights")
    live = top()
    live.terminal.wait_for(re.escape(ALTERNATE))
    live.terminal.wait_for("weights .*7.6 MiB")
    live.terminal.wait_for("used 7.6 MiB of 256.0 MiB")
    live.terminal.wait_for("q quit")
    live.terminal.type("q")
    assert live.ended() == 0
    after = live.terminal.text().rpartition("q quit")[2]
    assert NORMAL in after
    assert SHOW_CURSOR in after
    live.terminal.theirs = -1


@pytest.mark.parametrize(("key", "number", "code"), [("\x03", None, 130), (None, signal.SIGTERM, 143)])
def test_interrupts_end_it_and_leave_the_terminal_as_it_was(
    top: Launch, store: flightstore.Store, key: str | None, number: signal.Signals | None, code: int
) -> None:
    live = top()
    live.terminal.wait_for("q quit")
    if key:
        live.terminal.type(key)
    elif number:
        live.process.send_signal(number)
    assert live.ended() == code
    after = live.terminal.text().rpartition("q quit")[2]
    live.terminal.theirs = -1
    assert NORMAL in after
    assert SHOW_CURSOR in after
    assert "Traceback" not in after


def test_it_shows_what_happens(top: Launch, store: flightstore.Store) -> None:
    live = top("--interval", "0.1")
    live.terminal.wait_for("q quit")
    store.put(b"x" * 1000, "the new one")
    live.terminal.wait_for("the new one .*1000 B")
    mark = live.terminal.mark()
    live.terminal.wait_for(r"made 0\.0/s   gone 0\.0/s", mark)
    mark = live.terminal.mark()
    held = store.get("the new one")
    live.terminal.wait_for("references 1", mark)
    mark = live.terminal.mark()
    store.delete("the new one")
    live.terminal.wait_for("the new one .* deleted", mark)
    mark = live.terminal.mark()
    held.release()
    del held
    store.recover()
    live.terminal.wait_for("(?s)not free yet 0.*clients", mark)


def test_keys_choose_the_order(top: Launch, store: flightstore.Store) -> None:
    store.put(b"x" * 100, "b older and smaller")
    store.put(b"x" * 9000, "a newer and larger")
    held = store.get("b older and smaller")
    live = top("--sort", "name", "--interval", "60")
    live.terminal.wait_for("(?s)objects, by name.*a newer.*b older.*q quit")
    for key, heading, first, second in (
        ("s", "largest", "a newer", "b older"),
        ("r", "most referenced", "b older", "a newer"),
        ("c", "most recent", "a newer", "b older"),
        ("n", "by name", "a newer", "b older"),
    ):
        mark = live.terminal.mark()
        live.terminal.type("x" + key)  # another key does nothing
        live.terminal.wait_for(f"(?s)objects, {heading}.*{first}.*{second}.*q quit", mark)
    held.release()
    live.terminal.type("q")
    assert live.ended() == 0


def screens(terminal: Terminal, mark: int) -> list[list[str]]:
    """The whole screens that were drawn beyond a mark, without styles."""
    drawn = terminal.wait_for(r"(?s)\x1b\[H.*used.*\x1b\[H", mark)[0].split("\x1b[H")[1:-1]
    plain = (re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", one).replace("\r", "") for one in drawn)
    return [one.rstrip("\n").split("\n") for one in plain if "used" in one]


@pytest.mark.parametrize(("lines", "columns"), [(12, 60), (60, 140), (5, 20), (24, 80)])
def test_it_takes_the_size_of_its_terminal(
    top: Launch, store: flightstore.Store, lines: int, columns: int
) -> None:
    store.put_many({f"object {i:03} with a name that is as long as names are": b"x" * i for i in range(100)})
    live = top("--interval", "0.1", lines=20, columns=90)
    assert {len(one) for one in screens(live.terminal, 0)} == {20}
    live.terminal.resize(lines, columns)
    shown = screens(live.terminal, 0)[-1]
    while len(shown) != lines:
        shown = screens(live.terminal, live.terminal.mark())[-1]
    assert max(map(len, shown)) <= columns
    if lines >= 24:
        objects = [line for line in shown if line.startswith("object ")]
        assert len(objects) == lines - 9 - 2, "all lines but for headings and two clients are objects"
        assert shown[-1].startswith("q quit")
    live.terminal.type("q")
    assert live.ended() == 0


def test_a_change_of_size_is_drawn_at_once(top: Launch, store: flightstore.Store) -> None:
    live = top("--interval", "3600")
    live.terminal.wait_for("q quit")
    mark = live.terminal.mark()
    live.terminal.resize(15, 70)
    live.terminal.wait_for("q quit", mark)
    live.terminal.type("q")
    assert live.ended() == 0


def test_ctrl_z_and_back(program_at_bash: Live) -> None:
    terminal = program_at_bash.terminal
    terminal.type('$TOP --interval 3600; echo EN""DED $?\r')
    terminal.wait_for("q quit")
    mark = terminal.mark()
    terminal.type("\x1a")
    terminal.wait_for("(?s)" + re.escape(NORMAL) + ".*Stopped", mark)
    mark = terminal.mark()
    terminal.type("stty -a | grep -o ' icanon'; fg\r")
    terminal.wait_for("(?s) icanon.*" + re.escape(ALTERNATE) + ".*q quit", mark)
    mark = terminal.mark()
    terminal.type("q")
    terminal.wait_for(re.escape(NORMAL), mark)


@pytest.fixture
def program_at_bash(store: flightstore.Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """An interactive bash with job control."""
    monkeypatch.setenv("TOP", " ".join((*COMMAND, "top")))
    monkeypatch.setenv("HISTFILE", "/dev/null")
    live = Live(("bash", "--norc", "--noprofile", "-i"))
    yield live
    live.process.kill()  # what it has stopped goes with it, as its terminal hangs up
    live.process.wait(timeout=60)
    live.terminal.text()


def test_so_many_looks_leave_the_last_on_the_screen(top: Launch, store: flightstore.Store) -> None:
    store.put(b"x", "it")
    live = top("-n", "2", "--interval", "0.1")
    assert live.ended() == 0
    _, left, after = live.terminal.text().rpartition(NORMAL)
    live.terminal.theirs = -1
    assert left
    assert "it " in after
    assert "clients" in after


def test_a_store_that_is_destroyed_meanwhile(top: Launch, store: flightstore.Store) -> None:
    live = top("--interval", "0.1")
    live.terminal.wait_for("q quit")
    store.destroy()
    assert live.ended() == 1
    after = live.terminal.text().rpartition(NORMAL)[2]
    live.terminal.theirs = -1
    assert "was destroyed" in after
    assert "Traceback" not in after


def test_without_keys(top: Launch, store: flightstore.Store) -> None:
    """Standard input is no terminal: everything works but the keys."""
    live = top("--interval", "0.1", stdin=subprocess.DEVNULL)
    live.terminal.wait_for("(?s)q quit.*q quit.*q quit")
    live.process.send_signal(signal.SIGINT)
    assert live.ended() == 130


def test_a_terminal_that_can_nothing(start: Start, store: flightstore.Store) -> None:
    terminal = Terminal()
    process = start("top", "-n", "1", stdout=terminal.theirs, env=os.environ | {"TERM": "dumb"})
    assert process.wait(timeout=60) == 0
    assert "\x1b" not in terminal.text()


# --- elsewhere ---


def test_one_look_into_a_pipe(start: Start, store: flightstore.Store) -> None:
    store.put(np.zeros(1000), "[red]weights\x1b[31m")
    for arguments in (("top",), ("top", "--once"), ("top", "--once", "--sort", "refs")):
        out, err = start(*arguments).communicate(timeout=60)
        text = out.decode()
        assert err == b""
        assert "[red]weights\\x1b[31m" in text
        assert "\x1b" not in text
        assert text.count("clients") == 1
        assert "q quit" not in text


def test_several_looks_into_a_pipe(start: Start, store: flightstore.Store) -> None:
    out, _ = start("top", "-n", "3", "--interval", "0.1").communicate(timeout=60)
    assert out.decode().count("references") == 2 * 3


@pytest.mark.req("API-10")
def test_json_is_a_line_a_look(start: Start, store: flightstore.Store) -> None:
    store.put(pa.table({"x": [1, 2, 3]}), "table")
    held = [store.get("table"), store.get("table")]
    process = start("top", "--json", "-n", "1000000", "--interval", "0.1")
    assert process.stdout is not None
    looks = (json.loads(line) for line in process.stdout)
    first = next(looks)
    store.put(b"x", "during")
    changed = next(one for one in looks if one["made"] != first["made"])
    assert (first["made"], first["made_per_s"], first["gone_per_s"]) == (1, None, None)
    assert changed["made"] == 2
    assert changed["made_per_s"] > 0
    assert first["store"]["capacity_bytes"] == 256 << 20
    (described,) = first["objects"]
    assert (described["name"], described["kind"], described["rows"]) == ("table", "table", 3)
    assert (described["refs"], described["state"]) == (2, "sealed")
    assert described["id"] == str(store.stat("table").id)
    (ours,) = [client for client in first["clients"] if client["pid"] == os.getpid()]
    assert (ours["leases"], ours["objects"], ours["state"]) == (2, 1, "alive")
    assert ours["bytes"] >= store.stat("table").nbytes
    assert process.pid in [client["pid"] for client in first["clients"]]
    assert "flightstore.cli top" in " ".join(client["command"] for client in first["clients"])
    del held


def test_so_many_looks_are_so_many_lines(start: Start, store: flightstore.Store) -> None:
    out, _ = start("top", "--json", "-n", "3", "--interval", "0.1").communicate(timeout=60)
    assert [json.loads(line)["store"]["objects"] for line in out.splitlines()] == [0, 0, 0]


def test_json_without_a_number_of_looks_is_one(start: Start, store: flightstore.Store) -> None:
    out, _ = start("top", "--json").communicate(timeout=60)
    assert json.loads(out)["store"]["objects"] == 0


def test_a_reader_who_goes_away(start: Start, store: flightstore.Store) -> None:
    process = start("top", "--json", "-n", "1000000", "--interval", "0.1")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_no_store(run: Run, store_path: str) -> None:
    done = run("top", "--json")
    assert (done.code, done.error["error"]) == (3, "NotAStore")
    assert not os.path.exists(store_path)


# --- one look ---


@pytest.mark.req("INV-1")
def test_looking_writes_nothing_and_holds_nothing(run: Run, store: flightstore.Store) -> None:
    store.put({"a": 1}, "object", metadata={"long": "x" * 10_000})
    store.put(np.zeros(100_000), "array")
    before = transactions(store)
    for arguments in (("--once",), ("--json",), ("--once", "--sort", "name")):
        assert run("top", *arguments).code == 0
        assert look_at(store).stats.leases == 0
    assert (transactions(store), store.stats().leases) == (before, 0)


def test_it_sees_objects_in_every_state(store: flightstore.Store) -> None:
    store.put(b"x" * 1000, "held")
    held = store.get("held")
    store.delete("held")
    builder = store.create(200_000, "coming")
    store.put(b"y", None)
    seen = look_at(store)
    states = {one.name: (one.state, one.id is None, one.refs) for one in seen.objects}
    assert states["held"] == ("dying", True, 1)
    assert states["coming"] == ("pending", False, 1)
    assert states[None] == ("sealed", False, 0)
    assert [one.name for one in seen.objects] == ["coming", "held", None], "largest first"
    builder.abort()
    held.release()


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("size", ["c", "a", "b", None]),
        ("recent", [None, "a", "c", "b"]),
        ("refs", ["b", "c", "a", None]),
        ("name", ["a", "b", "c", None]),
    ],
)
def test_orders(store: flightstore.Store, order: str, names: list[str | None]) -> None:
    for name, size in (("b", 200), ("c", 4000), ("a", 300), (None, 1)):
        store.put(b"x" * size, name)
    held = [store.get("b"), store.get("b"), store.get("c")]
    assert [one.name for one in look_at(store, order).objects] == names
    assert [one.name for one in look_at(store, order, 2).objects] == names[:2]
    assert tuple(ORDERS) == SORTS
    del held


def test_a_dead_and_a_stopped_client(store: flightstore.Store) -> None:
    store.put(b"x" * 100_000, "it")
    script = (
        "import flightstore, sys\n"
        "held = flightstore.connect().get('it')\n"
        "print('got', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()

        def state() -> tuple[str, int]:
            return next((c.state, c.held_bytes) for c in look_at(store).clients if c.pid == reader.pid)

        size = state()[1]
        assert size >= 100_000
        reader.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, reader.pid, os.WSTOPPED | os.WNOWAIT)
        assert state() == ("stopped", size)
        reader.kill()
        os.waitid(os.P_PID, reader.pid, os.WEXITED | os.WNOWAIT)
        assert state()[0] == "dead"


def test_memory_is_counted_once_for_each_client(store: flightstore.Store) -> None:
    store.put(b"x" * 100_000, "it")
    held = [store.get("it") for _ in range(5)]
    (ours,) = [client for client in look_at(store).clients if client.pid == os.getpid()]
    assert (ours.leases, ours.objects) == (5, 1)
    assert 100_000 <= ours.held_bytes < 110_000
    del held


@pytest.mark.req("O-2")
def test_memory_of_composed_objects(store: flightstore.Store) -> None:
    """A table made of many others keeps all of their memory, and shared memory counts once."""
    for i in range(20):
        store.put(pa.table({"x": np.full(10_000, i)}), f"part {i}")
    whole = store.concat([f"part {i}" for i in range(20)], name="whole")
    part = store.get("part 3")
    (ours,) = [client for client in look_at(store).clients if client.pid == os.getpid()]
    assert (ours.leases, ours.objects) == (2, 2)
    assert 20 * 80_000 <= ours.held_bytes < 20 * 82_000
    assert ours.held_bytes == store.stats().leased_bytes
    del whole, part


def test_rates_come_from_serial_numbers(store: flightstore.Store) -> None:
    store.put(b"x", "a")
    first = look_at(store)
    store.put_many([b"x"] * 10)
    store.put(b"y", "a")  # replaces one
    store.delete("a")
    second = look_at(store)
    seconds = second.moment_s - first.moment_s
    frame = Frame.after(second, "size", first)
    assert frame.made_per_s == pytest.approx(11 / seconds)
    assert frame.gone_per_s == pytest.approx(2 / seconds)
    assert Frame.after(first, "size", None).made_per_s is None


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_bar(store: flightstore.Store, share: float) -> None:
    seen = look_at(store)
    capacity = seen.stats.capacity_bytes
    used = int(capacity * share)
    stats = dataclasses.replace(
        seen.stats, used_bytes=used, leased_bytes=used // 2, backed_bytes=max(used, capacity // 2)
    )
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(rendered(Frame(dataclasses.replace(seen, stats=stats), "size"), width=120))
    bar = re.search(r"\[([#=.-]*)\] used", console.export_text())
    assert bar
    assert len(bar[1]) == 50
    assert bar[1].count("#") == pytest.approx(50 * share / 2, abs=1)
    assert bar[1].count("=") == pytest.approx(50 * share / 2, abs=1)
    assert bar[1] == "".join(sorted(bar[1], key="#=-.".index))


def test_every_order_has_a_key() -> None:
    assert sorted(KEYS.values()) == sorted(SORTS)


# --- names, for completion ---


@pytest.mark.req("API-11")
def test_names_by_their_beginning(store: flightstore.Store) -> None:
    long = "long" * 200
    names = ["a", "ab", "ab\0c", "b", long, long + "more", "ü", "üx", "l" * 480, "l" * 481]
    for name in names:
        store.put(b"x", name)
    store.put(b"x")
    connection = connection_for(store.path, 0)
    try:
        for prefix in ("", "a", "ab", "long", long, long[:403], long + "m", "ü", "nothing", "l" * 480):
            expected = sorted(name for name in names if name.startswith(prefix))
            assert sorted(matching_names(connection, prefix)) == expected
        assert len(matching_ids(connection, "id:")) == len(names) + 1
        identity = str(store.stat("a").id)
        assert matching_ids(connection, identity[:12]) == [identity]
    finally:
        release_connection(connection)
