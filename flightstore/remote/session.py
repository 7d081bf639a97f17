"""A session behind a gateway, as its users have it."""

from __future__ import annotations

from flightstore.abc import AbstractSession
from flightstore.remote.store import RemoteStore
from flightstore.wire import messages as m

__all__ = ["RemoteSession"]


class RemoteSession(RemoteStore, AbstractSession):
    """A session of a store behind a gateway: its own ids and names. Closing it closes this handle only."""

    @property
    def number(self) -> int:
        return self._session

    @property
    def session_name(self) -> str | None:
        return self._session_known.name if self._session_known is not None else None

    def end(self) -> None:
        self._act("end_session", m.Empty(), m.Done)

    def __repr__(self) -> str:
        shared = self._shared_or_none
        name = f" {self.session_name!r}" if self.session_name else ""
        return f"<RemoteSession {self._session}{name} of {shared.url if shared else 'a closed store'}>"
