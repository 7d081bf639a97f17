"""connect, close, destroy: where stores are, who makes them, and what is left when they go."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

import flightstore as fs
from flightstore.config import parse_bytes
from flightstore.lifecycle import layout
from flightstore.testing.children import child, start
from flightstore.testing.events import Barrier, Gate, wait_for_file


def run_python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter with these environment variables; its output."""
    known = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=known | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.strip()


# --- connecting ---


@pytest.mark.req("API-1")
def test_a_store_is_made_once_and_found_again(store_dir: str) -> None:
    with fs.connect(store_dir, capacity="1MiB") as first:
        first.put(b"abc", "a")
    with fs.connect(store_dir) as again, fs.connect(Path(store_dir)) as third:
        assert (again.capacity_bytes, again.path) == (1 << 20, store_dir)
        assert third.get("a").value() == b"abc"
    with fs.connect(store_dir, capacity=1 << 20, create=False) as same:
        assert "a" in same


@pytest.mark.req("API-1")
def test_a_relative_path_and_a_link_lead_to_the_same_store(store: fs.Store, tmp_path: Path) -> None:
    store.put(b"abc", "a")
    link = tmp_path / "link"
    link.symlink_to(store.path)
    for path in (link, os.path.relpath(store.path)):
        with fs.connect(path) as other:
            assert other.path == store.path
            assert "a" in other


def test_another_capacity_is_refused(store: fs.Store) -> None:
    with pytest.raises(fs.InvalidArgument, match="capacity of 16,777,216 bytes, not 8,388,608"):
        fs.connect(store.path, capacity="8MiB")
    assert store.stats().clients == 1


def test_no_store_is_made_unless_wanted(store_dir: str) -> None:
    with pytest.raises(fs.NotAStore, match="there is no store") as failure:
        fs.connect(store_dir, create=False)
    assert isinstance(failure.value, FileNotFoundError)
    assert not os.path.exists(store_dir)


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(fs.NotAStore, match=r"letter\.txt"):
        fs.connect(tmp_path)
    with pytest.raises(fs.NotAStore):
        fs.connect(tmp_path / "letter.txt")
    assert [one.name for one in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("capacity", [0, -1, 1000, 1 << 50, "nonsense", "1XiB", "", 1.5, True])
def test_impossible_capacities(store_dir: str, capacity: object) -> None:
    with pytest.raises(fs.InvalidArgument):
        fs.connect(store_dir, capacity=capacity)  # type: ignore[arg-type]
    assert not os.path.exists(f"{store_dir}/control")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (123, 123),
        ("123", 123),
        ("8GiB", 8 << 30),
        ("500MB", 500_000_000),
        ("1.5g", 1_500_000_000),
        (" 64 kib ", 64 << 10),
        ("2TiB", 2 << 40),
        ("10 B", 10),
    ],
)
def test_sizes_as_text(text: int | str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "1 2", "-1", "1e3", "1QB", "i", "5i", True, None, 1.0])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(fs.InvalidArgument, match="not a size"):
        parse_bytes(text)  # type: ignore[arg-type]


def test_the_default_store_is_the_users(store_dir: str) -> None:
    code = "import flightstore as fs; s = fs.connect(); print(s.path, s.capacity_bytes); s.put(b'', 'a')"
    said = run_python(code, FLIGHTSTORE_DIR=store_dir, FLIGHTSTORE_CAPACITY="3MiB")
    assert said == f"{store_dir} {3 << 20}"
    with fs.connect(store_dir) as store:
        assert "a" in store
    assert os.stat(store_dir).st_mode & 0o777 == 0o700
    code = "from flightstore.config import default_directory; print(default_directory())"
    assert run_python(code) == f"/dev/shm/flightstore-{os.getuid()}"


def test_a_bad_default_capacity_is_refused(store_dir: str) -> None:
    code = "import flightstore as fs\ntry: fs.connect()\nexcept fs.InvalidArgument as error: print(error)"
    assert "'lots'" in run_python(code, FLIGHTSTORE_DIR=store_dir, FLIGHTSTORE_CAPACITY="lots")


def test_files_are_for_the_user_only(store: fs.Store) -> None:
    store.put(b"")
    for directory, _, files in os.walk(store.path):
        assert os.stat(directory).st_mode & 0o077 == 0, directory
        for name in files:
            assert os.stat(os.path.join(directory, name)).st_mode & 0o077 == 0, name


def make_and_put(store_dir: str, barrier: Barrier, number: int) -> bytes:
    barrier.wait()
    with fs.connect(store_dir, capacity="1MiB") as store:
        store.put(str(number).encode(), f"from-{number}")
        return bytes(store.get(f"from-{number}").value())


def test_eight_processes_make_one_store(store_dir: str) -> None:
    barrier = Barrier(8)
    makers = [start(make_and_put, store_dir, barrier, number) for number in range(8)]
    assert [maker.result() for maker in makers] == [str(number).encode() for number in range(8)]
    with fs.connect(store_dir) as store:
        assert len(store.list()) == 8
        store.recover()
        assert store.fsck() == []


def test_processes_that_make_and_destroy_one_store(store_dir: str) -> None:
    """Whoever connects gets a whole store, or is told that it was destroyed at that moment. Who tries on gets
    there.
    """

    def come_and_go(barrier: Barrier) -> int:
        barrier.wait()
        whole = 0
        while whole < 10:
            try:
                store = fs.connect(store_dir, capacity="1MiB")
                store.put(b"abc", "a")
                whole += 1
                store.destroy()
            except (fs.StoreClosed, fs.NotAStore):
                continue
        return whole

    barrier = Barrier(3)
    with (
        start(come_and_go, barrier) as one,
        start(come_and_go, barrier) as two,
        start(come_and_go, barrier) as three,
    ):
        assert [process.result(deadline_s=240) for process in (one, two, three)] == [10, 10, 10]


@pytest.mark.parametrize("left", [[], ["arena"], ["arena", "reserve"], ["clients", "new", "catalog"]])
def test_what_a_dead_maker_left_is_made_anew(store_dir: str, left: list[str]) -> None:
    with fs.connect(store_dir, capacity="1MiB"):
        pass
    os.rename(f"{store_dir}/control", f"{store_dir}/{layout.UNFINISHED}")
    for name in {"arena", "reserve", "clients", "new", "catalog"} - set(left):
        subprocess.run(["rm", "-r", f"{store_dir}/{name}"], check=True)
    with fs.connect(store_dir, capacity="2MiB") as store:
        assert store.capacity_bytes == 2 << 20
        store.put(b"abc", "a")
        assert store.fsck() == []


# --- closing ---


@pytest.mark.req("API-1")
def test_a_closed_handle_says_so(store: fs.Store, store_dir: str) -> None:
    handle = fs.connect(store_dir)
    handle.close()
    handle.close()
    for use in (
        lambda: handle.put(b""),
        lambda: handle.get("a"),
        lambda: handle.create(1),
        lambda: handle.delete("a"),
        handle.list,
        handle.stats,
        handle.recover,
        lambda: handle.contains("a"),
        lambda: handle.wait(["a"], timeout=0),
        handle.destroy,
    ):
        with pytest.raises(fs.StoreClosed, match="closed"):
            use()
    assert "closed" in repr(handle)
    store.put(b"", "other handles are not concerned")


@pytest.mark.req("API-1")
def test_objects_and_views_outlive_their_handle(store: fs.Store, store_dir: str) -> None:
    def use() -> tuple[bytes, bytes, int, int]:
        handle = fs.connect(store_dir)
        store.close()
        handle.put(b"abc" * 1000, "a")
        obj, view = handle.get("a"), handle.get("a").value()
        handle.close()
        refs = len(obj.holders())
        with fs.connect(store_dir) as again:
            return bytes(obj.value()), bytes(view), refs, again.stat("a").refs

    assert child(use) == (b"abc" * 1000, b"abc" * 1000, 1, 2)


@pytest.mark.req("API-1")
def test_forgetting_a_handle_closes_it(store_dir: str) -> None:
    def use() -> list[str]:
        handle = fs.connect(store_dir, capacity="1MiB")
        assert len(os.listdir(f"{store_dir}/clients")) == 1
        del handle
        gc.collect()
        return os.listdir(f"{store_dir}/clients")

    assert child(use) == []


@pytest.mark.req("API-1", "INV-2")
def test_the_end_of_the_interpreter_disconnects(store: fs.Store) -> None:
    store.put(b"abc", "a")
    run_python(f"import flightstore as fs; s = fs.connect({store.path!r}); view = s.get('a').value()")
    store.recover()
    assert len(os.listdir(f"{store.path}/clients")) == 1
    assert store.stat("a").refs == 0


# --- destroying ---


def test_destroy_removes_everything(store: fs.Store) -> None:
    path = store.path
    store.put(b"abc", "a")
    store.destroy()
    assert not os.path.exists(path)
    with pytest.raises(fs.StoreClosed):
        store.destroy()


def test_other_clients_learn_of_the_destruction(store: fs.Store) -> None:
    store.put(b"abc" * 1000, "a")
    ready, destroyed = Gate(), Gate()

    def use() -> tuple[bytes, int]:
        view, obj = store.get("a").value(), store.get("a")
        ready.open()
        destroyed.wait()
        refused = 0
        for use in (
            lambda: store.put(b""),
            lambda: store.create(1),
            lambda: store.delete("a"),
            lambda: store.get("a"),
            lambda: store.contains("a"),
            lambda: store.wait(["b"], timeout=0),
            store.list,
            store.stats,
            store.recover,
            store.fsck,
            store.destroy,
            obj.holders,
        ):
            with pytest.raises(fs.StoreClosed, match="destroyed"):
                use()
            refused += 1
        with fs.connect(store.path, capacity="1MiB") as new:
            assert new.list() == []
            new.put(b"new", "a")
            assert new.get("a").value() == b"new"
        assert child(lambda: bytes(view)) == b"abc" * 1000, "a fork keeps the view"
        return bytes(view), refused

    with start(use) as user:
        ready.wait()
        store.destroy()
        destroyed.open()
        assert user.result() == (b"abc" * 1000, 12)


@pytest.mark.req("API-14")
def test_who_waits_learns_of_the_destruction(store: fs.Store) -> None:
    ready = Gate()

    def wait() -> None:
        ready.open()
        store.get("never", timeout=None)

    with start(wait) as waiter:
        ready.wait()
        store.destroy()
        with pytest.raises(fs.StoreClosed, match="destroyed"):
            waiter.result()


def test_a_new_store_at_the_same_path(store_dir: str) -> None:
    for number in range(3):
        store = fs.connect(store_dir, capacity=(number + 1) << 20)
        assert store.list() == []
        store.put(bytes([number]) * 1000, "a")
        view = store.get("a").value()
        store.destroy()
        assert view == bytes([number]) * 1000
    with pytest.raises(fs.NotAStore):
        fs.connect(store_dir, create=False)


def test_foreign_files_survive_a_destroy(store: fs.Store) -> None:
    mine = Path(store.path, "mine.txt")
    mine.write_text("keep")
    path = store.path
    store.destroy()
    assert os.listdir(path) == ["mine.txt"]
    mine.unlink()


# --- killed while making ---


def test_a_maker_killed_half_way(store_dir: str) -> None:
    """Killed about when the arena is there: the next to connect makes the store, or finds it made."""

    def make() -> None:
        fs.connect(store_dir, capacity="1MiB")

    for _ in range(5):
        with start(make) as maker:
            wait_for_file(Path(f"{store_dir}/arena"))
            maker.kill()
        with fs.connect(store_dir, capacity="1MiB") as store:
            store.put(b"abc", "a")
            store.recover()
            assert store.fsck() == []
            store.destroy()
