"""Which batches are current, in this thread or asyncio task.

One context variable holds the batches that were entered, from the outside inwards, of all stores and
sessions: the current one of a session is the innermost that is its own. The chain is immutable, so tasks that
inherit it do not disturb each other. Leaving takes a batch out wherever it stands, since blocks of generators
and tasks need not end in the order in which they began.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

__all__ = ["Scope", "any_entered", "current", "enter", "forget_all", "leave"]


class Scope(Protocol):
    """What is entered and left."""

    @property
    def home(self) -> tuple[bytes, int]:
        """The store's nonce, and the session."""
        ...

    @property
    def number(self) -> int:
        """Its number in the store."""
        ...


_entered: ContextVar[tuple[Scope, ...]] = ContextVar("flightstore_batches", default=())


def any_entered() -> bool:
    """Whether there is a current batch at all."""
    return bool(_entered.get())


def current(nonce: bytes, session: int) -> Scope | None:
    """The current batch of a session of a store."""
    chain = _entered.get()
    if not chain:
        return None
    home = (nonce, session)
    return next((scope for scope in reversed(chain) if scope.home == home), None)


def enter(scope: Scope) -> None:
    """Make a batch the current one of its session."""
    _entered.set((*_entered.get(), scope))


def forget_all() -> None:
    """Leave all batches of this context, whoever entered them."""
    _entered.set(())


def leave(scope: Scope) -> None:
    """Undo the latest `enter` of a batch; nothing happens in a context that does not know it."""
    chain = _entered.get()
    for at in reversed(range(len(chain))):
        if chain[at] is scope:
            _entered.set(chain[:at] + chain[at + 1 :])
            return
