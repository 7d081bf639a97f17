"""The catalog is opened anew after a fork, an interrupt in the middle of that notwithstanding."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

import flightstore as fs
from flightstore.catalog import environment
from flightstore.testing.tracing import can_be_interrupted


@pytest.mark.req("FAIL-2", "API-1")
def test_interrupted_at_any_line_of_opening(store_dir: str) -> None:
    """The traceback of the interrupt lives on; there is no second environment in this process for that."""
    with fs.connect(store_dir, capacity="1MiB") as store:
        store.put(b"value", "name")
        kept: list[BaseException] = []
        done = False
        while not done:
            store._conn.catalog.close()
            left = len(kept)

            def trace(frame: FrameType, event: str, argument: Any) -> Any:
                nonlocal left
                if frame.f_code.co_filename != environment.__file__:
                    return None
                if event == "line" and can_be_interrupted(frame):
                    left -= 1
                    if left < 0:
                        sys.settrace(None)
                        raise KeyboardInterrupt
                return trace

            sys.settrace(trace)
            try:
                store.contains("name")
                done = True
            except KeyboardInterrupt as error:
                kept.append(error)
            finally:
                sys.settrace(None)
            assert bytes(store.get("name").value()) == b"value"
            assert not store._conn.catalog.gate._is_owned()  # type: ignore[attr-defined]
        assert len(kept) > 10
        kept.clear()
        store.destroy()
