"""What all tests share: the rule about leaving tests out, and how they share the machine.

A test that needs more than Python packages says so: ``@pytest.mark.needs("mount", "root")``. Each name is a
component with a probe below. Where a component is missing the test is left out and named at the end of the
run, with the component; with ``CI=true`` it fails instead, unless the component is one that a CI machine
cannot be given (`OPTIONAL_COMPONENTS`). No test may be skipped in any other way: such a skip is a failure.

`make test` runs tests in several processes side by side (pytest-xdist). A test that cannot have others beside
it, because it measures or uses up what all share, says so: ``@pytest.mark.alone`` (see `Turnstile`). Whatever
ends a run before its time, the tests that were running then are named at the end.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import gc
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# A process that others keep from its processor is slow at any line: no time is set for an example, nor for
# making one.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So it is in a job that a script put into the background; the tests of Ctrl-C need it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

OPTIONAL_COMPONENTS = frozenset({"cgroup", "torch"})
"""Components a CI machine may lack: without them a test is left out there too, and still named."""


@dataclass(frozen=True)
class Component:
    """Something a test may need that is not a Python package."""

    available: Callable[[], bool]
    """Whether it works here; run once at most, leaves nothing behind."""
    remedy: str
    """What to do where it is missing."""


def succeeds(*command: str) -> bool:
    """Whether a command exists and exits with 0; a Java machine takes long to start where others compute."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 0


def can_mount() -> bool:
    """Whether a tmpfs can be mounted and unmounted."""
    with tempfile.TemporaryDirectory() as place:
        if not succeeds("mount", "-t", "tmpfs", "-o", "size=64k", "flightstore-probe", place):
            return False
        return succeeds("umount", place)


def can_make_memory_cgroup() -> bool:
    """Whether a control group can be made, and a limit set on its memory: asks the tool that tests use."""
    from flightstore.testing.cgroups import FaultUnavailable, memory_cgroup

    try:
        with memory_cgroup(1 << 30):
            return True
    except (FaultUnavailable, OSError):
        return False


COMPONENTS = {
    "cgroup": Component(
        can_make_memory_cgroup,
        "run as root, and name a control group delegated to you in FLIGHTSTORE_TEST_CGROUP",
    ),
    "cpp": Component(
        lambda: succeeds("g++", "--version") and succeeds("make", "--version"),
        "install g++ 12 or newer, and make",
    ),
    "curl": Component(lambda: succeeds("curl", "--version"), "install curl"),
    "git": Component(lambda: succeeds("git", "--version"), "install git"),
    "go": Component(lambda: succeeds("go", "version"), "install Go 1.26 or newer"),
    "java": Component(
        lambda: succeeds("mvn", "--version") and succeeds("javac", "--version"),
        "install a JDK, 17 or newer, and Maven",
    ),
    "javascript": Component(
        lambda: succeeds("node", "--version") and succeeds("npm", "--version"),
        "install Node.js 20 or newer, with npm",
    ),
    "mount": Component(can_mount, "run as root with CAP_SYS_ADMIN"),
    "network": Component(
        lambda: succeeds("unshare", "--net", "ip", "link", "set", "lo", "up"),
        "run as root with CAP_SYS_ADMIN, and install iproute2",
    ),
    "root": Component(lambda: os.geteuid() == 0, "run as root"),
    "rust": Component(
        lambda: succeeds("cargo", "--version") and succeeds("cc", "--version"),
        "install Rust 1.85 or newer, and a C compiler",
    ),
    "torch": Component(
        lambda: importlib.util.find_spec("torch") is not None,
        "pip install torch; it takes 6 GB, so that `make test` does not",
    ),
    "unshare": Component(
        lambda: succeeds("unshare", "--pid", "--fork", "--mount-proc", "true"),
        "run as root with CAP_SYS_ADMIN",
    ),
}


@functools.cache
def is_available(name: str) -> bool:
    """Whether the component works here."""
    return COMPONENTS[name].available()


def in_ci() -> bool:
    """Whether a test left out is a failure."""
    return os.environ.get("CI") == "true"


def needed(item: pytest.Item) -> list[str]:
    """Names of the components a test needs."""
    return sorted({name for mark in item.iter_markers("needs") for name in mark.args})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse component names that are not in the table."""
    for item in items:
        if unknown := set(needed(item)) - COMPONENTS.keys():
            raise pytest.UsageError(f"{item.nodeid} needs unknown components: {', '.join(sorted(unknown))}")


def pytest_collection_finish() -> None:
    """Let the cycle collector look no more at what is there once the tests are known.

    With all of them there a ``gc.collect()`` took a second, and many tests and fixtures need one. What a test
    makes is collected as ever.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let the interpreter's end take everything."""
    gc.unfreeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave a test out, or fail it, for want of a component."""
    missing = [name for name in needed(item) if not is_available(name)]
    if not missing:
        return
    reason = "; ".join(f"{name} ({COMPONENTS[name].remedy})" for name in missing)
    if in_ci() and not OPTIONAL_COMPONENTS.issuperset(missing):
        pytest.fail(f"CI must not leave this test out, but it needs {reason}", pytrace=False)
    item.user_properties.append(("left out", reason))
    pytest.skip(f"needs {reason}")


def forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip that does not come from `needs` into a failure."""
    if not report.skipped or hasattr(report, "wasxfail") or left_out_reason(report):
        return
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"skipped otherwise than by pytest.mark.needs, which is not allowed: {why}"


def left_out_reason(report: object) -> str | None:
    """The components a test was left out for, None if it was not."""
    return dict(getattr(report, "user_properties", ())).get("left out")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Apply the rule to tests."""
    report = yield
    forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Apply the rule to modules (``importorskip``, ``allow_module_level``)."""
    report = yield
    forbid_skip(report)
    return report


class Log:
    """What is written of a run where nobody looks on: a line now and then, no dot for a test that is well.

    A viewer of logs may show a part of them; tens of thousands of dots would hide what failed.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._began = time.monotonic()
        self._ended = 0

    def pytest_report_teststatus(
        self, report: pytest.TestReport | pytest.CollectReport
    ) -> tuple[str, str, str] | None:
        """Count such a test as ever, without a letter."""
        left_out = report.skipped and not hasattr(report, "wasxfail")
        if left_out or (report.passed and report.when == "call"):
            return report.outcome, "", report.outcome.upper()
        return None

    def pytest_runtest_logfinish(self) -> None:
        """Say how far the run is, every 5,000 tests."""
        self._ended += 1
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None and self._ended % 5000 == 0:
            minutes = (time.monotonic() - self._began) / 60
            reporter.ensure_newline()
            reporter.line(f"{self._ended:,} tests done after {minutes:.1f} min")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that were left out, and those that were running when the run ended."""
    if running:
        terminalreporter.section("were running when the run ended")
        for nodeid in sorted(running):
            terminalreporter.line(nodeid)
    show_languages(terminalreporter)
    show_left_out(terminalreporter)


def show_left_out(terminalreporter: pytest.TerminalReporter) -> None:
    """The tests that were left out, by what they need: one by its name, several by their class or file."""
    groups: dict[tuple[str, str], list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        if reason := left_out_reason(report):
            groups.setdefault((report.nodeid.rpartition("::")[0], reason), []).append(report.nodeid)
    if not groups:
        return
    terminalreporter.section("left out for want of a component")
    for (home, reason), nodeids in groups.items():
        who = nodeids[0] if len(nodeids) == 1 else f"{home}, {len(nodeids)} tests"
        terminalreporter.line(f"{who}: needs {reason}")


def show_languages(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of languages x operations that tests/languages filled (`make languages` prints the same)."""
    passed = [dict(report.user_properties) for report in terminalreporter.stats.get("passed", [])]
    cells = [one["table of languages"] for one in passed if "table of languages" in one]
    if not cells:
        return
    terminalreporter.section("languages x operations, seen to pass")
    found = {(operation, language): outcome for _, operation, language, outcome in cells}
    languages = sorted({language for _, language in found})
    for operation in ("", *dict.fromkeys(operation for _, operation, *_ in sorted(cells))):
        words = [found.get((operation, language), "-") if operation else language for language in languages]
        terminalreporter.line(f"{operation:14}" + "".join(f"{word:14}" for word in words))


class Turnstile:
    """Lets the tests of several processes run side by side, and one that wants to be alone by itself.

    A test holds the lock `room` while it runs, together with others or not. Whoever waits for the room holds
    `door`, so that nobody comes in before one who waits to be alone. These are record locks: the kernel drops
    those of a process that dies, and processes that a test forks hold none.
    """

    def __init__(self, folder: str) -> None:
        # Descriptors, not file objects: they stay open to the end.
        self._door, self._room = (
            os.open(Path(folder, name), os.O_RDWR | os.O_CREAT) for name in ("door", "room")
        )

    @contextlib.contextmanager
    def passed(self, *, alone: bool) -> Iterator[None]:
        """Wait to come in; out again at the end of the block."""
        fcntl.lockf(self._door, fcntl.LOCK_EX)
        try:
            fcntl.lockf(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.lockf(self._door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.lockf(self._room, fcntl.LOCK_UN)


TURNSTILE = pytest.StashKey[Turnstile]()
FOLDER = pytest.StashKey[str]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process that will run tests where the turnstile is (called where the run is directed)."""
    config = node.config
    if FOLDER not in config.stash:
        folder = tempfile.TemporaryDirectory(prefix="flightstore-turnstile-")
        config.add_cleanup(folder.cleanup)
        config.stash[FOLDER] = folder.name
    node.workerinput["turnstile"] = config.stash[FOLDER]


def pytest_configure(config: pytest.Config) -> None:
    """Find the turnstile, where several processes run tests; write a log where nobody looks on."""
    told = getattr(config, "workerinput", None)
    if told is None:
        if config.get_verbosity() == 0 and not sys.stdout.isatty():
            config.pluginmanager.register(Log(config), "log")
    elif "turnstile" in told:
        config.stash[TURNSTILE] = Turnstile(told["turnstile"])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test, its fixtures included, when the turnstile lets it."""
    turnstile = item.config.stash.get(TURNSTILE, None)
    if turnstile is None:
        return (yield)
    with turnstile.passed(alone=item.get_closest_marker("alone") is not None):
        return (yield)


running: set[str] = set()
"""The tests that have begun and not ended, in all processes."""


def pytest_runtest_logstart(nodeid: str) -> None:
    """Note that a test begins."""
    running.add(nodeid)


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Note that it has ended."""
    running.discard(nodeid)


@pytest.fixture
def store_dir() -> Iterator[Path]:
    """A path in memory where no store is yet; whatever is made there is removed after the test."""
    parent = Path(tempfile.mkdtemp(prefix="flightstore-test-", dir="/dev/shm"))
    yield parent / "store"
    shutil.rmtree(parent)
