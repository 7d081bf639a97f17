"""Stores that offer a part of the contract."""

from __future__ import annotations

import abc
from typing import Any, TypeVar

from flightstore.errors import NotOffered

__all__ = ["partial_store"]

T = TypeVar("T", bound=type)


def partial_store(cls: T) -> T:
    """Class decorator for stores that do not offer everything: what the class does not define raises
    NotOffered, instead of keeping it from being instantiated.

    So a store also survives a version of flightstore whose contract has more than it knew of. Tell the suite
    (`flightstore.testing.stores`) what the store does offer.
    """
    for name in cls.__abstractmethods__:  # type: ignore[attr-defined]
        setattr(cls, name, _refusal(name, getattr(cls, name)))
    abc.update_abstractmethods(cls)
    return cls


def _refusal(name: str, promised: Any) -> Any:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotOffered(f"{type(self).__name__} does not offer {name}")

    refuse.__name__ = name
    refuse.__doc__ = promised.__doc__
    return property(refuse) if isinstance(promised, property) else refuse
