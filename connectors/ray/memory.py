"""Where a value that Ray handed out lies: which file, and where in it. Reads /proc, and changes nothing.

Ray keeps objects in a file on a memory file system that it unlinked, and whose descriptor its raylet holds.
What ``ray.get`` returns refers to this process's mapping of it. So the addresses of a value's buffers lead,
by ``/proc/self/maps``, to device, inode and offset; and device and inode to the raylet's descriptor, which
any process of the same user can open as ``/proc/<raylet>/fd/<n>``.

`place_of` finds the place; `descriptor_of` the path. Everything else about a value (which of its
buffers can stay where they are, what has to be copied) is the store's business.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Place", "NotMappable", "buffers_of", "descriptor_of", "place_of", "start_of"]

_RAYLET = "raylet"
_IN_BAND = ("polars",)
"""Libraries whose pickles hold all bytes: making one would tell nothing, and take as much memory again."""


class NotMappable(Exception):
    """A value does not lie where other processes could map it; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Place:
    """A range of a file in memory that this process has mapped."""

    device: int
    inode: int
    offset: int
    """Where the range begins in the file, bytes."""
    length: int
    address: int
    """Where it begins in this process."""

    def is_at(self, other: Place) -> bool:
        """Whether both are the same bytes, wherever each process has them."""
        mine = (self.device, self.inode, self.offset, self.length)
        return mine == (other.device, other.inode, other.offset, other.length)


@dataclass(frozen=True, slots=True)
class _Mapping:
    """One line of ``/proc/self/maps``: a file that is mapped and shared."""

    start: int
    end: int
    offset: int
    device: int
    inode: int


class _Nothing:
    """A file that forgets what is written."""

    def write(self, data: Any) -> int:
        """Take it, keep nothing."""
        return len(data)


def buffers_of(value: Any) -> list[memoryview]:
    """The memory that a value refers to and that pickle would leave where it is.

    Each view keeps alive what it is of; the value itself need not live.
    """
    found: list[pickle.PickleBuffer] = []
    if type(value).__module__.partition(".")[0] in _IN_BAND:
        return []
    try:
        pickle.Pickler(_Nothing(), 5, buffer_callback=found.append).dump(value)
    except Exception:  # a type may raise what it likes; then it has nothing to lend
        return []
    views = []
    for buffer in found:
        try:
            views.append(buffer.raw())
        except BufferError:
            continue  # with gaps
    return [view for view in views if view.nbytes]


def place_of(buffers: list[memoryview]) -> Place:
    """The smallest range of one file that all those buffers lie in that lie in a file in memory.

    Raises:
        NotMappable: there is none.
    """
    mappings = list(_shared_mappings())
    in_memory = _memory_devices()
    found: dict[tuple[int, int], list[tuple[int, int, _Mapping]]] = {}
    reason = "the value lies in private memory of the process that got it: it is small, or Ray unpickles it"
    for view in buffers:
        start = _address(view)
        inside = next(
            (one for one in mappings if one.start <= start and start + view.nbytes <= one.end), None
        )
        if inside is None:
            continue
        if inside.device not in in_memory:
            reason = "Ray keeps the value outside of tmpfs: in a file on disk, when its memory was full"
            continue
        found.setdefault((inside.device, inside.inode), []).append((start, start + view.nbytes, inside))
    if not found:
        raise NotMappable(reason)
    spans = max(found.values(), key=lambda some: sum(end - start for start, end, _ in some))
    start = min(span[0] for span in spans)
    end = max(span[1] for span in spans)
    first = spans[0][2]
    if not first.start <= start <= end <= first.end:
        raise NotMappable("the value's buffers lie in several mappings")
    return Place(first.device, first.inode, first.offset + start - first.start, end - start, start)


def descriptor_of(place: Place) -> str:
    """The path by which any process of this user opens the file that a place is in.

    Raises:
        NotMappable: no raylet of this user has the file open.
    """
    denied = False
    for pid in _raylets():
        folder = f"/proc/{pid}/fd"
        try:
            for number in os.listdir(folder):
                path = f"{folder}/{number}"
                if _is_same(path, place):
                    return path
        except PermissionError:
            denied = True
        except OSError:
            continue  # it ended meanwhile
    whose = "belongs to another user" if denied else "was not found on this machine"
    raise NotMappable(f"the raylet that holds the value's memory {whose}")


def start_of(pid: int) -> int | None:
    """When a process started, in ticks since boot; None if there is none. With the pid it is unique."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    # A process whose first thread has ended says Z too, as long as others run: it counts its threads.
    return None if fields[0] in "ZX" and int(fields[17]) <= 1 else int(fields[19])


def _raylets() -> Iterator[int]:
    """The raylets on this machine, this process's own first."""
    others = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _name_of(entry) == _RAYLET:
            pid = int(entry)
            if pid == os.getppid():
                yield pid
            else:
                others.append(pid)
    yield from others


def _name_of(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def _is_same(path: str, place: Place) -> bool:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (place.device, place.inode)


def _shared_mappings() -> Iterator[_Mapping]:
    with open("/proc/self/maps") as file:
        for line in file:
            addresses, rights, offset, device, inode = line.split(maxsplit=5)[:5]
            if rights[3] != "s" or inode == "0":
                continue
            start, end = (int(text, 16) for text in addresses.split("-"))
            major, minor = (int(text, 16) for text in device.split(":"))
            yield _Mapping(start, end, int(offset, 16), os.makedev(major, minor), int(inode))


def _memory_devices() -> set[int]:
    """Devices of the file systems that live in memory, as this process has them mounted."""
    found = set()
    with open("/proc/self/mountinfo") as file:
        for line in file:
            mount, _, kind = line.partition(" - ")
            if kind.split()[0] == "tmpfs":
                major, minor = mount.split()[2].split(":")
                found.add(os.makedev(int(major), int(minor)))
    return found


def _address(view: memoryview) -> int:
    return int(np.frombuffer(view, np.uint8).ctypes.data)
