"""What the command line's tests share: a store of their own, and commands in this process or their own."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import flightstore
from flightstore.cli.main import cli

CAPACITY = "256MiB"
COMMAND = (sys.executable, "-m", "flightstore.cli")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The document on stdout."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """The JSON error on stderr."""
        return json.loads(self.err)


Run = Callable[..., Ran]
Start = Callable[..., "subprocess.Popen[bytes]"]


class Terminal:
    """A pseudo-terminal, what is typed at it, and all that was written to it."""

    def __init__(self) -> None:
        self._ours, self.theirs = pty.openpty()
        self._seen = io.BytesIO()
        self._grown = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._ours, 65536)
            except OSError:
                return
            if not piece:
                return
            with self._grown:
                self._seen.write(piece)
                self._grown.notify_all()

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._ours, text.encode())

    def resize(self, lines: int, columns: int) -> None:
        """Give the terminal another size; whoever runs at it is told."""
        termios.tcsetwinsize(self._ours, (lines, columns))

    def mark(self) -> int:
        """The place that has been reached, from which on `wait_for` may look."""
        with self._grown:
            return len(self._seen.getvalue())

    def wait_for(self, pattern: str, after: int = 0) -> re.Match[str]:
        """Wait until the terminal has shown something, beyond a mark.

        Several interpreters may have to start for that, and each takes ten seconds where others compute.
        """
        with self._grown:
            shown = self._grown.wait_for(
                lambda: re.search(pattern, self._seen.getvalue()[after:].decode(errors="replace")),
                timeout=120,
            )
        assert shown, self._seen.getvalue()[after:]
        return shown

    def text(self) -> str:
        """What was written, once nobody has the terminal open any more."""
        os.close(self.theirs)
        self._reader.join(timeout=60)
        os.close(self._ours)
        return self._seen.getvalue().decode()


@pytest.fixture
def store_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the test's store will be; nothing is there yet. Commands use it by default."""
    parent = tempfile.mkdtemp(prefix="flightstore-test-", dir="/dev/shm")
    path = os.path.join(parent, "store")
    monkeypatch.setenv("FLIGHTSTORE_DIR", path)
    monkeypatch.setenv("FLIGHTSTORE_CAPACITY", CAPACITY)
    # Processes that a test starts must find the package under test, from whatever directory.
    root = str(Path(flightstore.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(":"))
    yield path
    shutil.rmtree(parent, ignore_errors=True)


@pytest.fixture
def store(store_path: str) -> Iterator[flightstore.Store]:
    """The test's store, made."""
    with flightstore.connect(store_path) as made:
        yield made


@pytest.fixture
def run(store_path: str) -> Run:
    """Run a command in this process. An exception that leaves the command fails the test."""

    def invoke(*arguments: str, stdin: bytes | None = None) -> Ran:
        result = CliRunner().invoke(cli, list(arguments), input=stdin, catch_exceptions=False)
        return Ran(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture
def start(store_path: str) -> Iterator[Start]:
    """Start a command as a process; killed at the end of the test if it still runs."""
    started: list[subprocess.Popen[bytes]] = []

    def popen(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        } | options
        process = subprocess.Popen([*COMMAND, *arguments], **options)
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.communicate()
