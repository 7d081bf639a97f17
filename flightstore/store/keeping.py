"""The part of the facade that decides what stays in memory."""

from __future__ import annotations

from collections.abc import Iterable

from flightstore.abc.keeping import AbstractKeeping
from flightstore.errors import InvalidArgument
from flightstore.lifecycle import eviction, pinning, reading, recovery, spilling
from flightstore.lifecycle.choosing import Policy, policy_named
from flightstore.lifecycle.pressure import policy_of
from flightstore.store.attached import Attached, listed
from flightstore.types import Ref

__all__ = ["Keeping"]


class Keeping(Attached, AbstractKeeping):
    """pin, unpin, free, evict, spill."""

    def pin(self, refs: Ref | Iterable[Ref]) -> int:
        return pinning.pin(self._conn, self._session, listed(refs))

    def unpin(self, refs: Ref | Iterable[Ref]) -> int:
        return pinning.unpin(self._conn, self._session, listed(refs))

    def free(self, refs: Ref | Iterable[Ref]) -> int:
        return pinning.free(self._conn, self._session, listed(refs))

    def evict(self, nbytes: int | None = None, *, recursive: bool = False) -> int:
        conn = self._conn
        if nbytes is not None and nbytes < 0:
            raise InvalidArgument(f"{nbytes} is not a number of bytes")
        recovery.recover(conn, thorough=False)  # the dead hold nothing
        return eviction.evict(
            conn, nbytes, policy_of(conn, self._session), session=self._session, recursive=recursive
        )

    def spill(self, refs: Ref | Iterable[Ref] | None = None) -> int:
        conn, session = self._conn, self._session
        if spilling.spill_url(conn) is None:
            raise InvalidArgument(
                f"no spill storage is configured for {conn.path}",
                hint="connect(..., spill='/a/directory/on/disk'), or flightstore spill --to URL",
            )
        policy = policy_of(conn, session)
        if refs is None:
            return spilling.spill(conn, None, policy, session=session)
        found = [reading.lookup(conn, session, ref) for ref in listed(refs)]
        serials = [known[1].serial for known in found if known is not None]
        return spilling.spill(conn, None, policy, only=serials) if serials else 0

    @property
    def spill_url(self) -> str | None:
        """URL of the storage that objects are spilled to; None while spilling is off."""
        return spilling.spill_url(self._conn)

    def set_spill(self, url: str | None) -> None:
        """Set where objects are spilled to, for all clients of the store; None turns spilling off.

        What is spilled already stays where it is, and is found there.

        Args:
            url: A directory (a path or ``file://``), or a URL of S3 and others: see the how-to page.

        Raises:
            InvalidArgument: it is no storage, or lies on the memory file system of the store.
            MissingExtra: it needs a library that is not installed.
        """
        spilling.set_spill_url(self._conn, url)

    def set_policy(self, policy: str | Policy) -> None:
        """Set in which order this process evicts and spills for this store (or session).

        Args:
            policy: ``"marked-first"`` (the default: what :meth:`free` marked, then the least recently used),
                ``"lru"``, or a function from a sequence of EvictionCandidates to those of them that may go,
                in that order.

        Raises:
            InvalidArgument: there is no policy of that name.
        """
        self._conn.policies[self._session] = policy_named(policy)
