"""Extension types as a third party would bring them. Calls nothing else of ours.

Importing this registers `LabelledType` with Arrow, once per process. `UnregisteredType` never is: whoever
reads it from a stream finds its storage, and its name in the field's metadata.
"""

from __future__ import annotations

import contextlib
from typing import Self

import pyarrow as pa

__all__ = ["LabelledType", "UnregisteredType", "label"]


class _Parametric(pa.ExtensionType):  # type: ignore[misc]
    """A label beside any storage."""

    NAME = ""

    def __init__(self, storage_type: pa.DataType, label: str = "") -> None:
        self.label = label
        super().__init__(storage_type, self.NAME)

    def __arrow_ext_serialize__(self) -> bytes:
        return self.label.encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Self:
        return cls(storage_type, serialized.decode())

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.storage_type, self.label)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, type(self)):
            return NotImplemented
        return self.label == other.label and bool(self.storage_type == other.storage_type)

    def __hash__(self) -> int:
        return hash((self.label, self.storage_type))


class LabelledType(_Parametric):
    """A registered extension type."""

    NAME = "flightstore.testing.labelled"


class UnregisteredType(_Parametric):
    """An extension type that nobody registered."""

    NAME = "flightstore.testing.unregistered"


def label(storage: pa.Array, text: str = "kg") -> pa.Array:
    """The array as one of the registered type."""
    return pa.ExtensionArray.from_storage(LabelledType(storage.type, text), storage)


with contextlib.suppress(pa.ArrowKeyError):  # another copy of this module did it
    pa.register_extension_type(LabelledType(pa.null()))
