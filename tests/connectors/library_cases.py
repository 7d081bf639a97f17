"""Checks of a library that is better not loaded into the process of the tests: run apart, told by name."""

from __future__ import annotations

import shutil
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import flightstore as fs
from flightstore.testing.children import spawned, start_spawned

__all__ = ["outcomes_apart", "outcomes_of"]


def outcomes_of(module: Mapping[str, Any], path: str) -> dict[str, str]:
    """What went wrong in each check of a module, given its names; nothing where all is well."""
    found = {}
    with fs.connect(path) as store:
        for name, check in list(module.items()):
            if not name.startswith("check_"):
                continue
            found[name] = ""
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    check(store)
            except BaseException:
                found[name] = traceback.format_exc()
    return found


def outcomes_apart(
    put_all: Callable[[str], None], outcomes: Callable[[str], dict[str, str]]
) -> dict[str, str]:
    """What `outcomes` says in a fresh interpreter, of a store that `put_all` filled in another one."""
    parent = tempfile.mkdtemp(dir="/dev/shm", prefix="flightstore-test-")
    with fs.connect(f"{parent}/store", capacity="64MiB") as store:
        spawned(put_all, store.path)
        with start_spawned(outcomes, store.path) as process:  # all checks of the library
            found = process.result(deadline_s=240)
        store.recover()
        assert store.fsck() == []
        store.destroy()
    shutil.rmtree(parent)
    return found
