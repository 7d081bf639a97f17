"""The part of the facade that gives sessions."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

from flightstore import config
from flightstore.abc.sessions import AbstractSessions
from flightstore.catalog.keys import check_name
from flightstore.errors import InvalidArgument
from flightstore.lifecycle import sessions
from flightstore.lifecycle.registry import release_connection, retain_connection
from flightstore.store.attached import Attached
from flightstore.types import SessionInfo

if TYPE_CHECKING:
    from flightstore.store.session import Session

__all__ = ["Sessions"]


class Sessions(Attached, AbstractSessions):
    """session, sessions."""

    def session(
        self,
        name: str | int | None = None,
        *,
        quota: int | str | None = None,
        ephemeral: bool = False,
        attach: bool | int | None = None,
    ) -> Session:
        from flightstore.store.session import Session

        conn = self._conn
        entry = _entry(name, quota, ephemeral, attach)
        retain_connection(conn)
        try:
            sessions.enter(conn, entry)
            return Session(conn, entry)
        except BaseException:
            if entry.begun:
                conn.undo((sessions.ending(entry),))
            if not entry.handed_over:
                release_connection(conn)
            raise

    def sessions(self) -> builtins.list[SessionInfo]:
        return sessions.infos(self._conn)


def _entry(
    name: str | int | None, quota: int | str | None, ephemeral: bool, attach: bool | int | None
) -> sessions.Entry:
    """What the arguments of `session` mean.

    Raises:
        InvalidArgument: they contradict each other, or one is not what it should be.
    """
    if attach is not None and not isinstance(attach, bool):
        if name is not None:
            raise InvalidArgument(
                f"session {name!r} and attach={attach!r} are two", hint="name the session to attach to once"
            )
        name, attach = attach, True
    if attach and name is None:
        raise InvalidArgument(
            "attach to which session?", hint="session(name, attach=True) or session(attach=number)"
        )
    quota_bytes = 0 if quota is None else config.parse_bytes(quota)
    if quota is not None and quota_bytes <= 0:
        raise InvalidArgument(f"a quota of {quota!r}", hint="give bytes, at least 1, or None for no limit")
    if isinstance(name, int):
        if name is True or name < 1:
            raise InvalidArgument(f"there is no session {name}", hint="sessions are numbered from 1")
        return sessions.Entry("", name, bool(attach), quota_bytes, ephemeral)
    if name is not None:
        check_name(name)
    return sessions.Entry(name or "", 0, bool(attach), quota_bytes, ephemeral)
