"""What can be wrong around a store, and how to put it right.

Each check is a pure function from values that somebody has read (machine.py; the store itself) to a
Finding, so that a test can show it any machine. A finding says what was seen, and, unless all is well,
the fix: something that the reader can type or ask an administrator for. Findings on the inside of a store
are in doctor_store.py.

Severities: ``ok``; ``note`` (works, and could work better); ``warning`` (will fail under some load);
``problem`` (fails now, or is damaged).
"""

from __future__ import annotations

from dataclasses import dataclass

from flightstore.lifecycle.machine import FileSystem, Machine

__all__ = [
    "NOTE",
    "OK",
    "PROBLEM",
    "WARNING",
    "Finding",
    "check_address_limit",
    "check_cgroup",
    "check_file_limit",
    "check_file_system",
    "check_free_space",
    "check_futex",
    "check_huge_pages",
    "check_machine",
    "check_membarrier",
    "check_open_files",
    "check_pid_namespace",
    "check_populate",
    "human_size",
    "worst",
]

OK = "ok"
NOTE = "note"
WARNING = "warning"
PROBLEM = "problem"
_ORDER = (OK, NOTE, WARNING, PROBLEM)

ARENA_FACTOR = 4
"""The arena file is this many times as long as the capacity; see the format description."""
_CLIENT_FILES = 256
"""Descriptors a comfortable client may need: its own files, the user's, and Arrow's."""

_GLOBAL = 1 << 0
_GLOBAL_EXPEDITED = 1 << 1
_REGISTER_GLOBAL_EXPEDITED = 1 << 2


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    """What was checked, in a word or two."""
    severity: str
    """``ok``, ``note``, ``warning`` or ``problem``."""
    message: str
    """What was seen."""
    fix: str = ""
    """What to do about it; empty when there is nothing to do."""


def worst(findings: list[Finding]) -> str:
    """The highest severity among `findings`; ``ok`` when there are none."""
    return max((finding.severity for finding in findings), key=_ORDER.index, default=OK)


def check_machine(
    machine: Machine, file_system: FileSystem, *, capacity_bytes: int, backed_bytes: int
) -> list[Finding]:
    """All checks of the surroundings of a store.

    Args:
        machine: The machine and this process.
        file_system: The file system the store lies on.
        capacity_bytes: The store's capacity; 0 when there is no store yet.
        backed_bytes: What of it is backed by memory now.
    """
    growth_bytes = max(0, capacity_bytes - backed_bytes)
    return [
        check_file_system(file_system),
        check_free_space(file_system, growth_bytes),
        check_cgroup(machine, growth_bytes),
        check_membarrier(machine),
        check_futex(machine),
        check_populate(machine),
        check_huge_pages(machine),
        check_address_limit(machine, capacity_bytes),
        check_file_limit(machine, capacity_bytes),
        check_open_files(machine),
    ]


def check_file_system(file_system: FileSystem) -> Finding:
    """Is the store in memory?"""
    name = "file system"
    if file_system.kind in ("tmpfs", "ramfs"):
        return Finding(name, OK, f"{file_system.path} is a {file_system.kind}")
    kind = file_system.kind or "file system of unknown kind"
    message = f"{file_system.path} is a {kind}, not memory: every page is written to a disk some time"
    return Finding(
        name, WARNING, message, "make the store under /dev/shm: set FLIGHTSTORE_DIR or use --store"
    )


def check_free_space(file_system: FileSystem, growth_bytes: int) -> Finding:
    """Can the store grow to its capacity?"""
    name = "free space"
    free, total = human_size(file_system.free_bytes), human_size(file_system.total_bytes)
    growth = human_size(growth_bytes)
    seen = f"{free} of {total} free on {file_system.path}"
    if file_system.free_bytes >= growth_bytes:
        return Finding(name, OK, f"{seen}; the store can still grow by {growth}")
    message = f"{seen}, but the store's capacity lets it grow by {growth}: puts will fail before that"
    wanted = file_system.total_bytes + growth_bytes - file_system.free_bytes
    mebibytes = -(-wanted // (1 << 20))
    fix = (
        f"as root: mount -o remount,size={mebibytes}m {file_system.path} (Docker: --shm-size={mebibytes}m), "
        "or make the store again with a smaller capacity"
    )
    return Finding(name, WARNING, message, fix)


def check_cgroup(machine: Machine, growth_bytes: int) -> Finding:
    """Will the memory control group kill us before the store is full?"""
    name = "memory cgroup"
    room = machine.cgroup_headroom_bytes
    if room is None:
        return Finding(name, OK, "no memory limit on this process's control group")
    seen = f"{human_size(room)} below the limit of {machine.cgroup_path}"
    if room >= growth_bytes:
        return Finding(name, OK, seen)
    return Finding(
        name,
        WARNING,
        f"{seen}, but the store's capacity lets it grow by {human_size(growth_bytes)}",
        f"raise the limit by {human_size(growth_bytes - room)} (Docker: --memory; systemd: MemoryMax=), "
        "or make the store again with a smaller capacity",
    )


def check_membarrier(machine: Machine) -> Finding:
    """Can a writer make sure that it sees every reader's lease?"""
    name = "membarrier"
    commands = machine.membarrier
    if commands is None:
        return Finding(name, NOTE, "not known for this architecture")
    expedited = _GLOBAL_EXPEDITED | _REGISTER_GLOBAL_EXPEDITED
    if commands & expedited == expedited:
        return Finding(name, OK, "expedited form available")
    if commands & _GLOBAL:
        message = "only the slow form is available: giving memory back takes some 10 ms longer"
        return Finding(name, NOTE, message, "use Linux 4.16 or newer")
    message = "not available: memory of deleted objects cannot be given back safely"
    fix = "use Linux 4.16 or newer, and allow membarrier(2) in the container's seccomp profile"
    return Finding(name, PROBLEM, message, fix)


def check_futex(machine: Machine) -> Finding:
    """Can waiters sleep?"""
    name = "futex"
    if machine.futex is None:
        return Finding(name, NOTE, "not known for this architecture")
    if machine.futex:
        return Finding(name, OK, "available")
    message = "refused: a waiting get notices a new object up to a second late"
    return Finding(name, WARNING, message, "allow futex(2) in the container's seccomp profile")


def check_populate(machine: Machine) -> Finding:
    """Can memory be warmed ahead of a copy?"""
    name = "populate"
    if machine.populate_write:
        return Finding(name, OK, "MADV_POPULATE_WRITE available")
    message = f"no MADV_POPULATE_WRITE in kernel {machine.kernel}: first puts into fresh memory are slower"
    return Finding(name, NOTE, message, "use Linux 5.14 or newer")


def check_huge_pages(machine: Machine) -> Finding:
    """Do huge pages get in the way of giving memory back?"""
    name = "huge pages"
    policy = machine.huge_shmem
    if policy is None:
        return Finding(name, OK, "no transparent huge pages for shared memory")
    if policy in ("always", "force"):
        return Finding(
            name,
            NOTE,
            f"shared memory uses huge pages always ({policy}): files may take up to 2 MiB more each",
            "echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled",
        )
    return Finding(name, OK, f"transparent huge pages for shared memory: {policy}")


def check_address_limit(machine: Machine, capacity_bytes: int) -> Finding:
    """Can the arena be mapped?"""
    name = "address space"
    limit = machine.address_limit_bytes
    needed = ARENA_FACTOR * capacity_bytes
    if limit is None:
        return Finding(name, OK, "no limit (ulimit -v)")
    if limit >= needed + (1 << 30):
        return Finding(
            name, OK, f"limited to {human_size(limit)}; the arena takes {human_size(needed)} of addresses"
        )
    addresses = f"{human_size(needed)} of addresses (not of memory)"
    message = f"limited to {human_size(limit)}, but mapping the arena takes {addresses}"
    return Finding(name, PROBLEM, message, "ulimit -v unlimited")


def check_file_limit(machine: Machine, capacity_bytes: int) -> Finding:
    """May this process make a file as long as the arena?"""
    name = "file size"
    limit = machine.file_limit_bytes
    needed = ARENA_FACTOR * capacity_bytes
    if limit is None:
        return Finding(name, OK, "no limit (ulimit -f)")
    if limit >= needed:
        return Finding(name, OK, f"limited to {human_size(limit)}; the arena is {human_size(needed)} long")
    message = f"files are limited to {human_size(limit)}, but the arena is {human_size(needed)} long (sparse)"
    return Finding(name, PROBLEM, message, "ulimit -f unlimited")


def check_open_files(machine: Machine) -> Finding:
    """Are there descriptors enough?"""
    name = "open files"
    limit = machine.open_files_limit
    if limit is None or limit >= _CLIENT_FILES:
        return Finding(name, OK, "no limit (ulimit -n)" if limit is None else f"limited to {limit}")
    message = f"limited to {limit}: connecting fails when they run out"
    return Finding(name, WARNING, message, "ulimit -n 1024")


def check_pid_namespace(store_namespace: int | None, own_namespace: int | None) -> Finding:
    """Do the store's clients and this process know each other's pids?"""
    name = "pid namespace"
    if store_namespace is None or own_namespace is None or store_namespace == own_namespace:
        return Finding(name, OK, "the store's own")
    message = f"the store belongs to pid namespace {store_namespace}, this process is in {own_namespace}"
    fix = "run both with one pid namespace (Docker: --pid=host or --pid=container:NAME)"
    return Finding(name, PROBLEM, message, fix)


def human_size(count: int) -> str:
    """A size for people."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
