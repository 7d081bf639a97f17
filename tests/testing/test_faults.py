"""The fault tools make the faults they promise, and put everything back."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path

import pytest

from flightstore.testing.cgroups import group_parent, own_memory_group
from flightstore.testing.faults import (
    ChildDied,
    FaultUnavailable,
    Gate,
    child,
    fill_file_system,
    memory_cgroup,
    other_pid_namespace,
    small_tmpfs,
    start,
    stopped,
)

pytestmark = pytest.mark.req("FAIL-5")
PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.mark.needs("mount")
def test_a_small_tmpfs_has_its_size_and_goes_away() -> None:
    with small_tmpfs(8 * PAGE) as path:
        (path / "fits").write_bytes(bytes(8 * PAGE))
        with pytest.raises(OSError) as full:  # noqa: PT011 - the number is checked
            (path / "too much").write_bytes(b"x")
        assert full.value.errno == errno.ENOSPC
    assert not path.exists()
    assert str(path) not in Path("/proc/self/mounts").read_text()


@pytest.mark.needs("mount")
def test_a_small_tmpfs_can_run_out_of_inodes() -> None:
    with small_tmpfs(64 * PAGE, inodes=3) as path:
        (path / "one").touch()
        (path / "two").touch()
        with pytest.raises(OSError) as full:  # noqa: PT011 - the number is checked
            (path / "three").touch()
        assert full.value.errno == errno.ENOSPC


@pytest.mark.needs("mount")
def test_a_small_tmpfs_goes_away_while_in_use() -> None:
    with small_tmpfs(8 * PAGE) as path:
        file = (path / "held").open("w+b")
        file.write(b"still here")
        file.flush()
    assert not path.exists()
    with file:
        file.seek(0)
        assert file.read() == b"still here"


@pytest.mark.needs("mount")
def test_mounting_without_the_right_is_a_clear_error() -> None:
    def without_root() -> None:
        os.setresuid(65534, 65534, 65534)
        with small_tmpfs(PAGE):
            pass

    with pytest.raises(FaultUnavailable, match=r"mount: .*needs root"):
        child(without_root)


@pytest.mark.needs("mount")
def test_filling_takes_the_last_block_and_gives_back() -> None:
    with small_tmpfs(101 * PAGE) as path:
        (path / "mine").write_bytes(b"x")
        with fill_file_system(path) as filler:
            assert filler.nbytes == 100 * PAGE
            with pytest.raises(OSError, match="No space left"):
                (path / "more").write_bytes(b"x")
            filler.release(2 * PAGE)
            (path / "more").write_bytes(bytes(2 * PAGE))
            with pytest.raises(OSError, match="No space left"), (path / "more").open("ab") as file:
                file.write(b"x")
        assert sorted(entry.name for entry in path.iterdir()) == ["mine", "more"]
        with fill_file_system(path, leave_bytes=PAGE):
            (path / "last").write_bytes(bytes(PAGE))
            with pytest.raises(OSError, match="No space left"):
                (path / "beyond").write_bytes(b"x")


def test_a_large_file_system_is_never_filled(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="more than most_bytes=4,096"):
        with fill_file_system(tmp_path, most_bytes=4096):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_process_does_nothing_until_the_block_is_left() -> None:
    with Gate() as ready, Gate() as go, Gate() as done:

        def work() -> int:
            threading.Thread(target=done.wait).start()
            ready.open()
            go.wait()
            done.open()
            return 7

        with start(work) as process:
            ready.wait()
            with stopped(process.pid):
                tasks = list(Path(f"/proc/{process.pid}/task").iterdir())
                assert len(tasks) >= 2  # libraries that are loaded may have threads of their own
                assert all(b") T " in (task / "stat").read_bytes() for task in tasks)
                go.open()
                with pytest.raises(TimeoutError):
                    done.wait(0.05)
            done.wait()
            assert process.result() == 7


def test_stopping_what_has_ended_is_an_error() -> None:
    with start(int) as process:
        process.result()
    with pytest.raises(ProcessLookupError):
        with stopped(process.pid):
            pass


@pytest.mark.needs("unshare")
def test_another_pid_namespace_counts_from_one() -> None:
    program = "import os; print(os.getpid(), os.readlink('/proc/self'), os.readlink('/proc/self/ns/pid'))"
    done = other_pid_namespace([sys.executable, "-c", program])
    assert done.returncode == 0, done.stderr
    pid, link, namespace = done.stdout.split()
    assert (pid, link) == ("1", "1")
    assert namespace != os.readlink("/proc/self/ns/pid")


@pytest.mark.needs("cgroup")
def test_a_memory_group_limits_its_members_only() -> None:
    with memory_cgroup(64 << 20) as group:

        def join_and_use(nbytes: int) -> int:
            group.add()
            memory = bytearray(nbytes)
            memory[::PAGE] = b"x" * len(memory[::PAGE])
            return group.usage_bytes

        assert 8 << 20 <= child(join_and_use, 8 << 20) <= 64 << 20
        with pytest.raises(ChildDied, match="SIGKILL"):
            child(join_and_use, 256 << 20)
    assert not group.path.exists()


def test_a_group_managed_by_others_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLIGHTSTORE_TEST_CGROUP", raising=False)
    membership, mounts = "4:memory:/jobs/7\n", "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
    with pytest.raises(FaultUnavailable, match="cgroup: our group /jobs/7 is managed by others"):
        group_parent(membership, mounts)
    with pytest.raises(FaultUnavailable, match="cgroup: no memory controller"):
        group_parent("", mounts)
    assert group_parent("4:memory:/\n", mounts) == (Path("/sys/fs/cgroup/memory"), 1)


def test_our_group_is_read_from_what_the_kernel_says(tmp_path: Path) -> None:
    first = own_memory_group(
        "4:memory:/jobs/7\n1:name=systemd:/\n0::/\n",
        "cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n",
    )
    assert first == (Path("/sys/fs/cgroup/memory"), "/jobs/7", 1)
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    second = own_memory_group("0::/user.slice\n", f"cgroup2 {tmp_path} cgroup2 rw 0 0\n")
    assert second == (tmp_path, "/user.slice", 2)
    (tmp_path / "cgroup.controllers").write_text("cpu pids\n")
    assert own_memory_group("0::/\n", f"cgroup2 {tmp_path} cgroup2 rw 0 0\n") is None
