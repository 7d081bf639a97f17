"""Several processes share the tests (tests/conftest.py): tried on small test folders of their own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from flightstore.testing.children import start
from flightstore.testing.events import Gate, wait_until

CONFTEST = Path(__file__).parents[1] / "conftest.py"
INI = "[pytest]\nmarkers =\n    alone: x\n    needs(*components): x\n"


@pytest.fixture
def conftest(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Our conftest as a module of its own."""
    spec = importlib.util.spec_from_file_location("conftest_under_test", CONFTEST)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


def waits_for_a_lock(pid: int) -> bool:
    """Whether a process waits for a record lock."""
    rows = (row.split() for row in Path("/proc/locks").read_text().splitlines())
    return any(row[1:3] == ["->", "POSIX"] and row[5] == str(pid) for row in rows)


def test_one_who_wants_to_be_alone_is_let_in_when_all_are_out_and_before_those_who_came_later(
    tmp_path: Path, conftest: ModuleType
) -> None:
    entered = {name: Gate(name) for name in ("one", "two", "alone", "late")}
    leave = {name: Gate(f"leave {name}") for name in entered}

    def visitor(name: str) -> Callable[[], None]:
        def run() -> None:
            with conftest.Turnstile(str(tmp_path)).passed(alone=name == "alone"):
                entered[name].open()
                leave[name].wait()

        return run

    with start(visitor("one")) as one, start(visitor("two")) as two:
        entered["one"].wait()
        entered["two"].wait()
        with start(visitor("alone")) as alone:
            wait_until(lambda: waits_for_a_lock(alone.pid), what="one who wants to be alone waits")
            with start(visitor("late")) as late:
                wait_until(lambda: waits_for_a_lock(late.pid), what="one who came later waits")
                leave["one"].open()
                one.result()
                assert not entered["alone"].is_open
                two.kill()  # as good as leaving
                entered["alone"].wait()
                wait_until(lambda: waits_for_a_lock(late.pid), what="it waits on")
                assert not entered["late"].is_open
                leave["alone"].open()
                alone.result()
                entered["late"].wait()
                leave["late"].open()
                late.result()


SHARES = """
import os, pathlib, time, pytest
HERE = pathlib.Path(__file__).parent

@pytest.fixture(autouse=True)
def mine():
    file = HERE / f"running-{os.getpid()}"
    file.touch()
    yield file
    file.unlink()

def test_meet():
    (HERE / f"here-{os.getpid()}").touch()
    end = time.monotonic() + 120
    while len(list(HERE.glob("here-*"))) < 2:
        assert time.monotonic() < end, "nobody runs beside this"
        time.sleep(0.001)

@pytest.mark.parametrize("number", range(10))
def test_beside(number): pass

@pytest.mark.parametrize("number", range(10))
@pytest.mark.alone
def test_alone(mine, number): assert list(HERE.glob("running-*")) == [mine]
"""
HANGS = """
import time

def test_hangs():
    while True:  # a signal that comes before a wait has begun does not end that wait
        time.sleep(0.1)
"""


@contextlib.contextmanager
def begin(folder: Path, test: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """pytest on a folder with our conftest and a test, in a process group of its own, writing to `output`.
    None of it is left at the end of the block.
    """
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "pytest.ini").write_text(INI)
    (folder / "test_it.py").write_text(test)
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_XDIST")}
    with open(folder / "output", "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
            cwd=folder,
            env=environment | {"PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_some_run_side_by_side_and_some_alone(tmp_path: Path) -> None:
    """Two processes, each of which runs all of them."""
    with begin(tmp_path, SHARES, "-n2", "--dist=each") as process:
        process.wait(timeout=240)
    output = (tmp_path / "output").read_text()
    assert process.returncode == 0, output
    assert "42 passed" in output.splitlines()[-1]
    assert "were running" not in output


@pytest.mark.parametrize("processes", ["-n0", "-n2"])
def test_an_interrupted_run_says_in_which_test(tmp_path: Path, processes: str) -> None:
    """As .ci/run interrupts it: the whole process group."""
    output = tmp_path / "output"
    with begin(tmp_path, HANGS, processes, "-v") as process:
        wait_until(lambda: "::test_hangs" in output.read_text(), what="the test begins", timeout_s=240)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=240)
    text = output.read_text()
    assert process.returncode == 2, text
    told = text[text.index("were running when the run ended") :]
    assert "test_it.py::test_hangs" in told
