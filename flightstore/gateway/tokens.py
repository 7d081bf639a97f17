"""The tokens file: who may call a gateway, with which rights, in which sessions.

TOML, one table for each name, written under a lock and put in place by a rename: a reader sees the old file
or the new one. What is stored of a token is its SHA-256. A slow, salted hash is for passwords, which people
choose from few; a token is 32 random bytes, so that there is nothing to guess faster, and no two are equal.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from flightstore.errors import FlightStoreError, InvalidArgument
from flightstore.gateway.access import READ, RIGHTS, Caller

__all__ = ["Token", "TokensFile", "create", "default_path", "hash_of", "lifetime", "load", "revoke"]

PREFIX = "fst_"
"""What a token begins with, so that scanners for secrets know one."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASH = re.compile(r"[0-9a-f]{64}")
_LIFETIME = re.compile(r"(\d+) ?([smhdw])")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_HEAD = (
    "# Who may call flightstore's gateway. Written by `flightstore tokens`; tokens are stored as SHA-256.\n"
)

log = logging.getLogger("flightstore.gateway.tokens")


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One entry: somebody who shows a token, or a certificate, or either."""

    created: datetime
    hash: str | None = None
    """SHA-256 of the token, in hexadecimal; None for who has a certificate only."""
    rights: str = READ
    """One of access.RIGHTS."""
    sessions: tuple[str, ...] | None = None
    """The sessions that it may use, see `access.Caller`; None for all of the store."""
    expires: datetime | None = None
    """From then on it is not valid any more; None for never."""
    certificate: str | None = None
    """The first subject alternative name of the client's certificate, or its common name if it has none."""

    def caller(self, name: str) -> Caller:
        """Who it is."""
        return Caller(name, self.rights, self.sessions)

    def is_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and datetime.now(UTC) >= self.expires


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tokens: dict[str, Token] = {}


def default_path() -> Path:
    """``~/.config/flightstore/tokens.toml``, or below XDG_CONFIG_HOME."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    return Path(base, "flightstore", "tokens.toml")


def hash_of(token: str) -> str:
    """What the file holds of a token."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def lifetime(text: str) -> timedelta:
    """A duration such as ``30d``, ``12h`` or ``90m``.

    Raises:
        InvalidArgument: it is none.
    """
    match = _LIFETIME.fullmatch(text)
    if match is None or not 0 < int(match[1]) * _UNITS_S[match[2]] < 100 * 365 * 86400:
        raise InvalidArgument(f"{text!r} is not a time to live", hint="write such as 30d, 12h or 90m")
    return timedelta(seconds=int(match[1]) * _UNITS_S[match[2]])


def load(path: str | os.PathLike[str]) -> dict[str, Token]:
    """The entries by name.

    Raises:
        InvalidArgument: the file is malformed, or others than its owner may write it.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise InvalidArgument(f"others may write the tokens file {path}", hint=f"chmod 600 {path}")
        content = file.read()
    try:
        found = msgspec.convert(tomllib.loads(content.decode()), _File).tokens
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise InvalidArgument(
            f"the tokens file {path} is malformed: {error}", hint="flightstore tokens writes such files"
        ) from None
    for name, token in found.items():
        _check(f"the tokens file {path}: {name}", name, token)
    return found


def _check(where: str, name: str, token: Token) -> None:
    problem = None
    if not _NAME.fullmatch(name):
        problem = "a name is letters, digits and . _ @ -, at most 64"
    elif token.rights not in RIGHTS:
        problem = f"rights are one of {', '.join(RIGHTS)}, not {token.rights!r}"
    elif token.sessions is not None and not all(token.sessions or [""]):
        problem = "sessions are names, at least one"
    elif token.hash is None and token.certificate is None:
        problem = "neither a hash nor a certificate"
    elif token.hash is not None and not _HASH.fullmatch(token.hash):
        problem = "the hash is not the SHA-256 of a token"
    elif token.expires is not None and token.expires.tzinfo is None:
        problem = "expires has no time zone"
    if problem:
        raise InvalidArgument(f"{where}: {problem}", hint="see flightstore tokens create --help")


def create(
    path: str | os.PathLike[str],
    name: str,
    *,
    rights: str = READ,
    sessions: Sequence[str] | None = None,
    expires: timedelta | None = None,
    certificate: str | None = None,
) -> tuple[Token, str | None]:
    """Add an entry; returns it, and the token, which is stored nowhere. None with a certificate: that is what
    its holder shows.

    Raises:
        InvalidArgument: there is one of that name, or the arguments make no sense.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    secret = None if certificate else PREFIX + secrets.token_urlsafe(32)
    token = Token(
        created=now,
        hash=hash_of(secret) if secret else None,
        rights=rights,
        sessions=None if sessions is None else tuple(sessions),
        expires=None if expires is None else now + expires,
        certificate=certificate,
    )
    _check(name, name, token)
    with _changing(path) as entries:
        if name in entries:
            raise InvalidArgument(
                f"{path} has an entry {name!r} already", hint=f"flightstore tokens revoke {name}"
            )
        entries[name] = token
    return token, secret


def revoke(path: str | os.PathLike[str], name: str) -> Token:
    """Take an entry out. Gateways that run refuse the next request made with it.

    Raises:
        InvalidArgument: there is none of that name.
    """
    with _changing(path) as entries:
        if name not in entries:
            raise InvalidArgument(
                f"{path} has no entry {name!r}", hint=f"it has {', '.join(sorted(entries)) or 'none'}"
            )
        return entries.pop(name)


@contextlib.contextmanager
def _changing(path: str | os.PathLike[str]) -> Iterator[dict[str, Token]]:
    """The entries, written back at the end of the block; one process at a time."""
    target = Path(os.path.realpath(path))
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        entries = load(target) if target.exists() else {}
        yield entries
        _replace(target, _toml(entries).encode())
    finally:
        os.close(folder)


def _replace(target: Path, content: bytes) -> None:
    beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with open(beside, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _toml(entries: Mapping[str, Token]) -> str:
    parts = [_HEAD]
    for name, token in sorted(entries.items()):
        fields = msgspec.structs.asdict(token)
        lines = [f"{key} = {_value(value)}" for key, value in fields.items() if value is not None]
        parts.append("\n".join([f'[tokens."{name}"]', *lines, ""]))
    return "\n".join(parts)


def _value(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    # A JSON string is a TOML one, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


class TokensFile:
    """The entries as they are now: whenever the file has changed it is read again.

    A file that is gone or malformed lets nobody in, until it is whole again.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Read it.

        Raises:
            InvalidArgument, OSError: see `load`.
        """
        self.path = Path(path)
        self._seen = self._version()
        self._entries = load(path)

    def entries(self) -> Mapping[str, Token]:
        """By name. Costs a `stat`."""
        try:
            version = self._version()
        except OSError:
            version = ()
        if version != self._seen:
            self._entries = self._reloaded()
            self._seen = version
        return self._entries

    def _version(self) -> tuple[int, ...]:
        found = os.stat(self.path)
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _reloaded(self) -> dict[str, Token]:
        try:
            entries = load(self.path)
        except (FlightStoreError, OSError) as error:
            log.error("nobody is let in: the tokens file cannot be read", extra={"error": str(error)})
            return {}
        log.info("read the tokens file again", extra={"path": str(self.path), "entries": len(entries)})
        return entries
