"""The contract of a store: sessions, that is ids and names of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from flightstore.types import SessionInfo

if TYPE_CHECKING:
    from flightstore.abc import AbstractSession

__all__ = ["AbstractSessions"]


class AbstractSessions(ABC):
    """What a store offers for keeping its users' objects apart."""

    @abstractmethod
    def session(
        self,
        name: str | int | None = None,
        *,
        quota: int | str | None = None,
        ephemeral: bool = False,
        attach: bool | int | None = None,
    ) -> AbstractSession:
        """A store of its own ids and names: equal ones in two sessions are two objects.

        Without a name a new session is begun. With one, the active session of that name is joined as long as
        its owner lives; otherwise a new one is begun, in which nothing of the earlier is seen, and the name
        leads to it from then on. The earlier one stays, unless it was ephemeral, and can be attached to.

        The *owner* is the process that began a session, or attached to it last, as long as it is connected.
        Those who join are not owners, nor are forked children.

        Sessions do not nest: asked for through a session, another one of the store is meant.

        Args:
            name: Like an object's name; or the number of a session that is there, to join it whoever owns it.
            quota: Most memory that the session may take: bytes, or text such as ``"2GiB"``. Objects count
                from create until their memory is free again. None for no limit, or for that of the session
                that is joined.
            ephemeral: The session is over as soon as its owner is gone (killed, exited), or closes this
                handle. Otherwise it stays until it is ended.
            attach: True to become the owner of the latest session of that name or number, whether its owner
                lives or not; or the number itself.

        Returns:
            A store. Closing it closes this handle only, but for the owner's handle of an ephemeral session.

        Raises:
            SessionNotFound: the session to attach to, or of that number, is over or never was.
            InvalidArgument: the session that is there has another quota, or is not ephemeral.
            CatalogFull, StoreBusy: as :meth:`put`.
        """

    @abstractmethod
    def sessions(self) -> list[SessionInfo]:
        """All sessions of the store, by number. The store's own objects are in none of them."""
