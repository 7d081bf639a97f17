"""The part of a remote store that gives sessions."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING

from flightstore import config
from flightstore.abc.sessions import AbstractSessions
from flightstore.catalog.keys import check_name
from flightstore.errors import InvalidArgument, NotOffered
from flightstore.remote.attached import Attached
from flightstore.types import SessionInfo
from flightstore.wire import messages as m

if TYPE_CHECKING:
    from flightstore.remote.session import RemoteSession

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
    ) -> RemoteSession:
        """As that of a local store; but the owner is the gateway, whoever asks for it.

        So a session of that name is joined as long as the gateway lives, and attached to after its restart.

        Raises:
            NotOffered: `ephemeral`: the gateway does not know when this process ends.
        """
        from flightstore.remote.session import RemoteSession

        if ephemeral:
            raise NotOffered(
                "a gateway has no ephemeral sessions: it outlives its clients",
                hint="end() the session, or put into a batch with a timeout",
            )
        reply = self._act("session", _request(name, quota, attach), m.SessionReply)
        return RemoteSession(self._shared, reply, str(reply.number))

    def sessions(self) -> builtins.list[SessionInfo]:
        found = self._act("sessions", m.Empty(), m.Records)
        return [SessionInfo(**one) for one in found.records]


def _request(name: str | int | None, quota: int | str | None, attach: bool | int | None) -> m.NewSession:
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
    quota_bytes = None if quota is None else config.parse_bytes(quota)
    if quota_bytes is not None and quota_bytes <= 0:
        raise InvalidArgument(f"a quota of {quota!r}", hint="give bytes, at least 1, or None for no limit")
    if isinstance(name, int):
        if name is True or name < 1:
            raise InvalidArgument(f"there is no session {name}", hint="sessions are numbered from 1")
        return m.NewSession(number=name, quota_bytes=quota_bytes, attach=bool(attach))
    if name is not None:
        check_name(name)
    return m.NewSession(name=name, quota_bytes=quota_bytes, attach=bool(attach))
