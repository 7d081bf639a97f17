"""The kill-at-line tool, proved on small modules written for the purpose.

Their lines append words to a file, so that the file tells exactly which lines had an effect.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from flightstore.testing.events import wait_until
from flightstore.testing.killapart import check_apart
from flightstore.testing.killcommand import main
from flightstore.testing.killpoints import (
    KillPointFailure,
    OperationFailed,
    Outcome,
    Scope,
    check_every_line,
    enumerate_lines,
    kill_points,
    run_killed,
)
from flightstore.testing.operations import OPERATIONS, Operation
from flightstore.testing.watched import Ending, Watched

pytestmark = pytest.mark.req("FAIL-2")

Sample = Callable[[str], ModuleType]


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """Makes a module out of source text, under a root of its own; `say(word)` is there for it to use."""
    root = tmp_path / "ours"
    root.mkdir()
    log = tmp_path / "log"
    log.touch()

    def make(source: str) -> ModuleType:
        path = root / "module.py"
        path.write_text(textwrap.dedent(source))
        spec = importlib.util.spec_from_file_location("kill_sample", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        module.say = functools.partial(_say, log)  # type: ignore[attr-defined]
        spec.loader.exec_module(module)
        module.log, module.scope = log, Scope.of(root)  # type: ignore[attr-defined]
        return module

    return make


def _say(log: Path, word: str) -> None:
    with log.open("a") as file:
        file.write(f"{word}\n")


def said(module: ModuleType) -> list[str]:
    words: list[str] = module.log.read_text().split()
    module.log.write_text("")
    return words


def nothing() -> None:
    """A state that needs no preparation."""


STRAIGHT = """
    def operation():
        say("a")
        say("b")
        helper()
        say("d")

    def helper():
        say("c")
"""


def test_lines_are_recorded_in_order(sample: Sample) -> None:
    module = sample(STRAIGHT)
    lines = enumerate_lines(module.operation, scope=module.scope)
    assert [(line.function, line.source) for line in lines] == [
        ("operation", 'say("a")'),
        ("operation", 'say("b")'),
        ("operation", "helper()"),
        ("helper", 'say("c")'),
        ("operation", 'say("d")'),
    ]


def test_each_line_is_killed_once_before_its_effect(sample: Sample) -> None:
    module = sample(STRAIGHT)
    effects = []

    def verify(state: None, outcome: Outcome) -> None:
        effects.append((outcome.kind, said(module)))

    report = check_every_line(
        nothing, lambda _: module.operation(), verify, scope=module.scope, name="straight"
    )
    assert effects == [
        ("finished", ["a", "b", "c", "d"]),
        ("killed", []),
        ("killed", ["a"]),
        ("killed", ["a", "b"]),
        ("killed", ["a", "b"]),
        ("killed", ["a", "b", "c"]),
    ]
    assert (report.points, report.distinct_lines, report.killed, report.finished) == (5, 5, 5, 0)


def test_exhaustive_kills_at_each_repetition(sample: Sample) -> None:
    module = sample("""
        def operation():
            for word in "xyz":
                say(word)
    """)
    first = list(kill_points(module.operation, scope=module.scope))
    every = list(kill_points(module.operation, scope=module.scope, exhaustive=True))
    assert [point.at.source for point in every].count("say(word)") == 3
    assert len({point.at for point in every}) == len(first) < len(every)
    lefts = []
    said(module)
    for point in every:
        assert run_killed(module.operation, point).kind == "killed"
        lefts.append(len(said(module)))
    assert lefts == sorted(lefts)
    assert set(lefts) == {0, 1, 2, 3}


def test_leaving_a_with_block_is_a_point_of_its_own(sample: Sample) -> None:
    """Or nobody would die between the last write of a transaction and its commit."""
    module = sample("""
        class Transaction:
            __enter__ = staticmethod(lambda: None)
            __exit__ = staticmethod(lambda *exc: say("commit"))

        def operation():
            with Transaction():
                say("write")
            say("after")
    """)
    points = list(kill_points(module.operation, scope=module.scope))
    assert said(module) == ["write", "commit", "after"]
    lefts = [(run_killed(module.operation, point).kind, said(module)) for point in points]
    assert ("killed", ["write"]) in lefts
    assert ("killed", ["write", "commit"]) in lefts


def test_generators_comprehensions_and_finalizers_count(sample: Sample) -> None:
    module = sample("""
        class Loud:
            def __del__(self):
                say("del")

        def words():
            yield "one"
            yield "two"

        def operation():
            loud = Loud()
            [say(word) for word in
                words()]
            del loud
    """)
    points = list(kill_points(module.operation, scope=module.scope))
    functions = {point.at.function for point in points}
    assert {"Loud.__del__", "words", "operation"} <= functions
    said(module)
    for point in points:
        assert run_killed(module.operation, point).kind == "killed"
        words = said(module)
        if point.at.function == "Loud.__del__":
            assert words == ["one", "two"]
        if point.at.source == 'yield "two"':
            assert words == ["one"]


def test_only_our_code_counts_and_links_are_followed(tmp_path: Path, sample: Sample) -> None:
    behind = tmp_path / "behind"
    behind.mkdir()
    (tmp_path / "ours" / "linked").symlink_to("../behind")
    (tmp_path / "ours" / "inner").mkdir()
    scope = Scope.of(tmp_path / "ours", exclude=[tmp_path / "ours" / "inner"])
    assert scope.covers(str(tmp_path / "ours" / "linked" / "x.py"))
    assert scope.covers(str(tmp_path / "ours" / "x.py"))
    assert not scope.covers(str(tmp_path / "ours" / "inner" / "x.py"))
    assert not scope.covers(textwrap.__file__)
    module = sample("import textwrap\ndef operation():\n    textwrap.dedent('x')\n")
    assert len(enumerate_lines(module.operation, scope=scope)) == 1


def test_the_package_is_in_scope_and_the_tools_are_not() -> None:
    import flightstore.connectors
    import flightstore.errors
    from flightstore.testing import killpoints

    scope = Scope.flightstore()
    assert scope.covers(flightstore.errors.__file__)
    assert scope.covers(str(flightstore.connectors.__file__))
    assert not scope.covers(killpoints.__file__)


def test_importing_inside_an_operation_adds_no_points(tmp_path: Path, sample: Sample) -> None:
    (tmp_path / "ours" / "lazily.py").write_text("class A:\n    x = 1\ndef f():\n    return 2\n")
    module = sample("def operation():\n    import lazily\n    lazily.f()\n")

    def setup() -> None:
        sys.path.insert(0, str(tmp_path / "ours"))

    lines = enumerate_lines(module.operation, setup=setup, scope=module.scope)
    assert [line.source for line in lines] == ["import lazily", "lazily.f()", "return 2"]
    assert "lazily" not in sys.modules


def test_setup_is_not_traced_and_feeds_the_operation(sample: Sample) -> None:
    module = sample("""
        def setup(state):
            say("setup")
            return state + ["ready"]

        def operation(context):
            say(context[-1])
    """)
    seen = []
    report = check_every_line(
        lambda: ["fresh"],
        module.operation,
        lambda state, outcome: seen.append((state, said(module))),
        setup=module.setup,
        scope=module.scope,
    )
    assert report.points == 1
    assert seen == [(["fresh"], ["setup", "ready"]), (["fresh"], ["setup"])]


def test_what_the_operation_raises_is_told(sample: Sample) -> None:
    module = sample("def operation():\n    raise LookupError('no such luck')\n")
    with pytest.raises(OperationFailed, match=r"(?s)module.py.*LookupError: no such luck"):
        enumerate_lines(module.operation, scope=module.scope)


@pytest.mark.parametrize("leave", ["raise SystemExit(3)", "raise KeyboardInterrupt"])
def test_a_child_never_comes_back_into_its_parent(sample: Sample, leave: str) -> None:
    module = sample(f"def operation():\n    say('here')\n    {leave}\n")
    home = os.getpid()
    with pytest.raises(OperationFailed):
        enumerate_lines(module.operation, scope=module.scope)
    assert os.getpid() == home
    assert said(module) == ["here"]


def test_exit_handlers_of_the_parent_do_not_run_in_children(sample: Sample, tmp_path: Path) -> None:
    sample(STRAIGHT)
    program = f"""
import atexit, sys
from pathlib import Path
from flightstore.testing.killpoints import Scope, check_every_line
atexit.register(lambda: print("exit handler", flush=True))
sys.path.insert(0, {str(tmp_path / "ours")!r})
import module
module.say = lambda word: None
scope = Scope.of(sys.path[0])
report = check_every_line(lambda: None, lambda _: module.operation(), lambda *_: None, scope=scope)
print(report.killed, flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "5\nexit handler\n"
    assert done.stderr == ""


def test_a_crash_is_told_apart_from_the_kill(sample: Sample) -> None:
    module = sample("""
        import os, signal

        def operation():
            os.kill(os.getpid(), signal.SIGBUS)
            say("never")
    """)
    with pytest.raises(OperationFailed, match=r"(?s)SIGBUS.*in operation"):
        enumerate_lines(module.operation, scope=module.scope)
    point = next(iter(kill_points(sample(STRAIGHT).operation, scope=module.scope)))
    foreign = run_killed(lambda: os.kill(os.getpid(), 9), point)
    assert (foreign.kind, "SIGKILL" in foreign.detail) == ("crashed", True)


def test_a_point_that_is_not_reached_is_a_finish(sample: Sample) -> None:
    module = sample("""
        def operation(way):
            if way:
                say("long")
            return None
    """)
    points = list(kill_points(lambda: module.operation(True), scope=module.scope))
    outcomes = [run_killed(lambda: module.operation(False), point).kind for point in points]
    assert outcomes == ["killed", "finished", "killed"]


def test_a_hang_is_killed_and_told_with_its_stack(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sample("""
        import threading

        def operation():
            waits_for_ever()

        def waits_for_ever():
            say("here")
            threading.Event().wait()
    """)
    wait = Watched.wait

    def wait_from_there(watched: Watched, *, deadline_s: float) -> Ending:
        """The time begins when it hangs: it may take long to get there."""
        wait_until(module.log.read_text, what="the operation hangs")
        return wait(watched, deadline_s=deadline_s)

    monkeypatch.setattr(Watched, "wait", wait_from_there)
    with pytest.raises(OperationFailed, match=r"(?s)still running.*waits_for_ever.*operation"):
        enumerate_lines(module.operation, scope=module.scope, deadline_s=0.5)


def test_lines_of_threads_count(sample: Sample) -> None:
    module = sample("""
        import threading

        def work():
            say("thread")
            say("thread2")

        def operation():
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            say("end")
    """)
    points = list(kill_points(module.operation, scope=module.scope))
    said(module)
    lefts = {}
    for point in points:
        assert run_killed(module.operation, point).kind == "killed"
        lefts[point.at.source] = said(module)
    assert lefts['say("thread")'] == []
    assert lefts['say("thread2")'] == ["thread"]
    assert lefts['say("end")'] == ["thread", "thread2"]


FORKING = """
    import os

    def before():
        say("before")

    def in_parent():
        say("parent")

    def in_child():
        say("child")

    def setup(state):
        os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)

    def operation(state):
        pid = os.fork()
        if pid == 0:
            say("grandchild")
            os._exit(0)
        os.waitpid(pid, 0)
        say("end")
"""


def test_fork_hooks_the_forking_process_dies(sample: Sample) -> None:
    module = sample(FORKING)
    lefts: dict[str, list[str]] = {}

    def verify(state: None, outcome: Outcome) -> None:
        lefts[outcome.point.at.source if outcome.point else ""] = sorted(said(module))

    report = check_every_line(nothing, module.operation, verify, setup=module.setup, scope=module.scope)
    assert report.killed == report.points
    assert lefts[""] == ["before", "child", "end", "grandchild", "parent"]
    assert lefts['say("before")'] == []
    assert lefts['say("parent")'] == ["before", "child", "grandchild"], (
        "the forked process goes on, and is waited for"
    )
    assert lefts['say("end")'] == ["before", "child", "grandchild", "parent"]
    assert 'say("child")' not in lefts


def test_fork_hooks_the_forked_process_dies(sample: Sample) -> None:
    module = sample(FORKING)
    lefts: dict[str, list[str]] = {}

    def verify(state: None, outcome: Outcome) -> None:
        lefts[outcome.point.at.source if outcome.point else ""] = sorted(said(module))

    report = check_every_line(
        nothing, module.operation, verify, setup=module.setup, scope=module.scope, in_grandchild=True
    )
    assert report.killed == report.points
    assert lefts['say("child")'] == ["before", "end", "parent"]
    assert lefts['say("grandchild")'] == ["before", "child", "end", "parent"]
    assert 'say("parent")' not in lefts


@pytest.mark.parametrize("in_grandchild", [False, True])
def test_a_line_that_both_sides_run_kills_the_chosen_one(sample: Sample, in_grandchild: bool) -> None:
    module = sample("""
        import os

        def both(side):
            say(side)

        def operation():
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
            both("parent" if pid else "child")
            if not pid:
                os._exit(0)
    """)
    points = list(kill_points(module.operation, scope=module.scope, in_grandchild=in_grandchild))
    (shared,) = [point for point in points if point.at.function == "both"]
    assert said(module) == ["child", "parent"]
    outcome = run_killed(module.operation, shared, in_grandchild=in_grandchild)
    assert (outcome.kind, said(module)) == ("killed", ["parent"] if in_grandchild else ["child"])


def test_a_forked_process_that_comes_back_from_the_operation_is_not_its_end(sample: Sample) -> None:
    module = sample("""
        import os, signal

        def operation():
            pid = os.fork()
            if pid:
                os.waitpid(pid, 0)
                os.kill(os.getpid(), signal.SIGKILL)
    """)
    with pytest.raises(OperationFailed, match="SIGKILL"):
        enumerate_lines(module.operation, scope=module.scope)


def test_a_failed_check_names_operation_point_and_source(sample: Sample) -> None:
    module = sample(STRAIGHT)

    def verify(state: None, outcome: Outcome) -> None:
        assert said(module)[-1:] != ["b"], "b is left behind"

    with pytest.raises(KillPointFailure) as failure:
        check_every_line(nothing, lambda _: module.operation(), verify, scope=module.scope, name="straight")
    text = str(failure.value)
    assert "'straight'" in text
    assert "k=3" in text
    assert "module.py:5 in operation: helper()" in text
    assert "b is left behind" in text


def test_cleanup_comes_after_each_check_even_a_failed_one(sample: Sample) -> None:
    module = sample(STRAIGHT)
    cleaned: list[int] = []
    with contextlib.suppress(KillPointFailure):
        check_every_line(
            lambda: 7,
            lambda _: module.operation(),
            lambda state, outcome: 1 // (len(cleaned) - 2),
            cleanup=cleaned.append,
            scope=module.scope,
        )
    assert cleaned == [7, 7, 7]


def test_many_kills_leave_no_descriptor_and_no_process(sample: Sample) -> None:
    module = sample(STRAIGHT)
    before, children = set(os.listdir("/proc/self/fd")), psutil.Process().children()
    check_every_line(nothing, lambda _: module.operation(), lambda *_: None, scope=module.scope)
    assert set(os.listdir("/proc/self/fd")) == before
    assert psutil.Process().children() == children


def test_an_operation_of_the_table_runs_by_its_fields(sample: Sample, tmp_path: Path) -> None:
    module = sample("def operation(path):\n    (path / 'a').touch()\n    (path / 'b').touch()\n")
    kinds: list[tuple[str, list[str]]] = []

    def prepare() -> Path:
        path = tmp_path / f"state{len(kinds)}"
        path.mkdir()
        return path

    def verify(path: Path, outcome: Outcome) -> None:
        kinds.append((outcome.kind, sorted(entry.name for entry in path.iterdir())))

    report = Operation("touch", prepare, module.operation, verify).check(scope=module.scope)
    assert report.operation == "touch"
    assert kinds == [("finished", ["a", "b"]), ("killed", []), ("killed", ["a"])]


@pytest.fixture
def table(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two operations in the command's table: one that holds, one whose check fails."""
    module = sample(STRAIGHT)
    run = functools.partial(check_every_line, scope=module.scope)
    monkeypatch.setattr("flightstore.testing.operations.check_every_line", run)

    def wrong(state: None, outcome: Outcome) -> None:
        raise AssertionError("all wrong")

    for name, verify in (("good", lambda *_: None), ("bad", wrong)):
        monkeypatch.setitem(OPERATIONS, name, Operation(name, nothing, lambda _: module.operation(), verify))


@pytest.mark.usefixtures("table")
def test_the_command_prints_counts_and_fails_when_one_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--operation", "good", "--exhaustive"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:6] == ["good", "5", "5", "5", "5", "0"]
    assert main(["--operation", "good", "bad", "--json"]) == 1
    printed = capsys.readouterr()
    counts = json.loads(printed.out)
    assert counts["reports"][0]["killed"] == 5
    assert "all wrong" in counts["failures"][0]
    assert "all wrong" in printed.err


def test_the_command_refuses_an_unknown_operation() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flightstore.testing.killpoints", "--operation", "no-such"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "no-such" in done.stderr


def test_the_command_leaves_no_line_out_of_all_operations(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--operation", "get", "--share", "0"]) == 2
    assert "--share 0" in capsys.readouterr().err


def test_what_goes_wrong_in_a_process_of_its_own_is_told() -> None:
    with pytest.raises(KeyError, match="no-such-operation") as raised:
        check_apart("no-such-operation")
    assert "killapart.py" in raised.value.__notes__[0]
