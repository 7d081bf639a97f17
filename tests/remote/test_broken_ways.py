"""Answers that break off, or stall, on their way: what is asked again, what is not, and what comes after."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import flightstore as fs

from .host import Host

VALUE = np.arange(1_000_000)


class Proxy:
    """Passes everything on, until it is told to break one answer off."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._left: int | None = None
        self._stalls = False
        self.broken = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def break_answer(self, after_bytes: int, *, stall: bool = False) -> None:
        """Let so many bytes of the next answer through, then close the connection, or let it hang."""
        self.broken.clear()
        self._stalls = stall
        self._left = after_bytes

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            for pump in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._pump, args=pump)
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        breaking = False
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers and self._left is not None:
                    breaking = True
                    data, self._left = data[: self._left], max(self._left - len(data), 0)
                    target.sendall(data)
                    if self._left == 0:
                        self._left = None
                        self.broken.set()
                        if self._stalls:
                            return
                        break
                else:
                    target.sendall(data)
        if breaking and self._left is not None:  # whoever asked has gone before so much came
            self._left = None
            self.broken.set()
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in [self._listener, *self._sockets]:
            one.close()


@pytest.fixture
def way(host: Host) -> Iterator[tuple[Proxy, fs.Store, fs.Store]]:
    """A proxy, a handle through it, and one on the memory."""
    url = host.make(64 << 20)
    proxy = Proxy(int(url.rpartition(":")[2]))
    with fs.connect(proxy.url, map=False) as store, fs.connect(url) as here:
        here.put(VALUE, "a")
        yield proxy, store, here
    proxy.close()
    host.end(url)


def same(obj: Any) -> bool:
    return bool((obj.value() == VALUE).all())


@pytest.mark.parametrize("after", [1, 100, 2000, 3_000_000])
def test_a_get_that_breaks_off_is_made_again(way: Any, after: int) -> None:
    proxy, store, _ = way
    proxy.break_answer(after)
    assert same(store.get("a"))
    assert proxy.broken.is_set()
    assert proxy.connections == 2, "the broken connection is not used again"
    assert same(store.get("a"))
    assert proxy.connections == 2


@pytest.mark.parametrize("after", [100, 3_000_000])
def test_a_get_that_stalls(way: Any, after: int) -> None:
    """Is given up in time, and nothing that was left of it is taken for the next answer."""
    proxy, store, _ = way
    proxy.break_answer(after, stall=True)
    timeouts = store._shared.transport._timeouts
    patience, timeouts.request_s = timeouts.request_s, 1
    with pytest.raises(fs.GatewayUnreachable, match="in time"):
        store.get("a")
    timeouts.request_s = patience
    assert proxy.broken.wait(60), "the answer that stalls is this one, also when it comes too late"
    assert same(store.get("a"))
    assert store.stat("a").nbytes == VALUE.nbytes


@pytest.mark.parametrize("value", [b"small", bytes(1 << 20)], ids=len)
def test_a_put_whose_answer_is_lost(way: Any, value: bytes) -> None:
    """Was made once; its id, which nobody else knows, tells so."""
    proxy, store, here = way
    with here.subscribe() as followed:
        proxy.break_answer(1)
        object_id = store.put(value, "b")
        assert proxy.broken.is_set()
        assert here.stat("b").id == object_id
        assert [event.id for event in iter(followed.poll, None)] == [object_id]
        proxy.break_answer(1)
        with pytest.raises(fs.GatewayUnreachable, match="not known"):
            store.put(value, "c", object_id=fs.ObjectID(b"somebody's"))
        assert [event.name for event in iter(followed.poll, None)] == ["c"]


def test_a_delete_whose_answer_is_lost(way: Any) -> None:
    """Is not repeated: somebody may have put the name anew."""
    proxy, store, here = way
    proxy.break_answer(1)
    with pytest.raises(fs.GatewayUnreachable, match="not known"):
        store.delete("a")
    assert "a" not in here
    assert store.delete("a") == 0


class Interrupted(Exception):
    """What the alarm raises."""


def test_a_get_that_is_interrupted(way: Any) -> None:
    """Leaves no half-read connection behind."""
    proxy, store, _ = way

    def interrupt(*_: object) -> None:
        raise Interrupted

    proxy.break_answer(3_000_000, stall=True)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        watcher = threading.Thread(
            target=lambda: (proxy.broken.wait(60), signal.pthread_kill(main, signal.SIGALRM))
        )
        main = threading.get_ident()
        watcher.start()
        with pytest.raises(Interrupted):
            store.get("a")
        watcher.join()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert same(store.get("a"))
    assert proxy.connections == 2
