"""The examples of deployment say what `flightstore serve` takes, and fit together."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from flightstore.cli.main import cli
from flightstore.config import parse_bytes
from flightstore.gateway.health import LIVENESS, READINESS

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
MANIFESTS = sorted(DEPLOY.glob("*.yaml"))


def config_of(words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the settings come to."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    shown = CliRunner().invoke(cli, [*words, "--print-config", "--json"], catch_exceptions=False)
    assert shown.exit_code == 0, shown.stderr
    return {name: found["value"] for name, found in json.loads(shown.stdout).items()}


def unit() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, delimiters="=")
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string((DEPLOY / "flightstore.service").read_text())
    return parsed


def test_the_unit_starts_a_gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    service = unit()["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert program.endswith("/flightstore")
    words = [word.replace("/etc/flightstore/", f"{DEPLOY}/") for word in words]
    config = config_of(words, monkeypatch, tmp_path)
    assert Path(config["unix"]).parent.name == service["RuntimeDirectory"]
    assert config["flight"].startswith("grpc+tls://")
    assert config["tokens"]
    assert not config["insecure"]
    assert (service["Type"], service["Restart"], service["TimeoutStopSec"]) == ("notify", "on-failure", "10")


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def workload(path: Path) -> dict[str, Any]:
    (found,) = [one for one in documents(path) if one["kind"] in ("Deployment", "DaemonSet")]
    return found


def test_manifests_are_found() -> None:
    assert [workload(path)["kind"] for path in MANIFESTS] == ["DaemonSet", "Deployment"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_starts_a_gateway(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pod = workload(path)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    config = config_of(container["args"], monkeypatch, tmp_path)
    assert not config["insecure"]
    port = int(config["health"].rpartition(":")[2])
    assert container["readinessProbe"]["grpc"] == {"port": port, "service": READINESS}
    assert container["livenessProbe"]["grpc"] == {"port": port, "service": LIVENESS}
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert {int(re.findall(r"\d+$", config[kind])[0]) for kind in ("flight", "http")} == {
        ports["flight"],
        ports["http"],
    }
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert set(mounts.values()) == set(volumes)
    for name in ("store", "tls_cert", "tls_key", "tokens"):
        assert any(config[name].startswith(f"{mount}/") for mount in mounts), name
    limit = int(parse_bytes(container["resources"]["limits"]["memory"]))
    assert config["capacity"] < limit
    if "emptyDir" in volumes["store"]:
        assert volumes["store"]["emptyDir"]["medium"] == "Memory"
        assert config["capacity"] < parse_bytes(volumes["store"]["emptyDir"]["sizeLimit"]) < limit


def test_the_service_and_the_secret_are_the_deployments() -> None:
    by_kind = {one["kind"]: one for one in documents(DEPLOY / "kubernetes-deployment.yaml")}
    template = by_kind["Deployment"]["spec"]["template"]
    assert by_kind["Service"]["spec"]["selector"] == template["metadata"]["labels"]
    assert by_kind["Deployment"]["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    named = {one["name"] for one in template["spec"]["containers"][0]["ports"]}
    assert {one["targetPort"] for one in by_kind["Service"]["spec"]["ports"]} <= named
    secrets = {one["secret"]["secretName"] for one in template["spec"]["volumes"] if "secret" in one}
    assert by_kind["Secret"]["metadata"]["name"] in secrets


def test_the_secret_is_a_tokens_file(tmp_path: Path) -> None:
    from flightstore.gateway.tokens import load

    by_kind = {one["kind"]: one for one in documents(DEPLOY / "kubernetes-deployment.yaml")}
    file = tmp_path / "tokens.toml"
    file.write_text(by_kind["Secret"]["stringData"]["tokens.toml"])
    assert load(file) == {}
