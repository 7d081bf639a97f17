"""What must hold between the rounds of the chaos test, when nobody works on the store, and at its end.

Lives here: `Checker`. Calls the public API, chaosmoves.py, and the spill records behind it.

Invariants: between rounds every process has given back what it held, so all memory belongs to what is listed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import flightstore
from flightstore.catalog import keys
from flightstore.catalog.scopes import decode_spill
from flightstore.errors import ObjectNotFound, SpillFailed
from flightstore.lifecycle.spilling import file_name
from flightstore.testing.chaosboard import read_ledgers
from flightstore.testing.chaosmoves import KEEP_SESSION, Wrong, check_object
from flightstore.testing.stresspattern import blocks_problem

__all__ = ["Checker"]

_MOST_ORPHANS = 60
PATIENCE_S = 60.0
"""How long what is left behind may stay: a process that was killed may take a while to be gone."""
_TRIES = 40  # until a storage that fails now and then has done what it is asked


class Checker:
    """Looks at the store between rounds, and remembers what has to stay."""

    def __init__(self, path: str, ledgers: str, spill_directory: str, patience_s: float = PATIENCE_S) -> None:
        self._path = path
        self._ledgers = ledgers
        self._spill_directory = spill_directory
        self._patience_s = patience_s
        self._keeping: set[str] = set()
        self._removed: set[str] = set()
        self.checked = 0

    def look(self, living: int) -> list[str]:
        """What is wrong. Processes besides this one that are connected: `living`."""
        with flightstore.connect(self._path, create=False, busy_timeout=20) as store:
            self._settle(store)
            failures = [f"fsck: {finding}" for finding in store.fsck()]
            failures += self._settled_accounts(store, living)
            failures += self._files(store)
            failures += self._protected(store)
            failures += self._keep_session(store)
            failures += self._everything(store)
        return failures

    def tidy(self) -> None:
        """End what nobody would, and delete some of what dead processes made: so rounds are alike."""
        with flightstore.connect(self._path, create=False, busy_timeout=20) as store:
            for info in store.sessions():
                if info.name != KEEP_SESSION and info.state == "active":
                    store.session(info.id).end()
            for pinned in (one.id for one in store.list() if one.pinned):
                while store.unpin(pinned):
                    pass
            store.delete([info.id for info in store.list("b/*")])
            there = sorted((info for info in store.list("p/*")), key=lambda info: info.created_ns)
            self._thin_out(store, [str(info.name) for info in there])

    def _thin_out(self, store: Any, names: list[str]) -> None:
        """Delete the oldest protected objects whose makers are dead."""
        dead = [
            path
            for path in Path(self._ledgers).iterdir()
            if not Path("/proc", path.name.split("-")[0]).exists()
        ]
        orphaned = {line.split(" ")[1] for path in dead for line in path.read_text().splitlines()}
        doomed = [name for name in names if name in orphaned][:-_MOST_ORPHANS]
        self._removed |= set(doomed)
        store.delete(doomed)

    def empty(self) -> list[str]:
        """Delete everything: nothing is left in memory, or in the spill directory."""
        failures = []
        with flightstore.connect(self._path, create=False, busy_timeout=20) as store:
            for batch in store.batches():
                if batch.state != "ended":
                    store.destroy_batch(batch.id)
            for info in store.sessions():
                if info.state == "active":
                    store.session(info.id).end()
            store.delete([info.id for info in store.list()])
            self._settle(store)
            stats = store.stats()
            if stats.used_bytes or stats.objects or stats.pending or stats.dying or store.fsck():
                failures.append(f"all was deleted, and there is {stats}; fsck: {store.fsck()}")
            left = sorted(os.listdir(self._spill_directory))
            if left:
                failures.append(f"all was deleted, and the spill directory holds {left}")
            store.destroy()
        if os.path.exists(self._path):
            failures.append(f"the destroyed store left {os.listdir(self._path)}")
        return failures

    def _settle(self, store: Any) -> None:
        for _ in range(_TRIES):
            store.recover()
            if not list(store._conn.catalog.items(keys.DOOMED)):
                return

    def _settled_accounts(self, store: Any, living: int) -> list[str]:
        """What is left behind for good."""
        end = time.monotonic() + self._patience_s
        while (failures := self._accounts(store, living)) and time.monotonic() < end:
            time.sleep(0.02)
            store.recover()
        return failures

    def _accounts(self, store: Any, living: int) -> list[str]:
        stats = store.stats()
        failures = []
        lists = [store.list()]
        for info in store.sessions():
            if info.state == "active":
                with store.session(info.id) as session:
                    lists.append(session.list())
        listed = sum(len(one) for one in lists)
        nbytes = sum(-(-info.nbytes // 64) * 64 + 4096 for one in lists for info in one)
        if listed != stats.objects:
            failures.append(f"{stats.objects} objects are counted, {listed} are listed")
        if stats.used_bytes > nbytes:
            failures.append(f"{stats.used_bytes:,} bytes are used by objects of {nbytes:,} at most")
        left = {name: getattr(stats, name) for name in ("pending", "dying", "leases")}
        if any(left.values()):
            clients = store._conn.clients
            held = {serial: clients.holders(serial) for serial in clients.counts()}
            infos = [info for one in lists for info in one if info.refs]
            failures.append(f"left behind: {left}; pids and references by serial {held}: {infos}")
        if stats.clients > living + 1:
            failures.append(f"{stats.clients} clients, {living + 1} processes")
        return failures

    def _files(self, store: Any) -> list[str]:
        """The spill directory holds what the catalog knows; all client files are those of the living."""
        conn = store._conn
        spills = [decode_spill(raw) for _, raw in conn.catalog.items(keys.SPILL)]
        known = {file_name(conn, record.file) for record in spills if record.location}
        found = set(os.listdir(self._spill_directory))
        failures = []
        if known != found:
            failures.append(f"spilled files lost: {sorted(known - found)}, left: {sorted(found - known)}")
        dead = [info for info in conn.clients.infos() if not info.alive]
        unfinished = os.listdir(os.path.join(self._path, "new"))
        if dead or unfinished or conn.clients.foreign():
            failures.append(f"client files: dead {dead}, unfinished {unfinished}, {conn.clients.foreign()}")
        return failures

    def _protected(self, store: Any) -> list[str]:
        """What the ledgers promise is there and right, and what was deleted is not."""
        failures = []
        for name, expected in read_ledgers(self._ledgers).items():
            try:
                with _got(store, name) as obj:
                    check_object(obj, expected.heads)
                    self.checked += 1
                if name in self._removed or (expected.gone and not expected.must):
                    failures.append(f"{name} was deleted and is there")
            except Wrong as error:
                failures.append(f"protected: {error}")
            except ObjectNotFound:
                if expected.must and name not in self._removed:
                    failures.append(
                        f"the protected object {name} is lost: {expected.lines}{_history(store, name)}"
                    )
        return failures

    def _keep_session(self, store: Any) -> list[str]:
        with store.session(KEEP_SESSION, attach=True) as session:
            names = {str(info.name) for info in session.list()}
            failures = [f"session {KEEP_SESSION} lost {name}" for name in self._keeping - names]
            self._keeping = names
            failures += _problems(session, names)
            self.checked += len(names)
        return failures

    def _everything(self, store: Any) -> list[str]:
        infos = store.list()
        self.checked += len(infos)
        return _problems(store, [info.id for info in infos])


def _history(store: Any, name: str) -> str:
    """What the log of events still tells of a name, and what is there that once had it."""
    with store.subscribe(name, since=0) as subscription:
        events = list(iter(subscription.poll, None))
    ids = {event.id for event in events if event.id}
    return f"; events {events}; still there by id: {[one for one in ids if one in store]}"


def _got(store: Any, ref: Any) -> Any:
    """An object, though the storage it was spilled to fails now and then."""
    for _ in range(_TRIES):
        try:
            return store.get(ref)
        except SpillFailed:
            continue
    return store.get(ref)


def _problems(store: Any, refs: Any) -> list[str]:
    failures = []
    for ref in refs:
        try:
            with _got(store, ref) as obj:
                if obj.metadata is not None:
                    check_object(obj)
                elif blocks_problem(obj.value()):
                    failures.append(f"{obj.id}: {blocks_problem(obj.value())}")
        except ObjectNotFound:
            continue  # its batch is over by now
        except Wrong as error:
            failures.append(f"between rounds: {error}")
    return failures
