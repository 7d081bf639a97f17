"""How much more memory this process's control group lets it touch.

A memory control group kills where a full /dev/shm merely fails, so whoever is about to back pages with
memory reads this first. Pages of shared memory are charged to the group of whoever touches them first.
Both versions of the interface are read, each at its mount point below ``root``:

- version 2 (a line ``0::/path`` in /proc/self/cgroup): memory.max, memory.current, memory.stat;
- version 1 (a line whose controllers include ``memory``): memory.limit_in_bytes, memory.usage_in_bytes,
  memory.stat.

A group's limit binds all groups below it, so every ancestor counts. Files that are missing or unreadable
count as "no limit": this is advice, never a reason to fail. Nothing else of flightstore is called here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["GroupMemory", "group_memories", "headroom_bytes"]

_UNLIMITED_BYTES = 1 << 60
"""Version 1 writes "no limit" as a number just below 2^63; no machine has a limit this large in earnest."""


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """Memory of one control group that has a limit."""

    path: str
    """Directory of the group."""
    limit_bytes: int
    """What the group may use."""
    used_bytes: int
    """What it uses, without ``reclaimable_bytes``."""
    reclaimable_bytes: int
    """Inactive page cache of disk files: dropped before anything is killed. Shared memory is never in it."""

    @property
    def headroom_bytes(self) -> int:
        """How much more the group can use; 0 when it is at its limit."""
        return max(0, self.limit_bytes - self.used_bytes)


def headroom_bytes(root: str = "/sys/fs/cgroup", proc: str = "/proc/self/cgroup") -> int | None:
    """Bytes this process may still touch before its control group, or an ancestor, is at its limit.

    Inactive page cache of disk files is not counted as used, because the kernel gives it up first. The
    value is a snapshot: others in the group may use what it promises.

    Args:
        root: Where control groups are mounted.
        proc: The process's list of control groups.

    Returns:
        The smallest headroom among the group and its ancestors; None when nothing limits it.
    """
    return min((group.headroom_bytes for group in group_memories(root, proc)), default=None)


def group_memories(root: str = "/sys/fs/cgroup", proc: str = "/proc/self/cgroup") -> list[GroupMemory]:
    """The groups with a memory limit that this process is in, innermost first; empty when there is none."""
    lines = (_read(Path(proc)) or "").splitlines()
    found: list[GroupMemory] = []
    for mount, path, limit_file, usage_file, stat_key in _hierarchies(Path(root), lines):
        for directory in _ancestors(mount, path):
            memory = _group(directory, limit_file, usage_file, stat_key)
            if memory is not None:
                found.append(memory)
    return found


def _hierarchies(root: Path, lines: list[str]) -> Iterator[tuple[Path, str, str, str, str]]:
    """(mount point, path of our group, names of limit, usage and statistic) of each hierarchy."""
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            # On hybrid systems version 2 is mounted beside the controllers of version 1.
            unified = root / "unified"
            mount = unified if unified.is_dir() else root
            yield mount, path, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            yield (
                root / "memory",
                path,
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )


def _ancestors(mount: Path, path: str) -> Iterator[Path]:
    """The group's directory and its parents up to the mount point, innermost first.

    Inside a container the path can be the host's, which does not exist here, or begin with ``..``; then the
    mount point itself is our group, or the nearest thing to it that we can see.
    """
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        parts = []
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _group(directory: Path, limit_file: str, usage_file: str, stat_key: str) -> GroupMemory | None:
    """The memory of one group; None when it has no limit or does not say."""
    limit = _number(_read(directory / limit_file))
    if limit is None or limit >= _UNLIMITED_BYTES:
        return None
    usage = _number(_read(directory / usage_file))
    if usage is None:
        return None
    cache = min(usage, _statistic(_read(directory / "memory.stat") or "", stat_key))
    return GroupMemory(str(directory), limit, usage - cache, cache)


def _statistic(text: str, key: str) -> int:
    """The value of one line ``key value`` of memory.stat; 0 when it is not there."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return _number(value) or 0
    return 0


def _number(text: str | None) -> int | None:
    """The number in a file of one number; None for "max", and for anything else that is not a number."""
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


def _read(path: Path) -> str | None:
    """The text of a small file; None when it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None
