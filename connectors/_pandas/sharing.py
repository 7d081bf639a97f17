"""Frames that can be modified although their memory cannot.

pandas copies what is touched of a block when it believes that another object uses the block's memory too.
The memory of a stored object is such memory, always: so each block that lies in it is told of a user that
never goes away. Slices, columns and shallow copies of the frame take that along, as they take any other user
along. A copy has its own memory, and forgets it.

The books about users are private to pandas. Where they are not as expected, a shallow copy is kept for as
long as the frame lives: then it is the frame itself that can be modified, not everything made of it. May
call nothing else.
"""

from __future__ import annotations

import weakref
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["protect", "protect_index", "remembers_users"]


class _Nobody:
    """A user of memory that never goes away."""


_NOBODY = _Nobody()


@cache
def remembers_users() -> bool:
    """Whether pandas keeps its books about the users of a block where this module writes into them."""
    values = np.arange(2)
    values.flags.writeable = False
    frame = pd.DataFrame({"a": values}, copy=False)
    try:
        _add_user(frame)
        made = frame.assign(b=1)
        del frame
        made.loc[0, "a"] = 5
    except (AttributeError, TypeError, ValueError):
        return False
    return bool(made["a"].tolist() == [5, 1])


def _add_user(value: Any) -> None:
    for block in value._mgr.blocks:
        values = block.values
        if not (isinstance(values, np.ndarray) and values.flags.writeable):
            block.refs.add_index_reference(_NOBODY)


def _ignore(kept: Any) -> None:
    """What a finalizer calls whose only purpose is to hold its argument."""


def protect(value: Any) -> Any:
    """The frame or series, which pandas now copies from, where its memory is not the caller's own to
    change.
    """
    if remembers_users():
        _add_user(value)
    else:
        weakref.finalize(value, _ignore, value.copy(deep=False)).atexit = False
    return value


def protect_index(index: pd.Index) -> pd.Index:
    """The index, such that columns made of it are copied from, too."""
    references = getattr(index, "_references", None)
    if references is not None and remembers_users():
        references.add_index_reference(_NOBODY)
    return index
