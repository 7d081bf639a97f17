"""The part of a remote store that decides what stays in memory. `evict` and `spill` need admin rights."""

from __future__ import annotations

from collections.abc import Iterable

from flightstore.abc.keeping import AbstractKeeping
from flightstore.errors import InvalidArgument, NotOffered
from flightstore.remote.attached import Attached
from flightstore.store.attached import listed
from flightstore.types import Ref
from flightstore.wire import messages as m

__all__ = ["Keeping"]


class Keeping(Attached, AbstractKeeping):
    """pin, unpin, free, evict, spill."""

    def pin(self, refs: Ref | Iterable[Ref]) -> int:
        return self._counted("pin", refs)

    def unpin(self, refs: Ref | Iterable[Ref]) -> int:
        return self._counted("unpin", refs)

    def free(self, refs: Ref | Iterable[Ref]) -> int:
        return self._counted("free", refs)

    def _counted(self, action: str, refs: Ref | Iterable[Ref]) -> int:
        return self._act(action, m.Refs(refs=[m.text_of(ref) for ref in listed(refs)]), m.Count).count

    def evict(self, nbytes: int | None = None, *, recursive: bool = False) -> int:
        if nbytes is not None and nbytes < 0:
            raise InvalidArgument(f"{nbytes} is not a number of bytes")
        return self._act("evict", m.Evict(nbytes=nbytes, recursive=recursive), m.Bytes).nbytes

    def spill(self, refs: Ref | Iterable[Ref] | None = None) -> int:
        texts = None if refs is None else [m.text_of(ref) for ref in listed(refs)]
        return self._act("spill", m.Spill(refs=texts), m.Bytes).nbytes

    def set_spill(self, url: str | None) -> None:
        """Not offered: where objects are spilled to is set on the store's own machine.

        Raises:
            NotOffered: always.
        """
        raise self._not_offered("set_spill")

    def set_policy(self, policy: object) -> None:
        """Not offered: evicting and spilling follow the gateway's policy.

        Raises:
            NotOffered: always.
        """
        raise self._not_offered("set_policy")

    def fsck(self) -> list[object]:
        """Not offered: a store is checked on its own machine.

        Raises:
            NotOffered: always.
        """
        raise self._not_offered("fsck")

    def _not_offered(self, what: str) -> NotOffered:
        return NotOffered(
            f"{what} is not offered by the gateway {self.url}",
            hint=f"connect to {self.path}, on the store's own machine",
        )
