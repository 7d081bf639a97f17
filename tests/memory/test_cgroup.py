"""Control-group headroom, read from trees of files laid out like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from flightstore.memory.cgroup import group_memories, headroom_bytes

GIB = 1 << 30


def write(directory: Path, **files: object) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (directory / name.replace("__", ".")).write_text(f"{value}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return tmp_path / "proc-self-cgroup"


def headroom(root: Path, proc: Path) -> int | None:
    return headroom_bytes(str(root), str(proc))


def test_version_2_takes_the_tightest_ancestor(tmp_path: Path, proc: Path) -> None:
    proc.write_text("0::/pod/container\n")
    write(tmp_path / "pod", memory__max=8 * GIB, memory__current=7 * GIB)
    write(tmp_path / "pod/container", memory__max=4 * GIB, memory__current=GIB)
    assert headroom(tmp_path, proc) == GIB
    assert [group.headroom_bytes for group in group_memories(str(tmp_path), str(proc))] == [3 * GIB, GIB]


def test_version_2_without_limit_is_none(tmp_path: Path, proc: Path) -> None:
    proc.write_text("0::/user.slice\n")
    write(tmp_path / "user.slice", memory__max="max", memory__current=GIB)
    assert headroom(tmp_path, proc) is None


def test_inactive_page_cache_counts_as_room(tmp_path: Path, proc: Path) -> None:
    proc.write_text("0::/job\n")
    stat = f"anon 5\ninactive_file {GIB}\nactive_file 7"
    write(tmp_path / "job", memory__max=2 * GIB, memory__current=2 * GIB, memory__stat=stat)
    assert headroom(tmp_path, proc) == GIB


def test_over_the_limit_is_zero_not_negative(tmp_path: Path, proc: Path) -> None:
    proc.write_text("0::/job\n")
    write(tmp_path / "job", memory__max=GIB, memory__current=2 * GIB)
    assert headroom(tmp_path, proc) == 0


def test_version_1(tmp_path: Path, proc: Path) -> None:
    proc.write_text("5:cpu,cpuacct:/x\n4:memory:/docker/abc\n")
    unlimited = 9223372036854771712
    write(tmp_path / "memory", memory__limit_in_bytes=unlimited, memory__usage_in_bytes=9 * GIB)
    write(
        tmp_path / "memory/docker/abc",
        memory__limit_in_bytes=3 * GIB,
        memory__usage_in_bytes=2 * GIB,
        memory__stat=f"inactive_file 1\ntotal_inactive_file {GIB // 2}",
    )
    assert headroom(tmp_path, proc) == GIB + GIB // 2


def test_a_container_that_sees_its_own_group_as_the_mount_point(tmp_path: Path, proc: Path) -> None:
    proc.write_text("4:memory:/docker/not-visible-here\n")
    write(tmp_path / "memory", memory__limit_in_bytes=2 * GIB, memory__usage_in_bytes=GIB)
    assert headroom(tmp_path, proc) == GIB


def test_a_path_outside_the_namespace(tmp_path: Path, proc: Path) -> None:
    proc.write_text("0::/../other\n")
    write(tmp_path, memory__max=2 * GIB, memory__current=GIB)
    assert headroom(tmp_path, proc) == GIB


def test_hybrid_reads_both_hierarchies(tmp_path: Path, proc: Path) -> None:
    proc.write_text("4:memory:/a\n0::/b\n")
    write(tmp_path / "memory/a", memory__limit_in_bytes=2 * GIB, memory__usage_in_bytes=0)
    write(tmp_path / "unified/b", memory__max=GIB, memory__current=0)
    assert headroom(tmp_path, proc) == GIB


@pytest.mark.parametrize("text", ["", "nonsense\n", "0::/gone\n", "x:y\n"])
def test_what_cannot_be_read_limits_nothing(tmp_path: Path, proc: Path, text: str) -> None:
    proc.write_text(text)
    assert headroom(tmp_path, proc) is None
    assert headroom(tmp_path, tmp_path / "absent") is None


def test_unreadable_numbers_limit_nothing(tmp_path: Path, proc: Path) -> None:
    proc.write_text("0::/job\n")
    write(tmp_path / "job", memory__max="12 apples", memory__current=1)
    assert headroom(tmp_path, proc) is None


def test_this_machine_answers() -> None:
    room = headroom_bytes()
    assert room is None or room >= 0
