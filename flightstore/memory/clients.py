"""All clients of a store, seen from one of them: who lives, who is dead, who holds what.

A client is dead when its file's lock can be taken, or when the process named in its header is gone (a process
forked by C code, which runs no hooks of ours, keeps the lock alive). A dead client's references count for
nobody who asks; its entries still keep memory from being freed until recovery has removed its file.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
from collections import Counter
from dataclasses import dataclass

from flightstore.errors import StoreClosed
from flightstore.memory import kernel
from flightstore.memory.leases import CLIENT_HEADER, CLIENT_MAGIC, FILE_BYTES, HEADER_WORDS, HIGH_WATER_WORD
from flightstore.memory.watches import Watch, watch

__all__ = ["ClientInfo", "Clients"]

_MOST_WATCHES = 64
_CLIENT_NAME = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """One client file."""

    name: str
    """Name of the file."""
    client: int
    """Client id."""
    pid: int
    """Process, 0 while a forked child has not signed yet."""
    leases: int
    """References held."""
    alive: bool
    """Whether the process lives."""


class Clients:
    """The directory of client files of one store."""

    def __init__(self, store_path: str) -> None:
        self.directory = os.path.join(store_path, "clients")
        self.nursery = os.path.join(store_path, "new")
        self._maps: dict[str, memoryview] = {}
        self._watches: dict[str, Watch] = {}

    def names(self) -> list[str]:
        """The client files there are, no others; forgets mappings of those that are gone.

        Raises:
            StoreClosed: the store was destroyed.
        """
        try:
            names = [name for name in os.listdir(self.directory) if client_id(name)]
        except FileNotFoundError as error:
            raise StoreClosed(
                f"the store of {self.directory} was destroyed", hint="connect again to make a new one"
            ) from error
        if len(self._maps) > len(names):
            for gone in self._maps.keys() - set(names):
                self._maps.pop(gone, None)
        return names

    def foreign(self) -> list[str]:
        """Files in the directory that are not a client's. Nothing ever touches them."""
        return [name for name in os.listdir(self.directory) if not client_id(name)]

    def _words(self, name: str) -> memoryview | None:
        words = self._maps.get(name)
        if words is None:
            words = _map_file(os.path.join(self.directory, name))
            if words is not None:
                self._maps[name] = words
        return words

    def entries(self, name: str) -> list[int]:
        """What a client's entries hold, zeros included; empty when the file is gone."""
        words = self._words(name)
        if words is None:
            return []
        return words[HEADER_WORDS : HEADER_WORDS + words[HIGH_WATER_WORD]].tolist()

    def held(self) -> set[int]:
        """Serials of all objects that any client holds.

        Exact for deletes committed before a membarrier that came before this call; requires the writers'
        lock.
        """
        serials: set[int] = set()
        for name in self.names():
            serials.update(self.entries(name))
        serials.discard(0)
        return serials

    def counts(self) -> Counter[int]:
        """References per serial, over all clients that live."""
        counts: Counter[int] = Counter()
        for name in self.names():
            held = Counter(self.entries(name))
            del held[0]
            if held and self.alive(name):
                counts.update(held)
        return counts

    def held_by_living(self, serials: set[int]) -> set[int]:
        """Which of these objects a client that lives holds. Exactness and requirement as for `held`.

        A holder found dead may have forked a child, whose file appeared after the files were listed: list
        them again then, until there is no file that was not looked at.
        """
        found: set[int] = set()
        seen: set[str] = set()
        again = True
        while again:
            again = False
            for name in set(self.names()) - seen:
                seen.add(name)
                held = serials.intersection(self.entries(name))
                if held and self.alive(name):
                    found |= held
                elif held:
                    again = True
        return found

    def holders(self, serial: int) -> list[tuple[int, int]]:
        """(pid, references) of every living client that holds the object."""
        found = ((name, self.entries(name).count(serial)) for name in self.names())
        return [(self._pid(name), count) for name, count in found if count and self.alive(name)]

    def _pid(self, name: str) -> int:
        words = self._words(name)
        return CLIENT_HEADER.unpack_from(words)[2] if words is not None else 0

    def dead(self) -> list[str]:
        """Names of the client files whose process is gone."""
        return [name for name in self.names() if not self.alive(name)]

    def alive(self, name: str) -> bool:
        """Whether the client's process lives."""
        return _alive(os.path.join(self.directory, name))

    def lives(self, client: int) -> bool:
        """Whether the client of that id is connected, and its process lives: `alive`, asked often."""
        name = f"{client:016x}"
        known = self._watches.get(name)
        if known is not None:
            if known.lives():
                return True
            self._watches.pop(name, None)
        if not self.alive(name):
            return False
        self._forget_dead_watches()
        if len(self._watches) < _MOST_WATCHES:
            made = watch(os.path.join(self.directory, name))
            if made is not None:
                self._watches[name] = made
        return True

    def _forget_dead_watches(self) -> None:
        """Close what is open of clients that are gone and that nobody may ever ask about again: it takes up
        descriptors, the memory of their files, and the places of those who live.
        """
        for name, known in list(self._watches.items()):
            if not known.lives():
                self._watches.pop(name, None)

    def infos(self) -> list[ClientInfo]:
        """All clients."""
        return [self._info(name) for name in self.names()]

    def _info(self, name: str) -> ClientInfo:
        leases = sum(1 for entry in self.entries(name) if entry)
        return ClientInfo(name, client_id(name), self._pid(name), leases, self.alive(name))

    def remove(self, name: str) -> None:
        """Remove a dead client's file. Requires the writers' lock."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.directory, name))
        self._maps.pop(name, None)

    def remove_unfinished(self) -> int:
        """Remove files that dead processes left half-made; returns how many."""
        removed = 0
        for name in os.listdir(self.nursery):
            path = os.path.join(self.nursery, name)
            if client_id(name) and not _alive(path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                    removed += 1
        return removed

    def reset_after_fork(self) -> None:
        """In a forked child: forget the parent's own mapping cache, which other threads may have been
        changing.
        """
        self._maps = {}
        self._watches = {}


def client_id(name: str) -> int:
    """The client id that a file name stands for; 0 for a foreign file."""
    return int(name, 16) if _CLIENT_NAME.fullmatch(name) else 0


def _map_file(path: str) -> memoryview | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if os.fstat(descriptor).st_size < FILE_BYTES:
            return None
        return memoryview(mmap.mmap(descriptor, FILE_BYTES, prot=mmap.PROT_READ)).cast("Q")
    finally:
        os.close(descriptor)


def _alive(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _process_lives(descriptor)
    else:
        return False
    finally:
        os.close(descriptor)


def _process_lives(descriptor: int) -> bool:
    """Whether the process named in a locked file lives; one that has not signed yet counts as alive."""
    header = os.pread(descriptor, CLIENT_HEADER.size, 0)
    if len(header) < CLIENT_HEADER.size:
        return True
    magic, _, pid, start, _, _ = CLIENT_HEADER.unpack(header)
    if magic != CLIENT_MAGIC or not pid:
        return True
    return kernel.lives_since(pid, start)
