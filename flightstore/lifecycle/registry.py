"""The registry: one Connection per store and process, opened when first asked for, and told of every fork.

Two LMDB environments on one file in one process would corrupt it, so all handles on a store share one
Connection. The fork hooks are the process's, not a Connection's: each step is taken for all of them, and a
connection that fails one does not keep the others from theirs.
"""

from __future__ import annotations

import atexit
import errno
import os
import threading
import warnings
from collections.abc import Callable

from flightstore.errors import (
    FlightStoreError,
    StoreAccessDenied,
    StoreClosed,
    StoreDamaged,
    WrongPidNamespace,
)
from flightstore.lifecycle import layout
from flightstore.lifecycle.connection import Connection
from flightstore.memory import allocator, kernel
from flightstore.memory.control import Control

__all__ = ["connection_for", "release_connection", "retain_connection"]

_connections: dict[bytes, Connection] = {}
_registry = threading.RLock()
_forking: list[Connection] = []
"""The connections whose hook before the fork was run, and whose hooks after it are owed."""


BUSY_TIMEOUT_S = 10.0


def connection_for(path: str, busy_timeout_s: float | None) -> Connection:
    """The Connection to the store at `path`; each call is to be matched by one `release_connection`.

    `busy_timeout_s` None leaves a connection that there is as it is.

    Raises:
        NotAStore, StoreDamaged, StoreVersionMismatch, StoreAccessDenied, WrongPidNamespace: what they say.
    """
    control = Control(path)
    identity = control.identity
    if identity.pid_namespace != kernel.pid_namespace():
        raise WrongPidNamespace(
            f"the store {path} belongs to another pid namespace (another container)",
            hint="connect through a gateway's unix socket, or share the pid namespace",
        )
    if kernel.PAGE_BYTES != allocator.PAGE:
        raise FlightStoreError(
            f"this machine has pages of {kernel.PAGE_BYTES:,} bytes; flightstore needs {allocator.PAGE:,}",
            hint="boot a kernel with pages of 4 KiB",
        )
    with _registry:
        _close_unused()
        connection = _connections.get(identity.nonce)
        if connection is None:
            connection = _connections[identity.nonce] = _open_unless_destroyed(path, control, BUSY_TIMEOUT_S)
        if busy_timeout_s is not None:
            connection.busy_timeout_s = busy_timeout_s
        connection.handles += 1
        return connection


def _open_unless_destroyed(path: str, control: Control, busy_timeout_s: float) -> Connection:
    try:
        return _open(path, control, busy_timeout_s)
    except Exception as error:
        if not control.destroyed:
            raise
        # Destroyed while we opened it: whatever went wrong comes of that.
        hint = "connect again to make a new one"
        raise StoreClosed(f"the store {path} was destroyed", hint=hint) from error


def _open(path: str, control: Control, busy_timeout_s: float) -> Connection:
    try:
        layout.check_files(path, control.identity)  # before anything is mapped
        connection = Connection(path, control, busy_timeout_s)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        with connection.catalog.gate:
            connection.catalog.environment()
        _ = connection.client
    except BaseException as error:
        connection.catalog.close()  # one environment per process: it must not live on in a traceback
        if isinstance(error, OSError) and not isinstance(error, FlightStoreError):
            raise _unusable(path, error) from error
        raise
    return connection


def _unusable(path: str, error: OSError) -> FlightStoreError:
    """What an error of the file system means to somebody who connects."""
    if isinstance(error, FlightStoreError):
        return error
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreAccessDenied(
            f"no permission to use the store {path}: {error}",
            hint="direct clients need read and write permission on its directory and files",
        )
    return StoreDamaged(f"the store {path} cannot be used: {error}", hint="run 'flightstore doctor'")


def retain_connection(connection: Connection) -> None:
    """Count one more handle on a connection, as `connection_for` does.

    Raises:
        StoreClosed: its last handle was closed meanwhile.
    """
    with _registry:
        if _connections.get(connection.control.identity.nonce) is not connection or not connection.handles:
            raise StoreClosed("this store handle was closed", hint="connect again")
        connection.handles += 1


def release_connection(connection: Connection) -> None:
    """Undo one `connection_for`; the last one closes what is not in use."""
    with _registry:
        connection.handles -= 1
        _close_unused()


def _close_unused() -> None:
    """Close the connections without handles. One whose views are still in use stays, until it is looked at
    again: whenever this process connects or closes a handle. Requires the registry's lock.
    """
    for nonce, connection in list(_connections.items()):
        if connection.handles == 0 and connection.close():
            # Meanwhile a finalizer may have closed another handle, and so have come here itself.
            _connections.pop(nonce, None)


def _before_fork() -> None:
    _registry.acquire()
    for connection in list(_connections.values()):
        _forking.append(connection)
        connection.before_fork()


def _after_fork_in_parent() -> None:
    problems = _each_forked(Connection.after_fork_in_parent)
    _registry.release()
    for problem in problems:  # only now: where warnings are errors, one raised earlier would leave locks held
        warnings.warn(problem, ResourceWarning, stacklevel=2)


def _after_fork_in_child() -> None:
    global _registry
    _registry = threading.RLock()
    _each_forked(Connection.after_fork_in_child)


def _each_forked(step: Callable[[Connection], str | None]) -> list[str]:
    """Take a step after the fork for every connection; what they have to say, and what went wrong."""
    said = []
    while _forking:
        connection = _forking.pop()
        try:
            problem = step(connection)
        except Exception as error:
            problem = f"{connection.path}: {type(error).__name__} in a fork hook: {error}"
        if problem:
            said.append(problem)
    return said


def _at_exit() -> None:
    for connection in list(_connections.values()):
        connection.close_at_exit()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
atexit.register(_at_exit)
