"""Objects made of somebody else's memory: what is borrowed, who keeps it, and what happens when it goes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import flightstore as fs
from flightstore.testing.children import start, start_spawned
from flightstore.testing.lenders import Lender
from flightstore.testing.types.equality import assert_same

pytestmark = pytest.mark.req("O-5")

ROWS = 50_000


@pytest.fixture
def lender(store_dir: str) -> Iterator[Lender]:
    yield Lender(f"{store_dir}-lender")
    os.unlink(f"{store_dir}-lender")


def table() -> pa.Table:
    strings = pa.array([None if n % 7 == 0 else f"row {n}" for n in range(ROWS)])
    return pa.table({"n": np.arange(ROWS), "s": strings, "d": strings.dictionary_encode()})


def array() -> np.ndarray[Any, Any]:
    return np.arange(3 * ROWS, dtype=np.float32).reshape(3, ROWS)


def frame() -> pd.DataFrame:
    return pd.DataFrame({"a": np.arange(ROWS), "b": np.linspace(0, 1, ROWS), "c": np.arange(ROWS) % 3 == 0})


@pytest.mark.parametrize("make", [table, array, frame])
def test_nothing_is_copied(store: fs.Store, lender: Lender, make: Callable[[], Any]) -> None:
    value = make()
    before = store.stats()
    object_id = store.put_borrowed(lender.moved(value), lender.loan(), "borrowed")
    after = store.stats()
    assert after.used_bytes - before.used_bytes <= 16 << 10
    assert after.spilled_bytes == 0
    (loan,) = store.loans()
    assert loan.path == lender.path
    obj: Any = store.get(object_id)
    assert obj.borrowed
    assert store.stat("borrowed").state == "borrowed"
    assert same(obj.value(), value)
    assert obj.nbytes >= ROWS * 4


def same(one: Any, other: Any) -> bool:
    return bool(one.equals(other)) if hasattr(one, "equals") else bool((one == other).all())


def test_a_process_that_knows_nothing_of_it(store: fs.Store, lender: Lender) -> None:
    store.put_borrowed(lender.moved(table()), lender.loan(), "borrowed")
    with start_spawned(_sum, store.path) as child:
        assert child.result() == (ROWS * (ROWS - 1) // 2, True)


def _sum(path: str) -> tuple[int, bool]:
    with fs.connect(path) as store:
        got: Any = store.get("borrowed")
        return int(np.sum(got.to_arrow()["n"].to_numpy())), got.to_arrow().equals(table())


def test_columns_that_lie_elsewhere_are_copied(store: fs.Store, lender: Lender) -> None:
    mixed = lender.moved(table().select(["n"])).append_column("own", pa.array(range(ROWS)))
    store.put_borrowed(mixed, lender.loan(), "mixed")
    assert store.get("mixed").value().equals(mixed)
    assert ROWS * 8 <= store.stats().used_bytes < ROWS * 8 + 8192
    with pytest.raises(fs.NotBorrowable, match="no column"):
        store.put_borrowed(table(), lender.loan())
    with pytest.raises(fs.NotBorrowable, match="lie elsewhere"):
        store.put_borrowed(array(), lender.loan())
    with pytest.raises(fs.NotBorrowable, match="str"):
        store.put_borrowed("text", lender.loan())
    with pytest.raises(fs.NotBorrowable, match="not one run"):
        store.put_borrowed(lender.moved(array())[:, ::2], lender.loan())
    assert len(store.loans()) == 1


def test_chunks_stay_where_they_are(store: fs.Store, lender: Lender) -> None:
    parts = [lender.moved(table().slice(at, 1000).take(np.arange(1000))) for at in (0, 1000, 3000)]
    chunked = pa.concat_tables(parts)
    store.put_borrowed(chunked, lender.loan(), "chunked")
    got: Any = store.get("chunked")
    assert_same(chunked, got.to_arrow())
    assert got.to_arrow()["n"].num_chunks == 3
    assert store.stats().used_bytes < 64 << 10


def test_tables_made_of_borrowed_ones(store: fs.Store, lender: Lender) -> None:
    store.put_borrowed(lender.moved(table()), lender.loan(), "borrowed")
    before = store.stats().used_bytes
    store.with_columns("borrowed", {"v": np.arange(ROWS)}, "more")
    assert store.stats().used_bytes - before < ROWS * 8 + 8192
    store.select("more", ["s", "v"], "less")
    store.concat(["borrowed", "borrowed"], "twice")
    store.delete(["borrowed", "more"])
    store.recover()
    assert len(store.loans()) == 1
    assert store.get("less").borrowed
    assert store.get("less").to_arrow()["s"].equals(table()["s"])  # type: ignore[attr-defined]
    assert store.get("twice").to_arrow().equals(pa.concat_tables([table(), table()]))  # type: ignore[attr-defined]
    assert store.get("twice").nbytes > 2 * ROWS * 8
    store.delete(["less", "twice"])
    store.recover()
    assert store.loans() == []
    assert store.stats().used_bytes == 0


def test_a_loan_lasts_as_long_as_its_readers(store: fs.Store, lender: Lender) -> None:
    store.put_borrowed(lender.moved(array()), lender.loan(), "borrowed")
    view = store.get("borrowed").value()
    store.delete("borrowed")
    store.recover()
    assert len(store.loans()) == 1
    assert (view == array()).all()
    assert not view.flags.writeable
    del view
    store.recover()
    assert store.loans() == []


@pytest.mark.parametrize("make", [table, array, frame])
def test_persisting(store: fs.Store, lender: Lender, make: Callable[[], Any]) -> None:
    object_id = store.put_borrowed(lender.moved(make()), lender.loan(), "borrowed", metadata={"a": 1})
    if make is not array:
        store.select("borrowed", [str(make().columns[0]) if make is frame else "n"], "member")
    obj = store.get("borrowed")
    obj.persist(timeout=5)
    assert not obj.borrowed
    obj.release()
    store.recover()
    assert store.loans() == []
    lender.reuse()
    obj = store.get("borrowed")
    assert same(obj.value(), make())
    assert same(store.get(object_id).value(), make())
    if make is not array:
        assert not store.get("member").borrowed
        assert len(store.get("member").value()) == ROWS
    assert store.get("borrowed").metadata == {"a": 1}
    assert store.stats().used_bytes >= ROWS * 8
    obj.persist()
    del obj
    store.delete(["borrowed", "member"])
    store.recover()
    assert store.stats().used_bytes == 0


def test_a_loan_outlasts_persisting_until_its_readers_have_let_go(store: fs.Store, lender: Lender) -> None:
    """What was got before is the lender's memory still, and must stay what it is."""
    store.put_borrowed(lender.moved(array()), lender.loan(), "borrowed")
    ours, theirs = Pipe()
    with start(_read_twice, store.path, theirs) as reader:
        assert ours.recv()
        with store.get("borrowed") as obj:
            obj.persist()
        store.recover()
        assert len(store.loans()) == 1
        assert store.stat("borrowed").state == "sealed"
        assert store.fsck() == []
        assert (store.get("borrowed").value() == array()).all()
        ours.send(None)
        assert reader.result()
    store.recover()
    assert store.loans() == []
    assert store.fsck() == []


def _read_twice(path: str, link: Connection) -> bool:
    with fs.connect(path) as store:
        view = store.get("borrowed").value()
        link.send(bool((view == array()).all()))
        link.recv()
        return bool((view == array()).all())


def test_readers_of_what_was_made_of_it_keep_the_loan(store: fs.Store, lender: Lender) -> None:
    store.put_borrowed(lender.moved(table()), lender.loan(), "borrowed")
    store.select("borrowed", ["n"], "part")
    view: Any = store.get("part").value()
    store.get("borrowed").persist()
    store.delete("borrowed")
    store.recover()
    assert len(store.loans()) == 1
    store.delete("part")  # dying, and held
    store.recover()
    assert len(store.loans()) == 1
    assert view["n"].equals(table()["n"])
    del view
    store.recover()
    assert store.loans() == []
    assert store.fsck() == []


def test_persisting_without_room(store: fs.Store, store_dir: str) -> None:
    path = f"{store_dir}-large"
    large = Lender(path, 40 << 20)
    value = large.moved(np.arange(4 << 20))
    store.put_borrowed(value, large.loan(), "large")
    with store.get("large") as obj:
        with pytest.raises(fs.StoreFull):
            obj.persist()
        assert obj.borrowed
        assert (obj.value() == value).all()
    os.unlink(path)


def test_what_was_persisted_can_be_spilled(store: fs.Store, lender: Lender, tmp_path: Path) -> None:
    store.set_spill(str(tmp_path / "spilled"))
    store.put_borrowed(lender.moved(array()), lender.loan(), "borrowed")
    assert store.spill() == 0
    assert store.get("borrowed").borrowed
    store.get("borrowed").persist()
    assert store.spill() >= array().nbytes
    assert store.stat("borrowed").state == "spilled"
    lender.reuse()
    assert (store.get("borrowed").value() == array()).all()
    store.delete("borrowed")
    store.recover()


def test_it_is_not_evicted(store: fs.Store, lender: Lender) -> None:
    store.put_borrowed(lender.moved(array()), lender.loan(), "borrowed")
    store.free("borrowed")
    assert store.evict() == 0
    assert (store.get("borrowed").value() == array()).all()


# --- when the lender goes ---


def test_a_file_that_changed(store: fs.Store, lender: Lender) -> None:
    store.put_borrowed(lender.moved(array()), lender.loan(checked=True), "borrowed")
    held = store.get("borrowed")
    os.utime(lender.path, ns=(0, 0))
    with pytest.raises(fs.ObjectLost, match="changed"):
        store.get("borrowed")
    with pytest.raises(fs.ObjectLost, match="changed"):
        held.persist()
    held.release()
    assert store.delete("borrowed") == 1


def test_a_file_that_is_another(store: fs.Store, store_dir: str) -> None:
    path = f"{store_dir}-replaced"
    lender = Lender(path)
    store.put_borrowed(lender.moved(array()), lender.loan(), "borrowed")
    os.unlink(path)
    with pytest.raises(fs.ObjectLost, match="No such file"):
        store.get("borrowed")
    Lender(path)
    with pytest.raises(fs.ObjectLost, match="changed"):
        store.get("borrowed")
    os.unlink(path)


@pytest.mark.req("FAIL-2")
def test_keepers(store: fs.Store, lender: Lender) -> None:
    """One that lives is enough; without any, nobody gets what may be anything."""
    links = [Pipe() for _ in range(2)]
    keepers = [start(_keep, store.path, theirs) for _, theirs in links]
    ids = [ours.recv() for ours, _ in links]
    store.put_borrowed(lender.moved(array()), lender.loan(ids), "borrowed")
    assert store.loans()[0].keepers == tuple(ids)
    keepers[0].kill()
    assert (store.get("borrowed").value() == array()).all()
    keepers[1].kill()
    with pytest.raises(fs.ObjectLost, match="ended"):
        store.get("borrowed")
    assert store.delete("borrowed") == 1


def _keep(path: str, link: Connection) -> None:
    with fs.connect(path) as store:
        link.send(store.client_id)
        link.recv()


@pytest.mark.req("FAIL-2")
def test_a_file_that_a_process_had_open_goes_with_it(store: fs.Store) -> None:
    """Though a keeper lives: nobody can open the file any more."""
    lender = Lender()
    value = lender.moved(array())
    with start(threading.Event().wait) as holder:
        path = lender.path.replace(f"/{os.getpid()}/", f"/{holder.pid}/")
        store.put_borrowed(value, replace(lender.loan([store.client_id]), path=path), "borrowed")
        assert (store.get("borrowed").value() == array()).all()
    with pytest.raises(fs.ObjectLost, match="No such file"):
        store.get("borrowed")
    assert store.delete("borrowed") == 1


def test_wrong_loans(store: fs.Store, lender: Lender) -> None:
    value = lender.moved(array())
    loan = lender.loan()
    shifted = fs.Loan(loan.path, loan.offset + 4096, loan.length - 4096, loan.address)
    with pytest.raises(fs.InvalidArgument, match="is not what is mapped"):
        store.put_borrowed(value, shifted)
    missing = fs.Loan(f"{loan.path}-not", loan.offset, loan.length, loan.address)
    with pytest.raises(fs.InvalidArgument, match="No such file"):
        store.put_borrowed(value, missing)
    beyond = fs.Loan(loan.path, loan.offset + loan.length, loan.length, loan.address)
    with pytest.raises(fs.InvalidArgument, match="cannot be borrowed"):
        store.put_borrowed(value, beyond)
    with pytest.raises(fs.NotStorable, match="metadata"):
        store.put_borrowed(value, loan, metadata="x" * 2000)
    assert store.loans() == []
    moved = lender.moved(table())
    store.put_borrowed(moved, loan, "t", metadata="x" * 2000)
    assert store.get("t").metadata == "x" * 2000
    assert store.get("t").value().equals(table())


def test_polars_frames(store: fs.Store, lender: Lender) -> None:
    """Their pickles keep no buffer apart; what is made of borrowed Arrow memory is borrowed, though."""
    data = pl.from_arrow(lender.moved(table().select(["n"])))
    store.put_borrowed(data, lender.loan(), "frame")
    assert store.get("frame").borrowed
    assert store.get("frame").value().equals(data)


def test_an_array_at_the_very_end_of_a_file(store: fs.Store, store_dir: str) -> None:
    """The file ends where a page does, and the array a little before the end of a unit of 64 bytes."""
    path = f"{store_dir}-tight"
    values = np.arange(512 + 5, dtype=np.float64)
    Path(path).write_bytes(bytes(3 * 4096 - values.nbytes) + values.tobytes())
    mapped = np.memmap(path, np.uint8, "r")
    array: Any = mapped[-values.nbytes :].view(np.float64).view(np.ndarray)
    address = mapped.ctypes.data
    store.put_borrowed(array, fs.Loan(path, 0, 3 * 4096, address), "tight")
    assert (store.get("tight").value() == values).all()
    with store.get("tight") as obj:
        obj.persist()
    store.recover()
    os.unlink(path)
    assert (store.get("tight").value() == values).all()
    assert store.loans() == []


def test_splitting_a_borrowed_table(store: fs.Store, lender: Lender) -> None:
    """By columns nothing is copied; by rows, those of a stream that is cut."""
    store.put_borrowed(lender.moved(table()), lender.loan(), "borrowed")
    left, right = store.split("borrowed", columns=[["n"], ["s", "d"]])
    assert left.borrowed
    assert right.borrowed
    assert store.stats().used_bytes < 16 << 10
    parts: list[Any] = store.split("borrowed", rows=[1000])
    assert not any(part.borrowed for part in parts)
    assert_same(table(), pa.concat_tables([part.to_arrow() for part in parts]))
