"""An interrupt in the middle of entering or leaving a batch leaves no batch current."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

import flightstore

pytestmark = pytest.mark.req("BAT-1")

_FUNCTIONS = {"__enter__", "__exit__", "enter", "leave"}
_FILES = ("store/batches.py", "store/current.py")


class Interrupter:
    """Raises KeyboardInterrupt at one of the lines of our functions; not at a function's first, which stands
    for the moment before the call.
    """

    def __init__(self, at: int) -> None:
        self._left = at
        self.raised = False

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if code.co_name not in _FUNCTIONS or not code.co_filename.endswith(_FILES):
            return None
        is_body = event == "line" and not self._is_first(frame)
        if is_body and not self.raised:
            self._left -= 1
            if self._left < 0:
                self.raised = True
                raise KeyboardInterrupt
        return self

    @staticmethod
    def _is_first(frame: FrameType) -> bool:
        lines = [line for _, _, line in frame.f_code.co_lines() if line]
        return frame.f_lineno <= min(line for line in lines if line > frame.f_code.co_firstlineno)


@pytest.mark.parametrize("how", ["with", "activate"])
def test_no_batch_stays_current(store: flightstore.Store, how: str) -> None:
    count = 0
    while _interrupted(store, how, count):
        assert store.current_batch() is None, f"after an interrupt at line {count}"
        count += 1
    assert count > 5, "hardly any line was interrupted"


def _interrupted(store: flightstore.Store, how: str, at: int) -> bool:
    batch = store.new_batch()
    interrupter = Interrupter(at)
    before = sys.gettrace()
    sys.settrace(interrupter)
    try:
        with batch if how == "with" else batch.activate():
            pass
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return interrupter.raised
