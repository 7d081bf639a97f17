"""Arrow IPC files as objects, where they are: nothing is read but the schema and where the batches lie."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flightstore.connectors.sources.units import unreadable
from flightstore.errors import InvalidArgument

if TYPE_CHECKING:
    from flightstore import Store
    from flightstore.objects.table import Table

__all__ = ["adopt"]

_MAGIC = b"ARROW1"
_ENOUGH_BYTES = 64 << 10


def adopt(
    path: str | os.PathLike[str],
    *,
    store: Store | None = None,
    name: str | None = None,
    metadata: Any = None,
    timeout: float | None = 0,
) -> Table:
    """Make an uncompressed Arrow IPC file (or stream) on this machine an object, without reading it.

    Whoever gets the object maps the file, which takes no room in the store. The object is borrowed
    (``obj.borrowed``): it is as good as the file, which must stay as it is, where it is. One that was changed
    or removed since is noticed by a get, which raises ObjectLost naming it. ``obj.persist()`` copies it into
    the store.

    Args:
        path: The file.
        store: Where to; a store on this machine; None for the default one.
        name: The object's name.
        metadata: As for `Store.put`.
        timeout: Seconds to wait for room for what cannot be borrowed: columns whose buffers lie outside of
            the file, which in an uncompressed file are empty ones.

    Raises:
        FileNotFoundError: there is no such file.
        FileUnreadable: it is no Arrow IPC file, or a compressed one: use `read`.
        NotBorrowable: there is nothing in it that could be borrowed.
        InvalidArgument: the store is behind a gateway.
    """
    if store is None:
        from flightstore import connect

        store = connect()
    if not hasattr(store, "put_borrowed"):
        raise InvalidArgument(
            "only a store on this machine can refer to files", hint="sources.read(path) copies it"
        )
    from flightstore import Loan

    full = os.path.realpath(os.fspath(path))
    shown = str(os.fspath(path))
    if os.path.getsize(full) == 0:
        raise unreadable(shown, "arrow", "it is empty")
    mapping = pa.memory_map(full)
    table = _opened(mapping, shown)
    whole = _whole(mapping)
    loan = Loan(full, 0, whole.size, whole.address)
    object_id = store.put_borrowed(table, loan, name, metadata=metadata, timeout=timeout)
    return store.get(object_id)  # type: ignore[return-value]


def _whole(mapping: Any) -> pa.Buffer:
    mapping.seek(0)
    return mapping.read_buffer()


def _opened(mapping: Any, shown: str) -> pa.Table:
    is_file = mapping.read(len(_MAGIC)) == _MAGIC
    mapping.seek(0)
    allocated = pa.total_allocated_bytes()
    try:
        reader = pa.ipc.open_file(mapping) if is_file else pa.ipc.open_stream(mapping)
        batches = []
        for batch in (reader.get_batch(at) for at in range(reader.num_record_batches)) if is_file else reader:
            batches.append(batch)
            # What Arrow has to unpack it allocates: one batch tells.
            if pa.total_allocated_bytes() - allocated > max(batch.nbytes // 2, _ENOUGH_BYTES):
                raise unreadable(
                    shown, "arrow", "it is compressed, and cannot be used where it is; use read()"
                )
        return pa.Table.from_batches(batches, reader.schema)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise unreadable(shown, "arrow", f"{error}; use read() for other formats") from error
