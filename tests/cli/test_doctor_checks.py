"""doctor's judgement of machines we do not have, and its readers on the one we do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flightstore.lifecycle import doctor, machine
from flightstore.lifecycle.machine import FileSystem, Machine

GIB = 1 << 30

GOOD = Machine(
    kernel="6.1.0",
    membarrier=0b111,
    populate_write=True,
    futex=True,
    huge_shmem="never",
    cgroup_headroom_bytes=None,
    cgroup_path="",
    address_limit_bytes=None,
    file_limit_bytes=None,
    open_files_limit=1024,
    pid_namespace=1,
)
MEMORY = FileSystem(path="/dev/shm", kind="tmpfs", total_bytes=16 * GIB, free_bytes=12 * GIB)


def judge(changed: Machine = GOOD, file_system: FileSystem = MEMORY) -> dict[str, doctor.Finding]:
    found = doctor.check_machine(changed, file_system, capacity_bytes=8 * GIB, backed_bytes=2 * GIB)
    return {finding.check: finding for finding in found}


def test_a_good_machine_has_nothing_to_fix() -> None:
    found = judge().values()
    assert doctor.worst(list(found)) == doctor.OK
    assert [finding.fix for finding in found] == [""] * len(found)


@pytest.mark.parametrize(
    ("check", "severity", "changes", "in_message", "in_fix"),
    [
        ("membarrier", "note", {"membarrier": 0b001}, "slow form", "4.16"),
        ("membarrier", "problem", {"membarrier": 0}, "not available", "seccomp"),
        ("membarrier", "note", {"membarrier": None}, "not known", ""),
        ("futex", "warning", {"futex": False}, "refused", "seccomp"),
        ("populate", "note", {"populate_write": False, "kernel": "5.10"}, "5.10", "5.14"),
        ("huge pages", "note", {"huge_shmem": "always"}, "always", "echo advise"),
        ("memory cgroup", "warning", {"cgroup_headroom_bytes": GIB, "cgroup_path": "/g"}, "/g", "5.0 GiB"),
        ("address space", "problem", {"address_limit_bytes": 16 * GIB}, "32.0 GiB", "ulimit -v"),
        ("file size", "problem", {"file_limit_bytes": GIB}, "32.0 GiB", "ulimit -f"),
        ("open files", "warning", {"open_files_limit": 64}, "64", "ulimit -n"),
    ],
)
def test_what_is_wrong_is_named_with_its_fix(
    check: str, severity: str, changes: dict[str, object], in_message: str, in_fix: str
) -> None:
    found = judge(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert (found[check].severity, in_message in found[check].message) == (severity, True), found[check]
    assert in_fix in found[check].fix
    others = [finding for finding in found.values() if finding.check != check]
    assert doctor.worst(others) == doctor.OK


@pytest.mark.parametrize(
    "changes",
    [
        {"cgroup_headroom_bytes": 6 * GIB, "cgroup_path": "/g"},
        {"address_limit_bytes": 64 * GIB},
        {"file_limit_bytes": 32 * GIB},
        {"huge_shmem": None},
        {"open_files_limit": None},
    ],
)
def test_a_limit_that_leaves_room_is_fine(changes: dict[str, object]) -> None:
    found = judge(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert doctor.worst(list(found.values())) == doctor.OK


def test_a_store_on_a_disk_is_told() -> None:
    found = judge(file_system=replace(MEMORY, path="/", kind="ext4"))["file system"]
    assert (found.severity, "ext4" in found.message, "/dev/shm" in found.fix) == ("warning", True, True)


def test_too_little_free_space_names_the_size_to_mount_with() -> None:
    found = judge(file_system=replace(MEMORY, free_bytes=GIB))["free space"]
    assert found.severity == "warning"
    # 16 GiB hold 15 of others and ours; growing by 6 takes 5 more than is free.
    assert f"size={21 * 1024}m /dev/shm" in found.fix


def test_pid_namespaces() -> None:
    assert doctor.check_pid_namespace(5, 5).severity == "ok"
    other = doctor.check_pid_namespace(5, 6)
    assert (other.severity, "--pid" in other.fix) == ("problem", True)


def test_this_machine_can_be_read() -> None:
    seen = machine.read_machine()
    assert seen.kernel
    assert seen.pid_namespace is not None
    assert seen.futex in (True, False, None)
    assert seen.membarrier is None or seen.membarrier >= 0


def test_mounts_are_parsed_and_the_innermost_one_found(tmp_path: Path) -> None:
    text = (
        "proc /proc proc rw 0 0\n/dev/vda / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\n"
        "tmpfs /mnt/two\\040words tmpfs rw 0 0\nbroken\n"
    )
    mounts = machine.parse_mounts(text)
    find: Callable[[str], str | None] = lambda path: (  # noqa: E731
        found.path if (found := machine.find_mount(mounts, path)) else None
    )
    assert find("/dev/shm/store") == "/dev/shm"
    assert find("/dev/shmoo") == "/"
    assert find("/mnt/two words/x") == "/mnt/two words"
    assert machine.find_mount([], "/x") is None
    seen = machine.read_file_system(str(tmp_path / "not" / "there"), text)
    assert (seen.kind, seen.free_bytes > 0) == ("ext4", True)


@pytest.mark.parametrize(
    ("text", "option"),
    [("always within_size [advise] never", "advise"), ("[never]\n", "never"), ("", None), (None, None)],
)
def test_selected_option(text: str | None, option: str | None) -> None:
    assert machine.selected_option(text) == option
