"""``flightstore.connect``: a store on this machine by its directory, any other by its gateway's URL."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from flightstore import config
from flightstore.errors import InvalidArgument

if TYPE_CHECKING:
    from flightstore.lifecycle.choosing import Policy
    from flightstore.store.local import Store

__all__ = ["connect"]

_LOCAL = ("capacity", "busy_timeout", "spill", "policy")


def connect(
    target: str | os.PathLike[str] | None = None,
    *,
    capacity: int | str | None = None,
    create: bool = True,
    busy_timeout: float | None = None,
    spill: str | os.PathLike[str] | None = None,
    policy: str | Policy | None = None,
    token: str | None = None,
    session: str | int | None = None,
    map: bool | None = None,
    transport: str | None = None,
    tls_root_certificates: str | os.PathLike[str] | bytes | None = None,
    client_certificate: str | os.PathLike[str] | bytes | None = None,
    client_key: str | os.PathLike[str] | bytes | None = None,
    connect_timeout: float | None = None,
    request_timeout: float | None = None,
) -> Store:
    """Connect to a store: a directory on this machine, which is made if it does not exist, or a gateway.

    Any number of processes, and of handles in one process, may be connected at once. Through a gateway the
    handle is a :class:`flightstore.remote.RemoteStore`, of the same interface. Where the gateway's store is
    on this machine and may be mapped, it is the local handle itself (``store.mapped`` tells).

    Args:
        target: Directory of the store, on a memory file system; or ``grpc://host:port``,
            ``grpc+tls://host:port``, ``http://host:port``, ``https://host:port``, ``unix:///path``, where
            `flightstore serve` listens. None for FLIGHTSTORE_DIR, or ``/dev/shm/flightstore-<uid>``.
        capacity: Upper bound of the memory for payload: bytes, or text such as ``"8GiB"``. For a new store;
            connecting to one of another capacity is an error. Default: FLIGHTSTORE_CAPACITY, or 30 % of the
            file system.
        create: False raises NotAStore instead of making a store.
        busy_timeout: Seconds to wait for another process that is writing before StoreBusy is raised; 10 at
            first. The last value given holds for all handles of this process on this store.
        spill: URL or directory of the storage that objects are spilled to when memory is short, as
            :meth:`Store.set_spill` sets it, for all clients and for good; None leaves what is set. A new
            store takes FLIGHTSTORE_SPILL, if that is set.
        policy: In which order this process evicts and spills; see :meth:`Store.set_policy`.
        token: What a gateway knows its caller by; FLIGHTSTORE_TOKEN if None.
        session: Name or number of the session to be in, behind a gateway.
        map: False streams from a gateway even where its store is on this machine.
        transport: ``"http"`` or ``"flight"`` uses that or fails; ``"auto"``, the default, finds the faster.
        tls_root_certificates: The authorities that may vouch for a gateway: PEM, or a file. None for the
            system's.
        client_certificate: This client's certificate, for gateways that want one: PEM, or a file.
        client_key: Its key.
        connect_timeout: Seconds to wait for a gateway's connection; 5 if None.
        request_timeout: Seconds to wait for the next sign of life of a request to a gateway; 60 if None.

    Raises:
        NotAStore, StoreAccessDenied, StoreDamaged, StoreVersionMismatch, WrongPidNamespace, StoreFull,
        InvalidArgument: what they say.
        GatewayUnreachable, NotAuthenticated, NotAllowed, SessionNotFound: the same, of gateways.
    """
    local: dict[str, Any] = {
        "capacity": capacity,
        "busy_timeout": busy_timeout,
        "spill": spill,
        "policy": policy,
    }
    remote: dict[str, Any] = {
        "token": token,
        "session": session,
        "map": map,
        "transport": transport,
        "tls_root_certificates": tls_root_certificates,
        "client_certificate": client_certificate,
        "client_key": client_key,
        "connect_timeout": connect_timeout,
        "request_timeout": request_timeout,
    }
    where = config.default_directory() if target is None else target
    if isinstance(where, str) and "://" in where:
        _refuse(local, f"of a store on this machine, not of the gateway {where}")
        from flightstore.remote.connecting import connect as connect_to

        given = {name: value for name, value in remote.items() if value is not None}
        return cast("Store", connect_to(where, **given))
    _refuse(remote, "of gateways, and a directory was given")
    from flightstore.store.local import connect as connect_here

    return connect_here(where, create=create, **local)


def _refuse(options: dict[str, Any], whose: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise InvalidArgument(f"{given[0]}= is an option {whose}")
