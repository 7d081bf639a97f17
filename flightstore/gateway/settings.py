"""How a gateway is set up: flags, environment variables and a TOML file, in this order of precedence.

Each setting has one name: `--tls-cert`, FLIGHTSTORE_SERVE_TLS_CERT and ``tls_cert = ...`` are the same. An
empty text is as good as nothing, and so overrides what a later source says. Reads the file and the
environment, and looks nothing up; where to listen is worked out in listeners.py.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flightstore.config import parse_bytes
from flightstore.errors import InvalidArgument
from flightstore.gateway.limits import Limits

__all__ = ["DEFAULT_FLIGHT", "DEFAULT_HTTP", "Setting", "Settings", "printed", "resolve", "settings_table"]

PREFIX = "FLIGHTSTORE_SERVE_"
DEFAULT_FLIGHT, DEFAULT_HTTP = "grpc+tcp://127.0.0.1:8815", "http://127.0.0.1:8816"
LOG_FORMATS, LOG_LEVELS = ("text", "json"), ("debug", "info", "warning")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidArgument("a text is wanted")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip().isdecimal():
        raise InvalidArgument("a whole number is wanted")
    return int(value)


def _seconds(value: Any) -> float:
    if not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    raise InvalidArgument("a number of seconds is wanted")


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {"1": True, "true": True, "yes": True, "on": True}
    known |= {"0": False, "false": False, "no": False, "off": False}
    if not isinstance(value, str) or value.lower() not in known:
        raise InvalidArgument("true or false is wanted")
    return known[value.lower()]


def _port(value: Any) -> str:
    """A port or an address; in a file, a port may be a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)


def _one_of(*choices: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in choices:
            raise InvalidArgument(f"one of {', '.join(choices)} is wanted")
        return str(value)

    return parse


def _setting(default: Any, parse: Callable[[Any], Any], metavar: str, text: str) -> Any:
    return field(default=default, metadata={"parse": parse, "metavar": metavar, "help": text})


def _limit(name: str, parse: Callable[[Any], Any], metavar: str, text: str) -> Any:
    default = next(one.default for one in dataclasses.fields(Limits) if one.name == name)
    return _setting(default, parse, metavar, text)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one gateway. Sizes are bytes, times seconds."""

    store: str | None = _setting(
        None, _text, "DIR", "Directory of the store; the user's own one if not given."
    )
    capacity: int | None = _setting(None, parse_bytes, "SIZE", "Capacity of the store, if it is made now.")
    flight: str | None = _setting(
        None, _text, "URL", "Where Flight listens: grpc+tcp://HOST:PORT, grpc+tls://HOST:PORT; port 0 is any."
    )
    http: str | None = _setting(
        None,
        _text,
        "URL",
        "Where HTTP listens: [http://|https://]HOST:PORT; https if there is a certificate.",
    )
    unix: str | None = _setting(
        None, _text, "PATH", "Flight on this unix socket, HTTP on PATH.http, mapping on PATH.map."
    )
    tls_cert: str | None = _setting(None, _text, "FILE", "Certificate and its chain, PEM.")
    tls_key: str | None = _setting(None, _text, "FILE", "The certificate's key, PEM.")
    tls_client_ca: str | None = _setting(
        None, _text, "FILE", "Mutual TLS: clients need a certificate of this CA, PEM."
    )
    tokens: str | None = _setting(
        None, _text, "FILE", "The tokens file; ~/.config/flightstore/tokens.toml if there is one."
    )
    advertise: str | None = _setting(
        None,
        _text,
        "HOST",
        "The name under which clients reach this machine, for the addresses they are told.",
    )
    health: str | None = _setting(
        None, _port, "PORT", "gRPC health service on this port of loopback, or on HOST:PORT."
    )
    insecure: bool = _setting(
        False, _switch, "", "Listen beyond loopback without TLS or without a credential all the same."
    )
    insecure_health: bool = _setting(
        False, _switch, "", "Let the health service alone listen beyond loopback, as Kubernetes' probes need."
    )
    log_format: str = _setting("text", _one_of(*LOG_FORMATS), "text|json", "Form of the log on stderr.")
    log_level: str = _setting(
        "info",
        _one_of(*LOG_LEVELS),
        "debug|info|warning",
        "What is logged; debug has a line for each request.",
    )
    quiet: bool = _setting(False, _switch, "", "Log warnings and errors only, and print no addresses.")
    max_connections: int = _limit(
        "max_connections", _count, "N", "Connections of each server at a time; refused beyond."
    )
    max_uploads: int = _limit("max_uploads", _count, "N", "Uploads at a time; refused beyond.")
    max_object_bytes: int | None = _limit(
        "max_object_bytes", parse_bytes, "SIZE", "Largest object that may be uploaded."
    )
    max_batch_bytes: int = _limit(
        "max_batch_bytes", parse_bytes, "SIZE", "Largest record batch that may be uploaded."
    )
    idle_timeout_s: float = _limit(
        "idle_timeout_s", _seconds, "S", "A client that does nothing for so long in mid-request is dropped."
    )
    request_timeout_s: float = _limit(
        "request_timeout_s", _seconds, "S", "The longest that one request may take."
    )

    @property
    def limits(self) -> Limits:
        """Those of the settings that are limits."""
        return Limits(**{one.name: getattr(self, one.name) for one in dataclasses.fields(Limits)})


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting, as the command line and the reference need to know it."""

    name: str
    metavar: str
    """Empty for a switch."""
    help: str
    default: Any
    parse: Callable[[Any], Any]

    @property
    def flag(self) -> str:
        """Its option."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.name.upper()


def settings_table() -> list[Setting]:
    """All settings, in order."""
    return [
        Setting(one.name, one.metadata["metavar"], one.metadata["help"], one.default, one.metadata["parse"])
        for one in dataclasses.fields(Settings)
    ]


def resolve(
    flags: Mapping[str, Any], *, config: str | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[Settings, dict[str, str]]:
    """The settings, and for each where its value is from.

    Args:
        flags: By name; None for one that was not given.
        config: The TOML file; None for the one that FLIGHTSTORE_CONFIG names, if any.
        environ: The environment.

    Raises:
        InvalidArgument: a bad value, or name; the message says where it stands.
        FileNotFoundError: the file is not there.
    """
    config = config or environ.get("FLIGHTSTORE_CONFIG")
    in_file = _read(config) if config else {}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in settings_table():
        found = [
            (flags.get(setting.name), setting.flag),
            (environ.get(setting.variable), setting.variable),
            (in_file.get(setting.name), f"{config}: {setting.name}"),
        ]
        if setting.name == "tokens":
            found.append((environ.get("FLIGHTSTORE_TOKENS"), "FLIGHTSTORE_TOKENS"))
        value, source = next(((v, s) for v, s in found if v is not None), (setting.default, "default"))
        if source != "default":
            value = setting.default if value == "" else _parsed(setting, value, source)
        values[setting.name], sources[setting.name] = value, source
    if not (values["flight"] or values["http"] or values["unix"]):
        values |= {"flight": DEFAULT_FLIGHT, "http": DEFAULT_HTTP}
    settings = Settings(**values)
    _check_together(settings, sources)
    return settings, sources


def _read(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        try:
            found = tomllib.loads(file.read().decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{path} is not TOML: {error}") from None
    known = [setting.name for setting in settings_table()]
    for name in found.keys() - set(known):
        raise InvalidArgument(f"{path}: there is no setting {name!r}", hint=f"there are {', '.join(known)}")
    return found


def _parsed(setting: Setting, value: Any, source: str) -> Any:
    try:
        return setting.parse(value)
    except InvalidArgument as error:
        raise InvalidArgument(f"{source}: {value!r}: {error.message}", hint=error.hint) from None


def _check_together(settings: Settings, sources: Mapping[str, str]) -> None:
    for name, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert"), ("tls_client_ca", "tls_cert")):
        if getattr(settings, name) and not getattr(settings, other):
            raise InvalidArgument(
                f"{sources[name]} without {other}", hint=f"give --{other.replace('_', '-')}, too"
            )
    try:
        _ = settings.limits
    except InvalidArgument as error:
        source = sources[error.message.partition(" ")[0]]
        raise InvalidArgument(f"{source}: {error.message}", hint=error.hint) from None


def printed(settings: Settings, sources: Mapping[str, str]) -> str:
    """The settings as a TOML file that says the same, each with its source behind it."""
    lines = []
    for setting in settings_table():
        value = getattr(settings, setting.name)
        said = f"{setting.name} = {json.dumps(value, ensure_ascii=False)}" if value is not None else ""
        lines.append(f"{said or f'# {setting.name} is not set'}  # {sources[setting.name]}")
    return "\n".join(lines)
