"""Settings from options, environment and file; where a gateway may listen."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flightstore.cli.main import cli
from flightstore.errors import InvalidArgument, NotAllowed
from flightstore.gateway.limits import Limits
from flightstore.gateway.listeners import FLIGHT, HEALTH, HTTP, MAP, listeners
from flightstore.gateway.settings import Settings, printed, resolve, settings_table

SAMPLES: dict[str, Any] = {
    "capacity": "64MiB",
    "insecure": "true",
    "insecure_health": "true",
    "log_format": "json",
    "log_level": "debug",
    "quiet": "true",
    "flight": "127.0.0.1:1",
    "http": "127.0.0.1:2",
    "health": "3",
    "max_connections": "4",
    "max_uploads": "5",
    "max_object_bytes": "6MiB",
    "max_batch_bytes": "7MiB",
    "idle_timeout_s": "8.5",
    "request_timeout_s": "9.5",
}
"""A value of each setting that is not any text, other than its default."""


def made(**values: Any) -> Settings:
    return resolve(values, environ={})[0]


@pytest.mark.parametrize("name", [setting.name for setting in settings_table()])
def test_each_setting_has_one_name_in_all_three_sources(name: str, tmp_path: Path) -> None:
    setting = next(one for one in settings_table() if one.name == name)
    text = SAMPLES.get(name, f"/some/{name}")
    # What must be given together with it.
    others = {"tls_cert": "c", "tls_key": "k"} if name.startswith("tls") else {}
    others.pop(name, None)
    file = tmp_path / "gateway.toml"
    file.write_text(f"{name} = {json.dumps(True if text == 'true' else text)}\n")
    found = [
        resolve({name: text, **others}, environ={}),
        resolve(others, environ={setting.variable: text}),
        resolve(others, config=str(file), environ={}),
    ]
    values = [getattr(settings, name) for settings, _ in found]
    assert values[0] == values[1] == values[2] != setting.default
    assert [sources[name] for _, sources in found] == [
        setting.flag,
        setting.variable,
        f"{file}: {name}",
    ]


def test_options_come_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("max_uploads = 1\nmax_connections = 1\nidle_timeout_s = 1\n")
    environ = {
        "FLIGHTSTORE_SERVE_MAX_UPLOADS": "2",
        "FLIGHTSTORE_SERVE_MAX_CONNECTIONS": "2",
        "FLIGHTSTORE_CONFIG": str(file),
    }
    settings, _ = resolve({"max_uploads": "3"}, environ=environ)
    assert (settings.max_uploads, settings.max_connections, settings.idle_timeout_s) == (3, 2, 1.0)
    assert settings.limits == Limits(max_uploads=3, max_connections=2, idle_timeout_s=1.0)


def test_an_empty_text_is_nothing_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('http = "127.0.0.1:1"\nflight = "127.0.0.1:2"\n')
    settings, _ = resolve({"http": ""}, config=str(file), environ={})
    assert (settings.http, settings.flight) == (None, "127.0.0.1:2")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_uploads", "many"),
        ("max_uploads", "-1"),
        ("max_uploads", "0"),
        ("max_batch_bytes", "5 parsecs"),
        ("idle_timeout_s", "soon"),
        ("idle_timeout_s", "nan"),
        ("insecure", "perhaps"),
        ("log_format", "xml"),
        ("tls_key", "alone.pem"),
    ],
)
def test_a_bad_value_is_refused_by_its_source(name: str, value: str, tmp_path: Path) -> None:
    setting = next(one for one in settings_table() if one.name == name)
    with pytest.raises(InvalidArgument, match=rf"^{setting.flag}\b"):
        resolve({name: value}, environ={})
    with pytest.raises(InvalidArgument, match=rf"^{setting.variable}\b"):
        resolve({}, environ={setting.variable: value})
    file = tmp_path / "gateway.toml"
    file.write_text(f"{name} = {json.dumps(value)}\n")
    with pytest.raises(InvalidArgument, match=rf"^{file}: {name}\b"):
        resolve({}, config=str(file), environ={})


def test_a_file_with_unknown_names_or_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("max_upload = 3\n")
    with pytest.raises(InvalidArgument, match=r"gateway.toml: there is no setting 'max_upload'"):
        resolve({}, config=str(file), environ={})
    file.write_text("max_upload 3\n")
    with pytest.raises(InvalidArgument, match=r"gateway.toml is not TOML"):
        resolve({}, config=str(file), environ={})
    with pytest.raises(FileNotFoundError):
        resolve({}, config=str(tmp_path / "none"), environ={})


def test_what_is_printed_is_a_file_that_says_the_same(tmp_path: Path) -> None:
    settings, sources = resolve({"capacity": "64MiB", "tokens": "/a b/ö"}, environ={})
    text = printed(settings, sources)
    file = tmp_path / "again.toml"
    file.write_text(text)
    assert resolve({}, config=str(file), environ={})[0] == settings
    assert tomllib.loads(text)["capacity"] == 64 << 20
    assert "# --capacity" in text


def test_print_config_from_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("FLIGHTSTORE_SERVE_HEALTH", "7")
    shown = CliRunner().invoke(cli, ["serve", "/dev/shm/x", "--print-config", "--json"])
    assert shown.exit_code == 0, shown.output
    document = json.loads(shown.stdout)
    assert document["store"] == {"value": "/dev/shm/x", "source": "--store"}
    assert document["health"] == {"value": "7", "source": "FLIGHTSTORE_SERVE_HEALTH"}
    refused = CliRunner().invoke(cli, ["serve", "--flight", "0.0.0.0:1", "--print-config"])
    assert refused.exit_code == 1
    assert "--tls-cert" in refused.stderr
    assert CliRunner().invoke(cli, ["serve", "--max-uploads", "x"]).exit_code == 2


# --- where to listen ---


def test_without_a_word_flight_and_http_listen_on_loopback() -> None:
    found = listeners(made(), has_tokens=False)
    assert [(one.kind, one.location, one.local) for one in found] == [
        (FLIGHT, "grpc+tcp://127.0.0.1:8815", True),
        (HTTP, "http://127.0.0.1:8816", True),
    ]


def test_what_is_named_is_all_that_listens() -> None:
    found = listeners(made(unix="/run/fs", health="9"), has_tokens=False)
    assert [(one.kind, one.location) for one in found] == [
        (FLIGHT, "grpc+unix:///run/fs"),
        (HTTP, "http+unix:///run/fs.http"),
        (MAP, "unix:///run/fs.map"),
        (HEALTH, "grpc+tcp://127.0.0.1:9"),
    ]


@pytest.mark.parametrize(
    ("values", "location"),
    [
        ({"flight": "localhost:1"}, "grpc+tcp://127.0.0.1:1"),
        ({"flight": "grpc://127.0.0.1:1"}, "grpc+tcp://127.0.0.1:1"),
        ({"flight": "[::1]:1"}, "grpc+tcp://[::1]:1"),
        ({"flight": "127.0.0.1:1", "tls_cert": "c", "tls_key": "k"}, "grpc+tls://127.0.0.1:1"),
        ({"flight": "grpc+tcp://127.0.0.1:1", "tls_cert": "c", "tls_key": "k"}, "grpc+tcp://127.0.0.1:1"),
        ({"http": "127.0.0.1:1/"}, "http://127.0.0.1:1"),
        ({"http": "127.0.0.1:1", "tls_cert": "c", "tls_key": "k"}, "https://127.0.0.1:1"),
    ],
)
def test_addresses(values: dict[str, str], location: str) -> None:
    (found,) = listeners(made(**values), has_tokens=False)
    assert found.location == location


@pytest.mark.parametrize(
    "values",
    [
        {"flight": "8815"},
        {"flight": "127.0.0.1"},
        {"flight": "127.0.0.1:99999"},
        {"flight": "http://127.0.0.1:1"},
        {"flight": "grpc+unix:///run/fs"},
        {"flight": "grpc+tls://127.0.0.1:1"},
        {"flight": "grpc://127.0.0.1:1/path"},
        {"flight": "no-such-host.invalid:1"},
        {"flight": "[::1:1"},
        {"http": "grpc://127.0.0.1:1"},
        {"http": "https://127.0.0.1:1"},
        {"health": "grpc+tls://127.0.0.1:1"},
        {"unix": "/" + "long" * 30},
    ],
)
def test_bad_addresses_are_refused_by_name(values: dict[str, str]) -> None:
    (name,) = values
    with pytest.raises(InvalidArgument, match=name):
        listeners(made(**values), has_tokens=False)


TLS = {"tls_cert": "c", "tls_key": "k"}


@pytest.mark.req("GW-5")
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "[2001:db8::1]", "::ffff:1.2.3.4"])
@pytest.mark.parametrize("kind", ["flight", "http"])
def test_beyond_loopback_needs_tls_and_a_credential(kind: str, host: str) -> None:
    at = {kind: f"{host}:1" if not host.startswith("::") else f"[{host}]:1"}
    for values, has_tokens in (({}, False), ({}, True), (TLS, False)):
        with pytest.raises(NotAllowed, match="beyond loopback") as refused:
            listeners(made(**at, **values), has_tokens=has_tokens)
        assert "--insecure" in refused.value.hint
        assert ("--tls-cert" in refused.value.message) == (not values)
        assert ("--tokens" in refused.value.message) == (not has_tokens)
    assert not listeners(made(**at, **TLS), has_tokens=True)[0].local
    assert listeners(made(**at, **TLS, tls_client_ca="ca"), has_tokens=False)
    assert listeners(made(**at, insecure=True), has_tokens=False)


@pytest.mark.req("GW-5")
def test_a_client_ca_is_no_credential_without_tls() -> None:
    with pytest.raises(NotAllowed, match=r"TLS .* and a credential"):
        listeners(made(http="http://0.0.0.0:1", **TLS, tls_client_ca="ca"), has_tokens=False)


@pytest.mark.req("GW-5")
def test_a_host_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(host: str, port: Any, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", ("127.0.0.1", 0)), (2, 1, 6, "", ("192.0.2.7", 0))]

    monkeypatch.setattr("socket.getaddrinfo", both)
    with pytest.raises(NotAllowed, match="myhost:1"):
        listeners(made(flight="myhost:1"), has_tokens=True)


@pytest.mark.req("GW-5")
def test_the_health_service_too_stays_at_home_unless_told() -> None:
    with pytest.raises(NotAllowed, match="health"):
        listeners(made(health="0.0.0.0:1", **TLS), has_tokens=True)
    (found,) = [
        one
        for one in listeners(made(health="0.0.0.0:1", insecure_health=True), has_tokens=False)
        if one.kind == HEALTH
    ]
    assert not found.local
    with pytest.raises(NotAllowed, match="flight"):
        listeners(made(flight="0.0.0.0:1", health="0.0.0.0:1", insecure_health=True), has_tokens=False)


def test_paths_are_made_absolute() -> None:
    (flight, _, _) = listeners(made(unix="fs.sock"), has_tokens=False)
    assert flight.path == os.path.join(os.getcwd(), "fs.sock")
