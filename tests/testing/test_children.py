"""Functions in other processes: results, exceptions, deaths, nothing left behind."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flightstore.errors import ObjectNotFound
from flightstore.testing.children import ChildDied, child, spawned, start, start_spawned
from flightstore.testing.events import Gate, wait_for_file, wait_until
from flightstore.testing.watched import Link, fork_watched


def pid_and_sum(*numbers: int) -> tuple[int, int]:
    return os.getpid(), sum(numbers)


def fail() -> None:
    error = ObjectNotFound("no such object", hint="put it first")
    error.extra_bytes = 4096  # type: ignore[attr-defined]
    raise error


def die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def sleep_for_ever(begun: Path | None = None) -> None:
    if begun is not None:
        begun.touch()
    threading.Event().wait()


def inherited_mark() -> object:
    return getattr(sys, "flightstore_mark", None)


@pytest.mark.parametrize("run", [child, spawned])
def test_results_come_back(run: Callable[..., Any]) -> None:
    pid, total = run(pid_and_sum, 1, 2, 3)
    assert total == 6
    assert pid != os.getpid()


@pytest.mark.parametrize("run", [child, spawned])
def test_exceptions_come_back_with_class_and_trace(run: Callable[..., Any]) -> None:
    with pytest.raises(ObjectNotFound, match=r"no such object \(put it first\)") as failure:
        run(fail)
    assert failure.value.extra_bytes == 4096  # type: ignore[attr-defined]
    assert "in fail" in failure.value.__notes__[0]


def test_large_results_come_back() -> None:
    assert len(child(bytes, 5_000_000)) == 5_000_000


@pytest.mark.parametrize("begin", [start, start_spawned])
def test_a_crash_is_told_with_its_stack(begin: Callable[..., Any]) -> None:
    with begin(die) as process:
        with pytest.raises(ChildDied, match=r"(?s)SIGSEGV.*in die"):
            process.result()


@pytest.mark.parametrize("begin", [start, start_spawned])
def test_a_hang_is_told_with_its_stack(begin: Callable[..., Any], tmp_path: Path) -> None:
    with begin(sleep_for_ever, tmp_path / "begun") as process:
        wait_for_file(tmp_path / "begun")
        with pytest.raises(ChildDied, match=r"(?s)still running.*in sleep_for_ever"):
            process.result(deadline_s=1)
    assert not Path(f"/proc/{process.pid}").exists()


def test_a_fork_is_warm_and_a_fresh_interpreter_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "flightstore_mark", 5, raising=False)
    assert child(inherited_mark) == 5
    assert spawned(inherited_mark) is None


def test_an_exception_that_cannot_be_pickled_is_told_as_text() -> None:
    class Local(Exception):
        pass

    def raise_local() -> None:
        raise Local("only here")

    with pytest.raises(ChildDied, match="Local: only here"):
        child(raise_local)


def test_leaving_the_block_kills_the_child_and_what_it_forked(tmp_path: Path) -> None:
    forked = tmp_path / "pid"

    def fork_and_wait() -> None:
        pid = os.fork()
        if pid:
            forked.write_text(str(pid))
        sleep_for_ever()

    with start(fork_and_wait) as process:
        wait_until(lambda: forked.exists() and forked.read_text(), what="the child forks")
    assert not Path(f"/proc/{process.pid}").exists()
    left = Path("/proc", forked.read_text(), "stat")
    wait_until(lambda: not left.exists() or b") Z " in left.read_bytes(), what="the grandchild ends")


def test_the_result_waits_for_what_the_child_forked() -> None:
    with Gate() as gate:

        def fork_and_return() -> int:
            if os.fork() == 0:
                gate.wait()
                os._exit(0)
            return 5

        with start(fork_and_return) as process:
            with pytest.raises(ChildDied, match="still running"):
                process.result(deadline_s=0.3)
        with start(fork_and_return) as process:
            gate.open()
            assert process.result() == 5


def test_the_result_is_that_of_the_child_not_that_of_what_it_forked() -> None:
    def fork_and_return_both() -> str:
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        return "child" if pid else "grandchild"

    assert child(fork_and_return_both) == "child"


def test_messages_arrive_while_the_child_runs() -> None:
    with Gate() as gate:

        def body(link: Link) -> None:
            link.tell("one")
            gate.wait()
            link.tell("two")

        watched = fork_watched(body)
        watched.wait_for("one")
        assert watched.messages == ("one",)
        gate.open()
        ending = watched.wait(deadline_s=30)
        assert (ending.exit_code, ending.messages, ending.hung) == (0, ("one", "two"), False)


def test_waiting_for_a_message_that_never_comes_ends_with_the_child() -> None:
    watched = fork_watched(lambda link: link.note("my last words"))
    with pytest.raises(ChildDied, match=r"(?s)'hello'.*status 0.*my last words"):
        watched.wait_for("hello")
