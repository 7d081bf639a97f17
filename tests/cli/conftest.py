"""What the command line's tests share: a store of their own, and commands in this process or their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
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
def start(store_path: str) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
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
