"""A process that dies gives up its lock before those who are connected to it hear of its death."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from flightstore.connectors.ray.closing import release_first
from flightstore.testing.children import start

BETWEEN = 900
"""Files that are released in between: so long it takes from the first to the last."""


def hold(path: str, link: socket.socket, first: bool) -> None:
    """Lock a file; then open others, and a connection last of all; live on until killed."""
    lock = os.open(path, os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    for _ in range(BETWEEN):
        os.open(path, os.O_RDONLY)
    connection = os.dup(link.fileno())
    link.close()
    if first:
        assert release_first(path) > connection
    os.write(connection, b"x")
    threading.Event().wait()


def is_free_when_the_death_is_heard(path: Path, first: bool) -> bool:
    ours, theirs = socket.socketpair()
    with ours, theirs, start(hold, str(path), theirs, first) as holder:
        theirs.close()
        assert ours.recv(1) == b"x"
        with path.open() as file:
            with pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.kill(holder.pid, signal.SIGKILL)
            assert ours.recv(1) == b""
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True


@pytest.mark.req("O-5", "FAIL-2")
def test_the_lock_goes_first(tmp_path: Path) -> None:
    path = tmp_path / "locked"
    path.touch()
    assert all(is_free_when_the_death_is_heard(path, first=True) for _ in range(10))


def test_what_is_not_open_cannot_be_released(tmp_path: Path) -> None:
    path = tmp_path / "closed"
    path.touch()
    with pytest.raises(FileNotFoundError, match="is not open"):
        release_first(str(path))
