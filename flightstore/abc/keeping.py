"""What stays in memory, and what may go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from flightstore.types import Ref

__all__ = ["AbstractKeeping"]


class AbstractKeeping(ABC):
    """What a store offers for eviction, spilling and pins.

    *Evicting* drops an object for good. It happens only inside a create (put included) or :meth:`evict`,
    and only to objects that were put with ``evictable=True`` or marked by :meth:`free`, that nobody holds and
    that are not pinned. *Spilling* moves an object's bytes to a file and keeps the object. It happens only
    inside a create, when evicting was not enough, or in :meth:`spill`, and only where a spill storage is
    configured.
    Everything else stays, or the create fails with StoreFull.
    """

    @abstractmethod
    def pin(self, refs: Ref | Iterable[Ref]) -> int:
        """Keep objects in memory: neither evicted nor spilled until they are unpinned as often as pinned.

        A pin belongs to the object, not to a process: it outlives whoever set it. ``delete`` deletes pinned
        objects all the same. One whose name is put anew stays under its id, and goes with its last pin.

        Returns:
            How many were pinned; what does not exist is not counted and not an error.
        """

    @abstractmethod
    def unpin(self, refs: Ref | Iterable[Ref]) -> int:
        """Take one pin off each object that has one; returns how many had."""

    @abstractmethod
    def free(self, refs: Ref | Iterable[Ref]) -> int:
        """Say that objects are not needed any more: they may be evicted, before all others.

        Until then everybody can get them. Returns how many were marked that were not yet.
        """

    @abstractmethod
    def evict(self, nbytes: int | None = None, *, recursive: bool = False) -> int:
        """Drop evictable objects that nobody holds.

        Args:
            nbytes: Stop as soon as so many bytes are free; None drops all that may be dropped.
            recursive: Drop objects, too, that are members of dropped ones and of no others, evictable or not.

        Returns:
            The bytes that really became free: more than `nbytes` when objects are larger, fewer when there is
            no more to drop.
        """

    @abstractmethod
    def spill(self, refs: Ref | Iterable[Ref] | None = None) -> int:
        """Move objects that nobody holds and that are not pinned to the spill storage. They stay what they
        are, and come back when they are got.

        Args:
            refs: Which, with those that share their bytes; None for all.

        Returns:
            The bytes that became free.

        Raises:
            InvalidArgument: no spill storage is configured.
            SpillFailed: it does not take them; nothing is lost.
        """
