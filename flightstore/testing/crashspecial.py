"""Rows of the table of killed operations that need a stage or a check of their own.

Lives here: connecting, making and destroying a store, recovering one in which others died, and forks.
Importing this module registers them.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import flightstore
from flightstore.errors import FlightStoreError
from flightstore.memory import kernel
from flightstore.memory.leases import new_client_file
from flightstore.store import Store
from flightstore.testing.crashscenes import (
    BASE,
    CAPACITY_BYTES,
    Scene,
    close_scene,
    contents,
    end_bystander,
    fresh_path,
    held_is_right,
    open_scene,
    pattern,
    plain,
    sound,
    verify_scene,
    works,
)
from flightstore.testing.crashtable import GROWS, NEWCOMER, SMALL, victim_store
from flightstore.testing.killpoints import Outcome
from flightstore.testing.operations import Operation, register
from flightstore.testing.watched import Link, fork_watched

__all__ = ["leave_wreck"]

# --- connecting, making a store ---


def _alone(scene: Scene) -> str:
    """The victim gives up the inherited connection, and has to make one of its own."""
    if scene.survivor is not None:
        scene.survivor.close()
    return scene.path


def _connect(path: str) -> Store:
    return flightstore.connect(path, capacity=CAPACITY_BYTES)


for _survivor in (True, False):
    register(
        Operation(
            "connect" + ("" if _survivor else NEWCOMER),
            partial(open_scene, survivor=_survivor, hold=False),
            _connect,
            verify_scene,
            setup=_alone,
            cleanup=close_scene,
        )
    )


def _verify_made(path: str, outcome: Outcome) -> None:
    """However far the making came, the next to connect gets an empty store that works."""
    store = _connect(path)
    try:
        store.recover()
        sound(store)
        assert contents(store) == {}
        works(store)
    finally:
        store.close()


def _remove(path: str) -> None:
    _connect(path).destroy()


register(Operation("connect-making", fresh_path, _connect, _verify_made, cleanup=_remove))

# --- destroying ---


def _verify_destroyed(scene: Scene, outcome: Outcome) -> None:
    """All is there as before, or nothing is and the next to connect makes a new store."""
    held_is_right(scene)
    if scene.survivor is not None:
        with contextlib.suppress(FlightStoreError):  # StoreClosed, once the store is marked
            scene.survivor.recover()
            assert contents(scene.survivor) == scene.before
            sound(scene.survivor, held=len(scene.held), clients=scene.clients)
    held_is_right(scene)
    scene.held.clear()
    if scene.survivor is not None:
        scene.survivor.close()
        scene.survivor = None
    if scene.bystander is not None:
        end_bystander(scene.bystander)
        scene.bystander = None
    store = _connect(scene.path)
    try:
        store.recover()
        sound(store)
        found = contents(store)
        assert found in ([{}] if outcome.kind == "finished" else [scene.before, {}]), sorted(found)
        works(store)
    finally:
        store.close()


def _raze(scene: Scene) -> None:
    """The store that was made anew has no bystander: it does not go back into the pool."""
    if scene.survivor is not None:
        scene.survivor.close()
    if scene.bystander is not None:
        end_bystander(scene.bystander)
    _remove(scene.path)


for _survivor in (True, False):
    register(
        Operation(
            "destroy" + ("" if _survivor else NEWCOMER),
            partial(open_scene, survivor=_survivor),
            lambda store: store.destroy(),
            _verify_destroyed,
            setup=victim_store,
            cleanup=_raze,
        )
    )

# --- recovering what others left ---


def leave_wreck(scene: Scene) -> None:
    """Let processes die in this store, each at a system call that leaves something behind.

    Afterwards there are client files and leases of dead processes, a pending object, a range being grown and
    one being punched, an object marked by a conditional delete, a half-made client file, slots of dead
    readers, and the reserve was given up.
    """
    scene.before["filler"] = scene.after["filler"] = _FILLER
    for victim in (_die_punching, _die_growing):
        _bury(partial(victim, scene))
    new_client_file(scene.path, 0o600).close()
    os.unlink(f"{scene.path}/reserve")


def _bury(victim: Callable[[], None]) -> None:
    def body(link: Link) -> None:
        victim()

    ending = fork_watched(body).wait(deadline_s=30)
    assert ending.exit_code == -signal.SIGKILL, ending


_FILLER = pattern(14, 100_000)


def _die_punching(scene: Scene) -> None:
    """Ask for so much that a hole has to be given up for it."""
    store = victim_store(scene)
    store.put_many({"hole-1": _FILLER, "hole-2": _FILLER, "filler": _FILLER})
    store.delete(["hole-1", "hole-2"])
    _call_instead(kernel, "punch_hole", _die)
    store.put(bytes(700_000), "never")


def _die_growing(scene: Scene) -> None:
    """Hold a reference, a mark and a pending object, and die with a range in transit."""
    store = victim_store(scene)
    with _call_instead(kernel, "membarrier", _fail), contextlib.suppress(OSError):
        store.delete("small", if_unused=True)
    _held = store.get("large")
    _pending = store.create(5_000, "half")
    _call_instead(os, "posix_fallocate", _die)
    store.put(GROWS, "never")


def _call_instead(module: Any, name: str, function: Callable[..., object]) -> contextlib.ExitStack:
    """Replace a system call in this process; leaving the returned context brings it back."""
    stack = contextlib.ExitStack()
    stack.callback(setattr, module, name, getattr(module, name))
    setattr(module, name, function)
    return stack


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(*_: object) -> None:
    raise OSError("refused")


def _wrecked(*, survivor: bool) -> Scene:
    scene = open_scene(survivor=survivor)
    leave_wreck(scene)
    return scene


for _survivor in (True, False):
    register(
        Operation(
            "recover" + ("" if _survivor else NEWCOMER),
            partial(_wrecked, survivor=_survivor),
            lambda store: store.recover(),
            verify_scene,
            setup=victim_store,
            cleanup=close_scene,
        )
    )

# --- forking ---


def _before_fork(scene: Scene) -> tuple[Store, Any, Scene]:
    store = victim_store(scene)
    return store, store.get("large"), scene


def _fork(stage: tuple[Store, Any, Scene]) -> None:
    """Fork while holding a view; both sides read, and both put something."""
    store, view, scene = stage
    pid = os.fork()
    if pid == 0:
        _live_as_child(store, view, scene)
    os.waitpid(pid, 0)
    if plain(view) != BASE["large"]:
        scene.flag[0] = 1
    store.put(SMALL, "by-parent")


def _live_as_child(store: Store, view: Any, scene: Scene) -> None:
    status = 1
    try:
        if plain(view) == BASE["large"] and plain(store.get("small")) == BASE["small"]:
            store.put(SMALL, "by-child")
            status = 0
    finally:
        scene.flag[1] = status
        os._exit(status)


def _forking(*, survivor: bool, in_grandchild: bool) -> Scene:
    scene = open_scene(survivor=survivor)
    scene.after = {**scene.before, "by-parent": SMALL, "by-child": SMALL}
    if in_grandchild:
        scene.before = {**scene.before, "by-parent": SMALL}  # the parent lives, and goes on
    else:
        scene.between.append({**scene.before, "by-child": SMALL})
    return scene


for _survivor in (True, False):
    for _grandchild in (True, False):
        register(
            Operation(
                ("fork-child" if _grandchild else "fork-parent") + ("" if _survivor else NEWCOMER),
                partial(_forking, survivor=_survivor, in_grandchild=_grandchild),
                _fork,
                verify_scene,
                setup=_before_fork,
                cleanup=close_scene,
                in_grandchild=_grandchild,
            )
        )
