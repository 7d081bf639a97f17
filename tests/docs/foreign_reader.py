"""Reads a table out of a store by docs/format.md alone, importing nothing of flightstore.

    foreign_reader.py STORE NAME

It holds a lease the way the page tells, writes what it read to standard output as one JSON line (the Arrow
stream in base64, its process, the buffers' alignment), and goes on holding until standard input ends.
"""

from __future__ import annotations

import base64
import ctypes
import fcntl
import hashlib
import json
import mmap
import os
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import lmdb
import msgspec
import pyarrow as pa

Found = tuple[bytes, bytes]  # object key, record


def read_identity(control: mmap.mmap) -> dict[str, int]:
    """Step 1 of connecting: the checked identity."""
    assert len(control) == 270336
    magic, version, nbytes = struct.unpack_from("<8sII", control, 0)
    assert (magic, version, nbytes) == (b"FLTSTORE", 2, 80)
    assert struct.unpack_from("<I", control, 80)[0] == zlib.crc32(control[:80])
    assert struct.unpack_from("<Q", control, 2048)[0] == 0, "destroyed"
    names = ("capacity_bytes", "arena_bytes", "catalog_bytes", "pid_namespace")
    identity = dict(zip(names, struct.unpack_from("<4Q", control, 16), strict=True))
    assert identity["pid_namespace"] == os.stat("/proc/self/ns/pid").st_ino
    return identity


def register_membarrier() -> None:
    """Step 3 of connecting."""
    number = {"x86_64": 324, "aarch64": 283}[os.uname().machine]
    assert ctypes.CDLL(None).syscall(number, 4, 0, 0) == 0  # MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED


def make_client_file(store: Path) -> tuple[Path, memoryview]:
    """Step 4 of connecting: the published file, and its 8-byte words."""
    client = int.from_bytes(os.urandom(8), "little") >> 1 or 1
    unpublished, published = store / "new" / f"{client:016x}", store / "clients" / f"{client:016x}"
    descriptor = os.open(unpublished, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # held as long as this process lives: never closed
    os.ftruncate(descriptor, 4096 + 134217728)
    os.posix_fallocate(descriptor, 0, 8192)
    words = mmap.mmap(descriptor, 4096 + 134217728)
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[22 - 3])
    words[:40] = struct.pack("<8sIIQQQ", b"FSCLIENT", 1, 0, start, client, time.time_ns())
    words[12:16] = struct.pack("<I", os.getpid())
    unpublished.rename(published)
    return published, memoryview(words).cast("Q")


def name_key(name: str) -> bytes:
    """The key of a name in session 0."""
    encoded = name.encode()
    if len(encoded) > 480:
        encoded = encoded[:400] + b"\0" + hashlib.blake2b(encoded, digest_size=32).digest()
    return b"N" + bytes(4) + encoded


def look_up(catalog: lmdb.Environment, name: str) -> Found | None:
    """Step 1 of getting."""
    with catalog.begin() as txn:
        object_id = txn.get(name_key(name))
        if object_id is None:
            return None
        key = b"O" + bytes(4) + object_id
        record = txn.get(key)
    return None if record is None else (key, record)


def get(catalog: lmdb.Environment, words: memoryview, name: str) -> list[Any]:
    """A leased object's record: steps 1 to 4 of getting, with the first entry."""
    while True:
        found = look_up(catalog, name)
        assert found is not None, "no such object"
        key, raw = found
        record: list[Any] = msgspec.msgpack.decode(raw)
        if record[10] & 1:  # probing
            time.sleep(0.001)
            continue
        words[8] = 1
        words[512] = record[0]
        with catalog.begin() as txn:
            if txn.get(key) == raw:
                return record
        words[512] = 0


def lists_of(catalog: lmdb.Environment, record: list[Any]) -> tuple[list[Any], list[Any]]:
    """All extents and members of an object, of a folded one too."""
    if not record[19]:
        return list(record[2]), list(record[16])
    with catalog.begin() as txn:
        serial = record[0].to_bytes(8, "big")
        raw = [txn.get(b"L" + serial + number.to_bytes(2, "big")) for number in range(record[19])]
    parts = [msgspec.msgpack.decode(part or b"") for part in raw]
    return [extent for part in parts for extent in part[0]], [member for part in parts for member in part[1]]


Layouts = list[tuple[list[Any], pa.Buffer]]  # each stream's layout, and its bytes


def read_table(record: list[Any], payloads: list[pa.Buffer]) -> tuple[pa.Table, Layouts]:
    """The table in its extents."""
    layout = msgspec.msgpack.decode(record[3])
    if record[1] == 1:
        return pa.ipc.open_stream(payloads[0].slice(0, layout[3])).read_all(), [(layout, payloads[0])]
    assert record[1] == 5, "not a table"
    if layout[6] is not None:
        layout = msgspec.msgpack.decode(payloads[0].slice(*layout[6]))
    places = [payloads[0], *payloads[len(payloads) - layout[3] :]]
    layouts = [(segment[2], places[segment[0]].slice(segment[1], segment[2][3])) for segment in layout[1]]
    tables = [pa.ipc.open_stream(stream).read_all() for _, stream in layouts]
    columns, fields = [], []
    for count, pieces in layout[2]:
        for index in range(count):
            parts = [tables[number].column(at + index) for number, at in pieces]
            columns.append(
                pa.chunked_array([chunk for part in parts for chunk in part.chunks], parts[0].type)
            )
            fields.append(tables[pieces[0][0]].schema.field(pieces[0][1] + index))
    schema = pa.schema(fields, tables[layout[2][0][1][0][0]].schema.metadata)
    if layout[4] is not None:
        schema = pa.ipc.read_schema(payloads[0].slice(*layout[4]))
    return pa.Table.from_arrays(columns, schema=schema), layouts


def main() -> None:
    """Read one table, tell of it, and hold it."""
    store, name = Path(sys.argv[1]), sys.argv[2]
    with (store / "control").open("r+b") as file:
        control = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    identity = read_identity(control)
    with (store / "arena").open("rb") as file:
        arena = mmap.mmap(file.fileno(), identity["arena_bytes"], prot=mmap.PROT_READ)
    catalog = lmdb.open(
        str(store / "catalog"),
        map_size=identity["catalog_bytes"],
        max_readers=4096,
        readonly=True,
        readahead=False,
    )
    with catalog.begin() as txn:
        assert txn.get(b"F") == b"\0\0\0\1"
        counters = msgspec.msgpack.decode(txn.get(b"M") or b"")
    assert struct.unpack_from("<5Q", control, 1024) == (*counters[1:6],)
    register_membarrier()
    client_file, words = make_client_file(store)
    record = get(catalog, words, name)
    extents, members = lists_of(catalog, record)
    assert all(file_number == 0 for file_number, _, _ in extents)
    payloads = [pa.py_buffer(memoryview(arena)[offset : offset + length]) for _, offset, length in extents]
    table, layouts = read_table(record, payloads)
    addresses = [
        buffer.address
        for column in table.columns
        for chunk in column.chunks
        for buffer in chunk.buffers()
        if buffer is not None and buffer.size
    ]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    report = {
        "pid": os.getpid(),
        "stream": base64.b64encode(sink.getvalue()).decode(),
        "in_place": all(
            any(payload.address <= at < payload.address + payload.size for payload in payloads)
            for at in addresses
        ),
        "aligned": all(at % 64 == 0 for at in addresses),
        "fingerprint_matches": all(
            hashlib.blake2b(stream.slice(0, layout[2]), digest_size=16).digest() == layout[1]
            for layout, stream in layouts
        ),
        "listed_rows": [[entry[2] for entry in layout[5]] for layout, _ in layouts],
        "members": len(members),
        "num_rows": record[6],
        "names": record[4],
    }
    print(json.dumps(report), flush=True)
    sys.stdin.read()
    words[512] = 0
    client_file.unlink()


if __name__ == "__main__":
    main()
