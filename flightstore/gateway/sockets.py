"""The places that servers bind: ports that must be free, and unix sockets that only their owner may use.

A unix socket is made under a umask, so it has mode 0600 from its first moment. gRPC takes away whatever lies
at its path; so the path is looked at first, and the folder is locked until the new socket listens: of two
gateways that start at once, the second finds a living one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from flightstore.errors import NotAllowed

__all__ = ["UnixSocket", "check_free"]

_UMASK = 0o177
_LOCK_S = 5.0


def check_free(host: str, port: int) -> int:
    """See that a port can be bound, so that an error names it (gRPC's does not).

    Returns:
        The port; one that is free, for 0.

    Raises:
        OSError: it is in use, or not this machine's.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
            trial.listen(1)
            return int(trial.getsockname()[1])
        except OSError as error:
            raise OSError(
                error.errno, f"cannot listen there: {os.strerror(error.errno or 0)}", f"{host}:{port}"
            ) from None


class UnixSocket:
    """One unix socket that this process listens at, or is about to."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._inode: int | None = None

    @contextlib.contextmanager
    def binding(self) -> Iterator[None]:
        """Bind the socket in the block.

        Raises:
            NotAllowed: the folder is not safe.
            OSError: somebody listens there, or it is no socket.
        """
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _check_folder(self.path.parent, os.fstat(folder))
            _lock(folder, self.path.parent)
            self._remove_stale()
            before = os.umask(_UMASK)
            try:
                yield
            finally:
                os.umask(before)
            self._inode = os.lstat(self.path).st_ino
        finally:
            os.close(folder)

    def check(self) -> None:
        """See that it could be bound; changes nothing.

        Raises:
            NotAllowed, OSError: see `binding`.
        """
        _check_folder(self.path.parent, os.stat(self.path.parent))
        self._is_stale()

    def remove(self) -> None:
        """Take it away, if it is ours still. Idempotent."""
        with contextlib.suppress(FileNotFoundError):
            if self._inode is not None and os.lstat(self.path).st_ino == self._inode:
                self.path.unlink()

    def _remove_stale(self) -> None:
        if self._is_stale():
            self.path.unlink(missing_ok=True)

    def _is_stale(self) -> bool:
        """Whether a dead gateway's socket is there."""
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return False
        if not stat.S_ISSOCK(found.st_mode):
            raise FileExistsError(errno.EEXIST, "this is there already, and is no socket", str(self.path))
        with socket.socket(socket.AF_UNIX) as trial:
            trial.settimeout(1)
            try:
                trial.connect(str(self.path))
            except ConnectionRefusedError:
                return True
            except FileNotFoundError:
                return False
            except (TimeoutError, BlockingIOError):
                pass  # it lives, and is busy
        raise OSError(errno.EADDRINUSE, "a process listens at this socket already", str(self.path))


def _lock(folder: int, path: Path) -> None:
    """Not for ever: in a folder that others can read, anybody may hold the lock."""
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise OSError(errno.EBUSY, "another process keeps this folder locked", str(path)) from None
            time.sleep(0.02)


def _check_folder(path: Path, found: os.stat_result) -> None:
    """In a folder where others may replace files, a socket could be anybody's."""
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    if shared or found.st_uid not in (0, os.geteuid()):
        raise NotAllowed(
            f"others may replace what is in {path}: no place for a socket",
            hint=f"chmod go-w {path}, or choose a folder of your own, such as $XDG_RUNTIME_DIR",
        )
