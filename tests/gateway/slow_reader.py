"""Reads an object over HTTP slowly: ``slow_reader.py HOST PORT PATH RECEIVE_BYTES HONEST``.

Waits for a line on standard input before it connects. Prints ``headers`` once it has the answer's headers,
waits for another line, reads the body, and prints the payload's length, its checksum, and the status of the
acknowledgement if the answer wants one. One that is not honest (0) acknowledges before it has read anything.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import sys


def acknowledge(connection: http.client.HTTPConnection, token: str | None) -> int:
    if token is None:
        return 0
    connection.request("POST", f"/acknowledgements/{token}")
    return connection.getresponse().status


def main(host: str, port: str, path: str, receive_bytes: str, honest: str) -> None:
    sys.stdin.readline()
    connection = http.client.HTTPConnection(host, int(port), timeout=120)
    connection.sock = socket.socket()
    if int(receive_bytes):
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(receive_bytes))
    connection.sock.settimeout(120)
    connection.sock.connect((host, int(port)))
    connection.request("GET", path)
    response = connection.getresponse()
    token = response.headers.get("x-flightstore-acknowledge")
    if not int(honest):
        acknowledge(http.client.HTTPConnection(host, int(port), timeout=120), token)
    print("headers", response.status, flush=True)
    sys.stdin.readline()
    if path.startswith("/frames"):
        response.read(int.from_bytes(response.read(8)[4:], "little"))
    checksum, total = hashlib.blake2b(), 0
    view = memoryview(bytearray(1 << 20))
    while received := response.readinto(view):
        checksum.update(view[:received])
        total += received
    print(total, checksum.hexdigest(), acknowledge(connection, token), flush=True)


main(*sys.argv[1:])
