"""Which process is meant by a process id: the one that started then, for as long as it has not ended."""

from __future__ import annotations

import os
import threading

import pytest

from flightstore.memory import kernel
from flightstore.testing.children import start


@pytest.mark.req("FAIL-2")
def test_a_process_is_known_by_its_start() -> None:
    mine = kernel.process_start(os.getpid())
    assert mine is not None
    assert kernel.lives_since(os.getpid(), mine)
    assert not kernel.lives_since(os.getpid(), mine - 1)
    with start(threading.Event().wait) as waiting:
        began = kernel.process_start(waiting.pid)
        assert began is not None
        assert kernel.lives_since(waiting.pid, began)
    assert not kernel.lives_since(waiting.pid, began)
    assert kernel.process_start(waiting.pid) is None


def test_an_ended_process_lives_no_more_before_its_parent_has_waited_for_it() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    began = kernel.process_start(pid)
    assert began is not None
    assert kernel.has_ended(pid)
    assert not kernel.lives_since(pid, began)
    os.waitpid(pid, 0)
