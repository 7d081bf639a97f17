"""Locks of objects that live on in forked children.

A thread that holds a lock at the moment of a fork is not there in the child to release it. Whoever has such
a lock names it here, and has a new one in every child. What the lock protects has to be right after each step
of its holder; what needs more than that is brought to rest before the fork (lifecycle.registry).
"""

from __future__ import annotations

import os
import threading
import weakref

__all__ = ["renewed_in_children"]

_names: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()


def renewed_in_children(owner: object, name: str) -> None:
    """Give `owner` a new lock, as its attribute `name`, in every child that is forked while it lives."""
    _names[owner] = name


def _renew() -> None:
    for owner, name in list(_names.items()):
        setattr(owner, name, threading.Lock())


os.register_at_fork(after_in_child=_renew)
