"""Servers of peers: started, waited for, ended by their ids. The standard library alone."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STARTUP_S = 30.0
STOP_S = 10.0
POLL_S = 0.01


def start(command: Sequence[Any], socket: Path) -> subprocess.Popen[bytes]:
    """Start a server and wait until its unix socket is there.

    Raises:
        RuntimeError: it ended, or made no socket in time.
    """
    socket.unlink(missing_ok=True)
    server = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + STARTUP_S
    while not socket.exists():
        if server.poll() is not None or time.monotonic() > deadline:
            stop(server)
            raise RuntimeError(f"{Path(command[0]).name} did not come up (status {server.returncode})")
        time.sleep(POLL_S)
    return server


def stop(server: subprocess.Popen[bytes]) -> None:
    """End a server, gently first."""
    server.terminate()
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
