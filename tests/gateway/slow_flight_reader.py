"""Reads a table by Flight slowly: ``slow_flight_reader.py HOST PORT``.

Waits for a line on standard input before it connects. Prints ``begun`` once it has the first batch, waits for
another line, reads the rest, and prints the rows and the checksum of the values.
"""

from __future__ import annotations

import hashlib
import sys

from pyarrow import flight


def main(host: str, port: str) -> None:
    sys.stdin.readline()
    with flight.connect(f"grpc://{host}:{port}") as client:
        reader = client.do_get(flight.Ticket(b"precious"))
        checksum, rows = hashlib.blake2b(), 0
        batch = reader.read_chunk().data
        print("begun", flush=True)
        sys.stdin.readline()
        while batch is not None:
            values = batch.column(0)
            checksum.update(memoryview(values.buffers()[1])[: 8 * len(values)])
            rows += len(values)
            try:
                batch = reader.read_chunk().data
            except StopIteration:
                batch = None
    print(rows, checksum.hexdigest(), flush=True)


main(*sys.argv[1:])
