"""Blobs: raw bytes. May call objects.base.

A blob made in place has an empty layout; one that was put records the element format of the buffer it came
from, where that is not plain bytes, so that the value compares equal to what was put.
"""

from __future__ import annotations

from typing import Any

import msgspec

from flightstore.errors import NotStorable
from flightstore.objects.base import KIND_BLOB, Object, Payload

__all__ = ["Blob", "decode_layout", "encode_blob", "encode_bytes", "encode_exposed", "shaped"]

FORMAT_VERSION = 1


class BlobLayout(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A stored format: never reorder or remove a field, append with a default."""

    version: int
    """FORMAT_VERSION of the writer."""
    format: str = "B"
    """Element format, as in the struct module; one native character."""
    shape: tuple[int, ...] = ()
    """Shape in elements; used where `format` is not ``B`` or there are several dimensions."""


_encode_layout = msgspec.msgpack.Encoder().encode
decode_layout = msgspec.msgpack.Decoder(BlobLayout).decode
_PLAIN = b""


def encode_bytes(value: bytes) -> Payload:
    """Payload of plain bytes."""
    return Payload(KIND_BLOB, _PLAIN, len(value), ((0, value),))


def encode_blob(value: Any) -> Payload:
    """Payload of anything that has the buffer protocol; it cannot be resized while the payload lives.

    Raises:
        NotStorable: its memory is not contiguous, or its elements have no simple format.
    """
    view = memoryview(value)
    if not view.c_contiguous:
        raise NotStorable(
            f"a {type(value).__name__} that is not C-contiguous cannot be stored as bytes",
            hint="store bytes(value) or np.asarray(value)",
        )
    if view.ndim == 1 and view.format == "B":
        return Payload(KIND_BLOB, _PLAIN, view.nbytes, ((0, view),), keepalive=value)
    layout = BlobLayout(FORMAT_VERSION, view.format, view.shape or ())
    try:
        shaped(memoryview(bytes(view.itemsize)), layout, sample=True)
    except (ValueError, TypeError) as error:
        raise NotStorable(
            f"a {type(value).__name__} of element format {view.format!r} cannot be stored as bytes",
            hint="store np.asarray(value)",
        ) from error
    return Payload(KIND_BLOB, _encode_layout(layout), view.nbytes, ((0, view),), keepalive=value)


def encode_exposed(value: Any) -> Payload:
    """Payload of the bytes that `value` exposes, whatever elements it says they are; they come back as bytes.

    Raises:
        TypeError: it exposes none.
        NotStorable: they are not contiguous.
    """
    import pyarrow as pa

    if not memoryview(value).c_contiguous:
        raise NotStorable(f"a {type(value).__name__} that is not C-contiguous cannot be stored as bytes")
    buffer = pa.py_buffer(value)
    return Payload(KIND_BLOB, _PLAIN, buffer.size, ((0, buffer),), keepalive=value)


def shaped(raw: memoryview, layout: BlobLayout, *, sample: bool = False) -> memoryview:
    """`raw` bytes in the format and shape of `layout`; an empty one keeps its format only."""
    raw = raw.cast("B")
    if sample or 0 in layout.shape:
        return raw.cast(layout.format)  # type: ignore[call-overload, no-any-return]
    return raw.cast(layout.format, layout.shape)  # type: ignore[call-overload, no-any-return]


class Blob(Object):
    """Raw bytes in the store."""

    __slots__ = ()
    kind = "blob"

    def view(self) -> memoryview:
        """The bytes, read-only, in the store's memory; valid as long as the view lives.

        The view compares equal to what was put (an empty one of several dimensions has one).
        """
        handle = self._live
        record = handle.record
        raw = memoryview(handle.payload)
        if len(raw) != record.nbytes:
            raw = raw[: record.nbytes]
        if not record.layout:
            return raw if raw.format == "B" else raw.cast("B")
        return shaped(raw, decode_layout(record.layout))

    _value = view

    def to_bytes(self) -> bytes:
        """A copy of the bytes."""
        return self.view().tobytes()

    def __bytes__(self) -> bytes:
        return self.to_bytes()

    def __len__(self) -> int:
        return self._live.record.nbytes
