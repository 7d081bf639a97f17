"""The part of the facade that makes objects of memory that belongs to somebody else."""

from __future__ import annotations

from typing import Any

from flightstore.errors import NotStorable
from flightstore.lifecycle import sealing
from flightstore.lifecycle.sealing import new_object
from flightstore.store.attached import Attached, check_new, deadline_of
from flightstore.types import Loan, LoanInfo, ObjectID

__all__ = ["Borrowing"]


class Borrowing(Attached):
    """put_borrowed, loans, client_id: of a store on this machine only."""

    def put_borrowed(
        self,
        value: Any,
        loan: Loan,
        name: str | None = None,
        *,
        object_id: ObjectID | None = None,
        metadata: Any = None,
        timeout: float | None = 0,
    ) -> ObjectID:
        """Store a value without copying what of it lies in the memory of a loan; the rest is copied.

        Everybody who gets the object maps that memory where it is. It takes no room in the store, is neither
        evicted nor spilled, and is only as good as its owner: a get fails with ObjectLost, and never gives
        other bytes, once all keepers of the loan have ended or its file is another one. Who holds a view by
        then is not protected. ``obj.persist()`` copies it into the store.

        Args:
            value: An Arrow table, a NumPy array, or a frame of a library with a connector.
                Columns all of whose buffers lie in the loan's memory are borrowed.
            loan: The memory.
            name: As for ``put``.
            object_id: As for ``put``.
            metadata: As for ``put``; short for an array.
            timeout: Seconds to wait for room for what is copied.

        Raises:
            NotBorrowable: nothing of the value lies in that memory, or only ``put`` could store it at all;
                nothing was stored.
            InvalidArgument: the loan is not what it says it is.
            StoreFull, CatalogFull, ObjectExists: as for ``put``.
        """
        from flightstore.lifecycle import lending
        from flightstore.objects.lending import Run, lend

        conn = self._conn
        check_new(name, object_id)
        lent = lend(value, Run(loan.address, loan.length))
        composition = lent.composition
        new = new_object(self._session, composition.payload, name, object_id, metadata)
        if new.metadata_at is not None and not composition.payload.size_bytes:
            raise NotStorable(
                "the metadata is too long to go with a borrowed array",
                hint="put it as an object of its own",
            )
        new.nbytes, new.shared = composition.nbytes, composition.shared
        new.loan = lending.borrowed_from(loan, lent.offset, lent.length, self._session)
        new.batch = self._current
        sealing.put(conn, (new,), deadline_of(timeout))
        return new.id

    def loans(self) -> list[LoanInfo]:
        """The loans that objects of the store use, in all its sessions.

        A loan is over, and gone from here, once nobody can use its memory any more: its objects are deleted,
        or persisted, their readers have let go, and the next create, or ``recover()``, has seen it.
        """
        from flightstore.lifecycle import lending

        return lending.loans(self._conn)

    @property
    def client_id(self) -> int:
        """What this process is to others as a client of the store: it lives as long as the process has a
        handle on the store, and nobody else ever has the same. For the keepers of a :class:`Loan`.
        """
        conn = self._conn
        conn.leases.file  # noqa: B018 - others see a client by its file, which is made when it is needed
        return conn.client
