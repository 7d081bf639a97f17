"""Shell completion: in a real bash, key by key; for zsh and fish the scripts, and the answers they get."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import FishComplete, ZshComplete
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import flightstore
from flightstore.cli.completion import Typed, insertion, parse_typed
from flightstore.cli.main import cli

from .conftest import Run, Terminal

BREAKS = " \t\n\"'><=;|&(:"
"""COMP_WORDBREAKS, as bash has it."""

ODD_NAMES = [
    "my name",
    "my nb",
    "orders/country=DE",
    "orders/country=FR",
    "uniq:colon",
    'quo"te',
    "apo's",
    "dol$lar",
    "star*",
    "comma,name",
    "tab\there",
    "new\nline",
    "esc\x1b[31m",
    "ünï 名",
    "back\\slash",
    "semi;colon",
    "(paren)",
    "~tilde",
    "#hash",
    "wow!bang",
    "long" + "g" * 600,
]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called flightstore, first on the path: it completes, and otherwise shows its arguments."""
    place = tmp_path / "bin" / "flightstore"
    place.parent.mkdir()
    place.write_text(
        "#!/bin/sh\n"
        f'[ -n "$_FLIGHTSTORE_COMPLETE" ] && exec {sys.executable} -m flightstore.cli "$@"\n'
        f'exec {sys.executable} -c \'import sys; print("ARGS", sys.argv[1:], "END")\' "$@"\n'
    )
    place.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place.parent}{os.pathsep}{os.environ['PATH']}")
    return place


class Bash:
    """An interactive bash at a terminal, with our completion."""

    def __init__(self, script: str, directory: Path) -> None:
        self.terminal = Terminal()
        self.terminal.resize(50, 500)
        environment = os.environ | {"TERM": "dumb", "PS1": "$ ", "HISTFILE": "/dev/null"}
        environment.pop("INPUTRC", None)
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=self.terminal.theirs,
            stdout=self.terminal.theirs,
            stderr=self.terminal.theirs,
            env=environment | {"INPUTRC": "/dev/null"},
            cwd=directory,
            start_new_session=True,
        )
        (directory / "completion.bash").write_text(script)
        # Written apart, so that the echo of what is typed is not taken for the answer.
        self.terminal.type('source completion.bash; echo READ""Y\r')
        self.terminal.wait_for("READY")

    def arguments(self, typed: str) -> list[str]:
        """The arguments a command gets after these keys (a tab asks for completion) and the enter key."""
        mark = self.terminal.mark()
        self.terminal.type(typed + "\r")
        shown = self.terminal.wait_for(r"ARGS (\[.*\]) END", mark)
        found: list[str] = eval(shown[1])
        return found

    def end(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=60)
        self.terminal.text()


@pytest.fixture
def bash(program: Path, run: Run, store_path: str, tmp_path: Path) -> Iterator[Bash]:
    shell = Bash(run("completion", "bash").out, tmp_path)
    yield shell
    shell.end()


# --- bash, for real ---


@pytest.mark.req("API-11")
@pytest.mark.slow
def test_names_in_bash(bash: Bash, store: flightstore.Store) -> None:
    for name in ODD_NAMES:
        store.put(b"x", name)
    cases = {
        "head my\tam\t": "my name",
        "head my\\ na\t": "my name",
        'head "my na\t': "my name",
        "head 'my na\t": "my name",
        "head orders/c\tD\t": "orders/country=DE",
        'head "orders/country=F\t': "orders/country=FR",
        "head 'orders/c\tF\t": "orders/country=FR",
        "head uniq\t": "uniq:colon",
        "head uniq:c\t": "uniq:colon",
        "head quo\t": 'quo"te',
        'head "quo\t': 'quo"te',
        "head apo\t": "apo's",
        "head 'apo\t": "apo's",
        "head dol\t": "dol$lar",
        'head "dol\t': "dol$lar",
        "head star\t": "star*",
        "head comma\t": "comma,name",
        "head tab\t": "tab\there",
        "head new\t": "new\nline",
        "head esc\t": "esc\x1b[31m",
        "head ün\t": "ünï 名",
        "head back\t": "back\\slash",
        "head semi\t": "semi;colon",
        "head \\(p\t": "(paren)",
        "head \\~t\t": "~tilde",
        "head \\#h\t": "#hash",
        "head wow\t": "wow!bang",
        "head long\t": "long" + "g" * 600,
    }
    for typed, name in cases.items():
        assert bash.arguments(f"flightstore {typed}") == ["head", name], typed


def test_every_command_that_takes_an_object_completes_it(bash: Bash, store: flightstore.Store) -> None:
    store.put(b"x", "only one")
    for command in ("get", "head", "schema", "stat", "rm", "ls"):
        assert bash.arguments(f"flightstore {command} on\t") == [command, "only one"]
    store.put(b"x", "other")
    assert bash.arguments("flightstore rm 'other' o\t") == ["rm", "other", "only one"], "not the same again"
    identity = str(store.stat("only one").id)
    assert bash.arguments(f"flightstore get {identity[:9]}\t") == ["get", identity]


def test_everything_else_in_bash(bash: Bash, store: flightstore.Store, tmp_path: Path) -> None:
    store.put(b"x", "it")
    (tmp_path / "some file.parquet").touch()
    (tmp_path / "directory").mkdir()
    cases = {
        "sche\t it": ["schema", "it"],
        "get it --format parq\t": ["get", "it", "--format", "parquet"],
        "get it --format csv.z\t": ["get", "it", "--format", "csv.zst"],
        "get it --format=parq\t": ["get", "it", "--format=parquet"],
        "top --sort si\t": ["top", "--sort", "size"],
        "top --inter\t 1": ["top", "--interval", "1"],
        "put som\t": ["put", "some file.parquet"],
        "get it -o some\t": ["get", "it", "-o", "some file.parquet"],
        "--store dire\t ls": ["--store", "directory/", "ls"],
        "completion z\t": ["completion", "zsh"],
    }
    for typed, arguments in cases.items():
        assert bash.arguments(f"flightstore {typed}") == arguments, typed
    mark = bash.terminal.mark()
    assert bash.arguments("true; LANG=C flightstore head i\t") == ["head", "it"], (
        "not the line's first command"
    )
    assert bash.terminal.mark() > mark


def test_another_store_is_completed_from(bash: Bash, store: flightstore.Store, tmp_path: Path) -> None:
    other = f"{store.path}-2"
    with flightstore.connect(other, capacity="16MiB") as second:
        second.put(b"x", "in the other")
        assert bash.arguments(f"flightstore head --store {other} in\t")[-1] == "in the other"
        assert bash.arguments(f"flightstore --store {other} head in\t")[-1] == "in the other"
        second.destroy()


def test_where_nothing_can_be_completed_nothing_is_said(bash: Bash, store_path: str) -> None:
    mark = bash.terminal.mark()
    assert bash.arguments("flightstore head x\t") == ["head", "x"]
    assert not Path(store_path).exists(), "completing makes no store"
    Path(store_path).mkdir()
    Path(store_path, "control").write_bytes(b"\0" * 8192)
    assert bash.arguments("flightstore head x\t") == ["head", "x"]
    shown = bash.terminal.wait_for("(?s).*", mark)[0]
    assert "rror" not in shown
    assert "Traceback" not in shown


def test_a_stopped_writer_holds_no_completion_up(
    bash: Bash, store: flightstore.Store, tmp_path: Path
) -> None:
    store.put(b"x", "there already")
    script = (
        "import flightstore, sys, signal, os\n"
        "store = flightstore.connect()\n"
        "store._conn.exclusive(lambda: (print('has it', flush=True), os.kill(os.getpid(), signal.SIGSTOP)))\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"has it\n"
            os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WNOWAIT)
            assert bash.arguments("flightstore head there\t") == ["head", "there already"]
        finally:
            writer.kill()


# --- the other shells ---


def answered(program: Path, shell: str, words: str, at: str) -> list[str]:
    """What a shell's script gets for an answer."""
    environment = os.environ | {
        "_FLIGHTSTORE_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": at,
    }
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


def test_the_script_of_zsh_is_clicks(run: Run) -> None:
    made = ZshComplete(cli, {}, "flightstore", "_FLIGHTSTORE_COMPLETE").source()
    assert run("completion", "zsh").out.strip() == made.strip()
    assert made.startswith("#compdef flightstore")


def test_the_script_of_fish_is_clicks_but_for_commas(run: Run) -> None:
    made = FishComplete(cli, {}, "flightstore", "_FLIGHTSTORE_COMPLETE").source()
    ours = run("completion", "fish").out
    assert ours != made
    assert ours.replace("string split --max 1 ", "string split ").strip() == made.strip()


def test_answers_to_zsh(program: Path, store: flightstore.Store) -> None:
    for name in ODD_NAMES:
        store.put(b"x", name)
    answer = answered(program, "zsh", "flightstore head ", "2")
    names = answer[1::3]
    assert answer[0::3] == ["plain"] * len(names)
    assert answer[2::3] == ["_"] * len(names)
    assert names == sorted(name for name in ODD_NAMES if name.isprintable())
    assert answered(program, "zsh", "flightstore head my\\ na", "2")[1::3] == ["my name"]
    assert answered(program, "zsh", "flightstore get my --format=pa", "3")[1::3] == ["--format=parquet"]


def test_answers_to_fish(program: Path, store: flightstore.Store) -> None:
    for name in ODD_NAMES:
        store.put(b"x", name)
    assert answered(program, "fish", "flightstore head comma", "comma") == ["plain,comma,name"]
    assert answered(program, "fish", "flightstore head 'my na", "'my na") == ["plain,my name"]
    assert answered(program, "fish", "flightstore head tab", "tab") == [], "a line end would be two answers"


# --- the command ---


def test_the_shell_is_told_by_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert run("completion").out == run("completion", "fish").out
    assert run("completion", "--json").json == {"shell": "fish", "script": run("completion").out}
    for shell in ("/bin/tcsh", ""):
        monkeypatch.setenv("SHELL", shell)
        refused = run("completion", "--json")
        assert (refused.code, refused.error["error"]) == (2, "UsageError")
        assert "bash, zsh, fish" in refused.error["message"]


def test_the_script_of_bash_is_one_that_bash_takes(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(run("completion", "bash").out)
    assert shutil.which("bash")
    checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_completion_needs_no_store(run: Run, store_path: str) -> None:
    assert run("completion", "bash").code == 0
    assert not Path(store_path).exists()


# --- what was typed, and what is put in its place ---


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("", Typed((), "", 0, "")),
        ("flightstore ", Typed(("flightstore",), "", 0, "")),
        ("flightstore head my", Typed(("flightstore", "head"), "my", 0, "")),
        ("f head a\\ b", Typed(("f", "head"), "a b", 0, "")),
        ("f head 'a b' c", Typed(("f", "head", "a b"), "c", 0, "")),
        ("f head a=b", Typed(("f", "head"), "a=b", 2, "")),
        ("f head a:b=c", Typed(("f", "head"), "a:b=c", 4, "")),
        ('f head "a=b', Typed(("f", "head"), "a=b", 0, '"')),
        ('f head x="a b', Typed(("f", "head"), "x=a b", 2, '"')),
        ("f head 'a\\", Typed(("f", "head"), "a\\", 0, "'")),
        ("f head ''", Typed(("f", "head"), "", 0, "")),
        ("f head '' ", Typed(("f", "head", ""), "", 0, "")),
        ("f head a\\", Typed(("f", "head"), "a", 0, "")),
    ],
)
def test_parsing_what_was_typed(text: str, typed: Typed) -> None:
    assert parse_typed(text, BREAKS) == typed


@given(
    value=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    quote=st.sampled_from(["", "'", '"']),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_inserted_is_the_value_again(value: str, quote: str) -> None:
    inserted = insertion(value, Typed((), "", 0, quote))
    if inserted is None:
        assert quote
        assert not value.isprintable()
        return
    assert inserted.isprintable()
    command = ["bash", "-c", f"printf %s {quote}{inserted}{quote}"]
    assert subprocess.run(command, capture_output=True, check=True).stdout.decode() == value


def test_only_the_part_that_bash_replaces_is_inserted() -> None:
    assert insertion("orders/country=D E", Typed((), "orders/country=D", 15, "")) == "D\\ E"
    assert insertion("uniq:colon", Typed((), "uniq:", 5, "")) == "colon"
