"""Optional libraries: import one when it is asked for, or say which extra to install."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from flightstore.errors import MissingExtra

__all__ = ["require"]


def require(library: str, purpose: str) -> Any:
    """The module `library`, imported.

    Raises:
        MissingExtra: it is not installed; `purpose` says what wanted it.
    """
    try:
        return import_module(library)
    except ImportError as error:
        raise MissingExtra(
            f"{purpose} needs {library}, which cannot be imported: {error}",
            hint=f"pip install 'flightstore[{library}]'",
        ) from error
