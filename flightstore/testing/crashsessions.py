"""Rows of the crash table for sessions: begun, attached to, written in, ended, reclaimed.

A scene's store has objects in sessions besides its own. After each death the sessions are compared with what
they may hold; then all are ended, and what is checked of every scene (crashscenes.verify_scene) holds for the
store's own objects: so the memory of sessions has come back to the byte.

Importing this module fills `OPERATIONS`, as crashtable.py does for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flightstore
from flightstore.store import Session, Store
from flightstore.testing.crashscenes import Scene, close_scene, contents, open_scene, pattern, verify_scene
from flightstore.testing.crashtable import LARGE, NEWCOMER, SMALL, victim_store
from flightstore.testing.killpoints import Outcome
from flightstore.testing.operations import Operation, register

__all__ = ["SessionAct"]

NAME = "job"
IN_SESSION = {"small": pattern(50, 900), "large": pattern(51, 90_000), "held": pattern(52, 2_000)}
"""What is in the session to begin with; the names are those of the store's own objects."""
Sessions = Mapping[str, Mapping[str, Any]]
"""Name of a session -> its contents."""


@dataclass(frozen=True, slots=True)
class SessionAct:
    """Something a client does with a session."""

    name: str
    """Its name in the table."""
    run: Callable[[Any], object]
    """The act; what it is killed in."""
    after: Sequence[Sessions]
    """What the store's sessions may hold once it has happened, and its process is gone."""
    before: Sequence[Sessions] = ({NAME: IN_SESSION},)
    """What they may hold otherwise."""
    ended: bool = False
    """Whether the session has been ended when the act begins."""
    ready: Callable[[Store], object] | None = None
    """Done by the victim before it can be killed; the result is handed to `run` instead of the store."""


def _register(act: SessionAct) -> None:
    for survivor in (True, False):

        def prepare(survivor: bool = survivor) -> Scene:
            return _prepared(act, survivor=survivor)

        def setup(scene: Scene) -> Any:
            store = victim_store(scene)
            return act.ready(store) if act.ready else store

        def verify(scene: Scene, outcome: Outcome) -> None:
            _verify(act, scene, outcome)

        name = act.name if survivor else act.name + NEWCOMER
        register(Operation(name, prepare, act.run, verify, setup=setup, cleanup=close_scene))


def _prepared(act: SessionAct, *, survivor: bool) -> Scene:
    scene = open_scene(survivor=survivor)
    store = victim_store(scene)
    if act.before[0] or act.ended:
        with store.session(NAME) as session:
            session.put_many(IN_SESSION)
            if survivor:
                scene.held.append((session.get("held"), IN_SESSION["held"]))
            if act.ended:
                session.end()
    if not survivor:
        store.close()
    return scene


def _verify(act: SessionAct, scene: Scene, outcome: Outcome) -> None:
    store = scene.survivor or flightstore.connect(scene.path, create=False)
    try:
        store.recover()
        found = {}
        for info in store.sessions():
            assert info.state == "active", f"{info} was not reclaimed"
            with store.session(info.id) as session:
                found[info.name or ""] = contents(session)
                session.end()
        allowed = act.after if outcome.kind == "finished" else [*act.before, *act.after]
        assert any(found == {name: dict(held) for name, held in one.items()} for one in allowed), (
            f"sessions hold { ({name: sorted(held) for name, held in found.items()}) }"
        )
        store.recover()
        assert store.sessions() == []
        assert not store._conn.catalog.items(b"S") + store._conn.catalog.items(b"I")
    finally:
        if scene.survivor is None:
            store.close()
    verify_scene(scene, outcome)


BOTH = {NAME: IN_SESSION}
PUT = {"new": SMALL, "large": LARGE}
CHANGED = {**IN_SESSION, **PUT}


def _put(session: Session) -> None:
    session.put(SMALL, "new")
    session.put(LARGE, "large")


def _begin_ephemeral(store: Store) -> None:
    session = store.session("short", ephemeral=True)
    session.put(SMALL, "new")
    session.close()


def _attached(store: Store) -> None:
    store.session(NAME, attach=True).put(SMALL, "new")


_register(
    SessionAct("session-begin", lambda store: store.session("other", quota=5_000), [{**BOTH, "other": {}}])
)
_register(SessionAct("session-ephemeral", _begin_ephemeral, [BOTH]))
_register(SessionAct("session-attach", _attached, [{NAME: {**IN_SESSION, "new": SMALL}}]))
_register(
    SessionAct(
        "session-put",
        _put,
        [{NAME: CHANGED}],
        before=[BOTH, {NAME: {**IN_SESSION, "new": SMALL}}],
        ready=lambda store: store.session(NAME, attach=True),
    )
)
_register(
    SessionAct(
        "session-put-ephemeral",
        _put,
        [BOTH],
        ready=lambda store: store.session("short", quota=200_000, ephemeral=True),
    )
)
_register(
    SessionAct(
        "session-end",
        lambda session: session.end(),
        [{}],
        ready=lambda store: store.session(NAME, attach=True),
    )
)
_register(SessionAct("session-reclaim", lambda store: store.recover(), [{}], before=[{}], ended=True))
