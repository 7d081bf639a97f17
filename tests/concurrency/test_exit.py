"""The end of the interpreter, with everything still open: status 0, nothing on stderr, a sound store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import flightstore

pytestmark = pytest.mark.req("API-1", "FAIL-2")

BEGIN = """
import asyncio, atexit, gc, sys, threading
import numpy as np
import flightstore
store = flightstore.connect({path!r}, capacity="16MiB")
store.put(np.arange(1000), "array")
store.put(b"x" * 1000, "bytes")
"""

ENDS = {
    "nothing held": "",
    "view in a global": "view = store.get('array').value()[1:]",
    "object in a global": "obj = store.get('bytes'); view = obj.value()",
    "closed, view alive": "view = store.get('array').value(); store.close()",
    "builder": "builder = store.create(5000, 'built'); builder.buffer[:3] = b'abc'",
    "builder's view": "view = store.create(5000, 'built').buffer",
    "reference cycles": """
class Node: pass
node = Node(); node.me = node; node.store = store; node.obj = store.get('array')
node.view = node.obj.value(); node.builder = store.create(100)
del store, node
""",
    "cycle collected in a transaction": """
class Node: pass
builder = store.create(100, 'built')
node = Node(); node.me = node; node.store = store; conn = store._conn
del store, node
conn.write(lambda tx: gc.collect())
builder.seal()
""",
    "busy daemon threads": """
ready = threading.Barrier(4)
def busy(number):
    ready.wait()
    while True:
        store.put(bytes(100), f"busy/{number}")
        assert len(store.get(f"busy/{number}").value()) == 100
for number in range(3):
    threading.Thread(target=busy, args=(number,), daemon=True).start()
ready.wait()
for _ in range(20):
    store.put(b"", "main")
""",
    "daemon thread waits in get": """
started = threading.Event()
def wait():
    started.set()
    store.get("never", timeout=None)
threading.Thread(target=wait, daemon=True).start()
started.wait()
""",
    "daemon thread in a large put": """
started = threading.Event()
def put():
    started.set()
    while True:
        store.put(bytes(6 << 20), "large")
threading.Thread(target=put, daemon=True).start()
started.wait()
""",
    "used by a later exit handler": """
def late():
    assert len(store.get("bytes").value()) == 1000
    store.put(b"late", "late")
atexit._clear()
atexit.register(late)
from flightstore.lifecycle import registry
atexit.register(registry._at_exit)
""",
    "asyncio wait abandoned": """
async def main():
    asyncio.create_task(store.get_async("never"))
    await asyncio.sleep(0)
asyncio.run(main())
""",
    "sys.exit in a with block": """
with store:
    view = store.get('array').value()
    sys.exit(0)
""",
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_the_interpreter_exits_cleanly(store_dir: Path, end: str) -> None:
    source = BEGIN.format(path=str(store_dir)) + end
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with flightstore.connect(store_dir, create=False) as store:
        store.recover()
        assert store.fsck() == []
        stats = store.stats()
        assert (stats.pending, stats.dying, stats.leases, stats.clients) == (0, 0, 0, 1)
        assert len(store.get("array").value()) == 1000
