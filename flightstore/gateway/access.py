"""Who calls: rights and sessions. The servers find out who it is; the service asks here what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from flightstore.errors import NotAllowed

__all__ = ["ADMIN", "READ", "RIGHTS", "WRITE", "Authenticates", "Caller"]

READ, WRITE, ADMIN = "read", "write", "admin"
RIGHTS = (READ, WRITE, ADMIN)
"""Each includes those before it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A client, as the gateway knows it."""

    name: str
    """For logs: the token's name, the certificate's, or ``local``."""
    rights: str = READ
    """One of RIGHTS."""
    sessions: tuple[str, ...] | None = None
    """Names of the sessions that it may use, the first one being where it is unless it says otherwise. None
    for all of the store, and its own objects first.
    """

    def require(self, right: str, what: str) -> None:
        """Refuse what the caller has no right to.

        Raises:
            NotAllowed: it is so.
        """
        if RIGHTS.index(self.rights) < RIGHTS.index(right):
            raise NotAllowed(
                f"{what} needs the right to {right}, {self.name} may {self.rights}",
                hint="ask for a token with more rights: flightstore tokens",
            )

    def session_for(self, asked: str | None) -> str | None:
        """Name or number (as text) of the session to use; None for the store's own objects.

        Raises:
            NotAllowed: it is none of the caller's.
        """
        if self.sessions is None:
            return asked or None
        if asked is None or asked == "":
            return self.sessions[0]
        if asked not in self.sessions:
            raise NotAllowed(
                f"{self.name} may not use the session {asked!r}",
                hint=f"its sessions are {', '.join(self.sessions)}",
            )
        return asked


class Authenticates(Protocol):
    """What tells the servers who calls; see authentication.py."""

    def caller_of(self, authorization: str | None, *, local: bool, certificate: str | None = None) -> Caller:
        """Who sent this header, or has this certificate.

        Raises:
            NotAuthenticated: nobody that is known.
        """
        ...
