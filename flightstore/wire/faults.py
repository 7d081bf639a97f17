"""Errors of the store as data: what crosses the wire is the class, the message, the hint and the numbers,
never a traceback.
"""

from __future__ import annotations

from typing import Any

import msgspec

from flightstore import errors
from flightstore.errors import FlightStoreError

__all__ = ["Fault", "error_of", "fault_of", "named_error"]


class Fault(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One error."""

    error: str
    """Name of the class in ``flightstore.errors``; ``InternalError`` for what is none of them."""
    message: str
    hint: str = ""
    attributes: dict[str, Any] = {}
    """The numbers that the error carries."""


def fault_of(error: BaseException) -> Fault:
    """An error as data. What is not one of ours is reported by its class alone: its text may say what is
    nobody's business.
    """
    if not isinstance(error, FlightStoreError):
        return Fault(error="InternalError", message=f"the gateway failed with {type(error).__name__}")
    attributes = {
        name: value
        for name, value in vars(error).items()
        if not name.startswith("_") and name not in ("hint", "message") and _plain(value)
    }
    return Fault(error=type(error).__name__, message=error.message, hint=error.hint, attributes=attributes)


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool | None)


def named_error(name: str) -> type[FlightStoreError]:
    """The class of that name, or FlightStoreError itself."""
    found = getattr(errors, name, None)
    if isinstance(found, type) and issubclass(found, FlightStoreError):
        return found
    return FlightStoreError


def error_of(fault: Fault) -> FlightStoreError:
    """The error again, in another process."""
    error = named_error(fault.error)(fault.message, hint=fault.hint)
    for name, value in fault.attributes.items():
        if name.isidentifier() and not name.startswith("_"):
            setattr(error, name, value)
    return error
