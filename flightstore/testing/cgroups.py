"""A memory limit for some processes of a test: a cgroup of version 1 or 2, made for it and removed after it.

Lives here: `memory_cgroup`, and `FaultUnavailable`, the error of every tool that lacks a privilege. Calls
nothing else of flightstore.

Invariants: a group is made only where that is ours to do: in the group named by FLIGHTSTORE_TEST_CGROUP, or
in our own when it is the top of the hierarchy that we see (as in a container). Other groups belong to whoever
manages them (systemd, a container engine, a job runner), which expects to be their only writer; and a group
elsewhere would let a process out of its own limits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flightstore.testing.events import wait_until

__all__ = ["FaultUnavailable", "MemoryGroup", "memory_cgroup"]

PARENT_VARIABLE = "FLIGHTSTORE_TEST_CGROUP"


class FaultUnavailable(RuntimeError):
    """This fault cannot be made here. `component` is what is missing: mount, unshare, cgroup."""

    def __init__(self, component: str, reason: str) -> None:
        super().__init__(f"{component}: {reason}")
        self.component = component
        self._reason = reason

    def __reduce__(self) -> tuple[type[FaultUnavailable], tuple[str, str]]:
        return FaultUnavailable, (self.component, self._reason)


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A cgroup with a memory limit."""

    path: Path
    """Its directory."""
    version: int
    """1 or 2."""
    limit_bytes: int
    """Its limit."""

    def add(self, pid: int = 0) -> None:
        """Move a process into it (0: this one, as the first thing in a child). Its children follow."""
        (self.path / "cgroup.procs").write_text(str(pid or os.getpid()))

    @property
    def members(self) -> list[int]:
        """The processes in it."""
        return [int(pid) for pid in (self.path / "cgroup.procs").read_text().split()]

    @property
    def usage_bytes(self) -> int:
        """Memory charged to it now, shared memory that its members touched first included."""
        return int((self.path / LIMIT_FILES[self.version][1]).read_text())

    def remove(self) -> None:
        """Kill who is left in it and remove it."""
        for pid in self.members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.members, what=f"{self.path} is empty")
        self.path.rmdir()


LIMIT_FILES = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}
"""Version -> (limit, usage)."""


@contextlib.contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[MemoryGroup]:
    """A cgroup that limits the memory of the processes put into it; the kernel kills one when it is exceeded.

    Raises:
        FaultUnavailable: no group may be made here; says why.
    """
    parent, version = group_parent(
        Path("/proc/self/cgroup").read_text(), Path("/proc/self/mounts").read_text()
    )
    try:
        if version == 2:
            _pass_on_memory(parent)
        path = Path(tempfile.mkdtemp(prefix="flightstore-", dir=parent))
    except OSError as error:
        raise FaultUnavailable("cgroup", f"cannot make a group in {parent}: {error.strerror}") from error
    group = MemoryGroup(path, version, limit_bytes)
    try:
        (path / LIMIT_FILES[version][0]).write_text(str(limit_bytes))
        yield group
    finally:
        group.remove()


def _pass_on_memory(parent: Path) -> None:
    """Version 2: a group must name the controllers that its children get."""
    control = parent / "cgroup.subtree_control"
    if "memory" not in control.read_text().split():
        control.write_text("+memory")


def group_parent(membership: str, mounts: str) -> tuple[Path, int]:
    """The directory in which to make groups, and its version.

    Args:
        membership, mounts: As for `own_memory_group`.

    Raises:
        FaultUnavailable: there is none that is ours.
    """
    named = os.environ.get(PARENT_VARIABLE)
    if named:
        return Path(named), version_of(Path(named))
    found = own_memory_group(membership, mounts)
    if found is None:
        raise FaultUnavailable("cgroup", "no memory controller is mounted")
    mount, group, version = found
    if group != "/":
        raise FaultUnavailable(
            "cgroup", f"our group {group} is managed by others; name a delegated one in {PARENT_VARIABLE}"
        )
    return mount, version


def version_of(directory: Path) -> int:
    """Version of the hierarchy that a group's directory belongs to.

    Raises:
        FaultUnavailable: it has no memory controller.
    """
    if (directory / "memory.limit_in_bytes").exists():
        return 1
    controllers = directory / "cgroup.controllers"
    if controllers.exists() and "memory" in controllers.read_text().split():
        return 2
    raise FaultUnavailable("cgroup", f"{directory} is not a group with a memory controller")


def own_memory_group(membership: str, mounts: str) -> tuple[Path, str, int] | None:
    """(mount point, our group, version) of the hierarchy with the memory controller.

    Args:
        membership: Text of /proc/self/cgroup: ``hierarchy:controllers:group`` lines; version 2 is
        ``0::group``.
        mounts: Text of /proc/self/mounts.
    """
    groups = dict(line.split(":", 2)[1:] for line in membership.splitlines())
    for line in mounts.splitlines():
        _, where, kind, options = line.split()[:4]
        if kind == "cgroup" and "memory" in options.split(","):
            names = next((names for names in groups if "memory" in names.split(",")), None)
            if names is not None:
                return Path(where), groups[names], 1
    for line in mounts.splitlines():
        _, where, kind = line.split()[:3]
        controllers = Path(where) / "cgroup.controllers"
        usable = kind == "cgroup2" and "" in groups and controllers.exists()
        if usable and "memory" in controllers.read_text().split():
            return Path(where), groups[""], 2
    return None
