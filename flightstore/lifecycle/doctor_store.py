"""doctor's look into a store: who is dead, who is stopped, who holds others up; forgotten stores.

`examine` reads; the `check_*` functions judge and are pure. Nothing is changed: what is dead stays for
`recover`. Another store's catalog is never opened (its lock file must not be touched by accident):
forgotten stores are told by their control and client files alone. Calls memory, catalog and
lifecycle.registry.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flightstore import config
from flightstore.errors import FlightStoreError, NotAStore, StoreDamaged, StoreVersionMismatch
from flightstore.lifecycle import machine as machines
from flightstore.lifecycle.doctor import (
    NOTE,
    OK,
    PROBLEM,
    WARNING,
    Finding,
    check_machine,
    check_pid_namespace,
    human_size,
)
from flightstore.lifecycle.doctor_spill import examine_spilling
from flightstore.lifecycle.registry import connection_for, release_connection
from flightstore.memory import kernel
from flightstore.memory.clients import ClientInfo, Clients
from flightstore.memory.control import Control

__all__ = [
    "ForgottenStore",
    "check_catalog",
    "check_clients",
    "check_forgotten",
    "check_lock_holder",
    "check_readers",
    "check_stopped",
    "examine",
    "forgotten_stores",
]

SHARED_MEMORY = "/dev/shm"
_BUSY_TIMEOUT_S = 2.0
_CATALOG_WARNING_SHARE, _CATALOG_FULL_SHARE = 0.75, 0.9


@dataclass(frozen=True, slots=True)
class ForgottenStore:
    """A store of this user that no process uses."""

    path: str
    """Its directory."""
    bytes: int
    """Memory that its files take."""
    created_ns: int
    """When it was made."""


def examine(path: str | None = None, *, shared_memory: str = SHARED_MEMORY) -> tuple[str, list[Finding]]:
    """Check a store and what is around it.

    Args:
        path: The store's directory; None for the default one. There need be no store.
        shared_memory: Where to look for forgotten stores.

    Returns:
        The directory that was looked at, and the findings, most of them ``ok``.
    """
    directory = os.path.realpath(path or config.default_directory())
    found, control = _check_store(directory)
    capacity_bytes, backed_bytes = 0, 0
    if control is not None:
        capacity_bytes = control.identity.capacity_bytes
        backed_bytes = control.usage()[1]
    found += check_machine(
        machines.read_machine(),
        machines.read_file_system(directory),
        capacity_bytes=capacity_bytes,
        backed_bytes=backed_bytes,
    )
    if control is not None:
        found += _check_inside(directory, control)
    others = [store for store in forgotten_stores(shared_memory) if store.path != directory]
    return directory, [*found, check_forgotten(others)]


def _check_store(directory: str) -> tuple[list[Finding], Control | None]:
    """Whether there is a store of our format version; its control page, if so."""
    if not os.path.exists(directory):
        message, fix = f"there is no store at {directory} yet", "nothing: the first put makes it"
        return [Finding("store", NOTE, message, fix)], None
    try:
        control = Control(directory)
    except FlightStoreError as error:
        name = "format version" if isinstance(error, StoreVersionMismatch) else "store"
        fixes = {
            NotAStore: "name another directory",
            StoreDamaged: f"flightstore recover, or rm -r {directory}",
        }
        return [Finding(name, PROBLEM, error.message, error.hint or fixes.get(type(error), ""))], None
    capacity = human_size(control.identity.capacity_bytes)
    return [Finding("format version", OK, f"the one this flightstore writes; capacity {capacity}")], control


def _check_inside(directory: str, control: Control) -> list[Finding]:
    """Checks that need the store itself; the last of them need its catalog."""
    namespace = check_pid_namespace(control.identity.pid_namespace, machines.pid_namespace())
    if namespace.severity != OK:
        return [namespace]
    clients = Clients(directory).infos()
    holder = control.lock.holder()
    found = [
        namespace,
        check_clients(clients),
        check_stopped(clients, kernel.process_state),
        check_lock_holder(holder, kernel.process_state(holder) if holder else ""),
    ]
    if found[-1].severity == PROBLEM:
        # The catalog cannot be judged while somebody keeps its lock; connecting might wait for him.
        return found
    try:
        connection = connection_for(directory, _BUSY_TIMEOUT_S)
    except FlightStoreError as error:
        return [*found, Finding("catalog", PROBLEM, error.message, error.hint)]
    try:
        catalog = connection.catalog
        stopped = [
            one for one in catalog.lagging_readers(least=1) if kernel.process_state(one[0]) in ("T", "t")
        ]
        found.append(check_readers(sorted({*catalog.lagging_readers(), *stopped}, key=lambda one: -one[1])))
        found.append(check_catalog(catalog.used_bytes(), catalog.map_bytes))
        found += examine_spilling(connection)
    finally:
        release_connection(connection)
    return found


def check_clients(clients: Sequence[ClientInfo]) -> Finding:
    """Have dead processes left something?"""
    dead = [client for client in clients if not client.alive]
    if not dead:
        count = len(clients)
        return Finding("clients", OK, f"{count} alive, none dead" if count else "none")
    leases = sum(client.leases for client in dead)
    pids = ", ".join(str(client.pid) for client in dead[:10])
    message = f"{len(dead)} dead (process {pids}), which hold {leases} references: memory not given back yet"
    return Finding(
        "clients", WARNING, message, "flightstore recover (the next put that needs room does it too)"
    )


def check_stopped(clients: Sequence[ClientInfo], state_of: Callable[[int], str]) -> Finding:
    """Are processes stopped that hold references?"""
    stopped = [
        client
        for client in clients
        if client.alive and client.leases and client.pid and state_of(client.pid) in ("T", "t")
    ]
    if not stopped:
        return Finding("stopped clients", OK, "none")
    pids = " ".join(str(client.pid) for client in stopped)
    leases = sum(client.leases for client in stopped)
    message = f"process {pids.replace(' ', ', ')} is stopped and holds {leases} references"
    return Finding("stopped clients", NOTE, message, f"kill -CONT {pids} (or end it)")


def check_lock_holder(pid: int, state: str) -> Finding:
    """Does somebody who cannot go on keep the writers' lock?"""
    name = "writers' lock"
    if not pid or state == "gone":
        return Finding(name, OK, "free")
    if state in ("T", "t"):
        message = f"process {pid} was stopped in the middle of a write: nobody else can put or delete"
        return Finding(name, PROBLEM, message, f"kill -CONT {pid} (or kill -KILL {pid}: nothing is lost)")
    return Finding(name, OK, f"process {pid} is writing at this moment")


def check_readers(lagging: Sequence[tuple[int, int]]) -> Finding:
    """Does a reader keep old pages of the catalog from being used again?"""
    name = "catalog readers"
    if not lagging:
        return Finding(name, OK, "none lags")
    who = ", ".join(f"process {pid} ({behind:,} transactions behind)" for pid, behind in lagging)
    pids = " ".join(str(pid) for pid, _behind in lagging)
    message = f"{who} keeps pages of the catalog from being used again: it fills up"
    return Finding(name, WARNING, message, f"kill -CONT {pids} if it is stopped, otherwise end it")


def check_catalog(used_bytes: int, catalog_bytes: int) -> Finding:
    """Is there room for more objects' records?"""
    share = used_bytes / catalog_bytes
    message = f"{share:.0%} of {human_size(catalog_bytes)} in use"
    if share < _CATALOG_WARNING_SHARE:
        return Finding("catalog", OK, message)
    fix = "delete objects (flightstore rm), or make a store with a larger capacity: its catalog grows with it"
    if share < _CATALOG_FULL_SHARE:
        return Finding(
            "catalog", WARNING, f"{message}; puts are refused from {_CATALOG_FULL_SHARE:.0%} on", fix
        )
    return Finding("catalog", PROBLEM, f"{message}: puts are refused, deleting works", fix)


def check_forgotten(stores: Sequence[ForgottenStore], now_ns: int | None = None) -> Finding:
    """Are there stores that take memory and are used by nobody?"""
    name = "forgotten stores"
    if not stores:
        return Finding(name, OK, "none")
    now = time.time_ns() if now_ns is None else now_ns
    listed = ", ".join(
        f"{store.path} ({human_size(store.bytes)}, {max(0, now - store.created_ns) / 86400e9:.1f} days old)"
        for store in stores
    )
    fix = "; ".join(f"flightstore destroy --yes --store {store.path}" for store in stores)
    return Finding(name, NOTE, f"no process uses {listed}", f"if you do not need them: {fix}")


def forgotten_stores(parent: str = SHARED_MEMORY) -> list[ForgottenStore]:
    """The stores directly below `parent` that belong to this user and have no live client."""
    found = []
    try:
        entries = sorted(os.scandir(parent), key=lambda entry: entry.name)
    except OSError:
        return []
    for entry in entries:
        try:
            if not entry.is_dir(follow_symlinks=False) or entry.stat().st_uid != os.getuid():
                continue
            control = Control(entry.path)
            if any(client.alive for client in Clients(entry.path).infos()):
                continue
        except (FlightStoreError, OSError):
            continue
        path = os.path.realpath(entry.path)
        found.append(ForgottenStore(path, _memory_bytes(path), control.identity.created_ns))
    return found


def _memory_bytes(path: str) -> int:
    """Memory that the files below a directory take: their blocks, not their (sparse) length."""
    total = 0
    for directory, _directories, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except OSError:
                continue
    return total
