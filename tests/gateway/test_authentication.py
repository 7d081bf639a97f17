"""Who calls: by token, certificate, or from where."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path

import pytest

from flightstore.errors import NotAuthenticated
from flightstore.gateway.access import Caller
from flightstore.gateway.authentication import Authenticator, certificate_name
from flightstore.gateway.tokens import create, revoke

pytestmark = pytest.mark.req("GW-5")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.toml"


def basic(text: str, *, padded: bool = True) -> str:
    encoded = base64.b64encode(text.encode()).decode()
    return f"Basic {encoded if padded else encoded.rstrip('=')}"


def test_without_tokens_this_machine_may_do_everything_and_others_nothing() -> None:
    open_here = Authenticator()
    assert open_here.caller_of(None, local=True) == Caller("local", "admin")
    assert open_here.caller_of("Bearer whatever", local=True) == Caller("local", "admin")
    with pytest.raises(NotAuthenticated):
        open_here.caller_of(None, local=False)
    with pytest.raises(NotAuthenticated):
        open_here.caller_of("Bearer whatever", local=False)
    assert Authenticator(open_to_all=True).caller_of(None, local=False) == Caller("anyone", "admin")


def test_without_tokens_a_certificate_of_the_ca_is_a_credential() -> None:
    assert Authenticator().caller_of(None, local=False, certificate="w.test") == Caller("w.test", "admin")


@pytest.mark.parametrize("local", [True, False])
def test_a_token_is_known_in_every_form(path: Path, local: bool) -> None:
    _, secret = create(path, "laptop", rights="write", sessions=["A"])
    known = Authenticator(path)
    wanted = Caller("laptop", "write", ("A",))
    forms = [f"Bearer {secret}", f"bearer   {secret} ", basic(f"laptop:{secret}"), basic(f":{secret}")]
    forms += [basic(f"{user}:{secret}", padded=False) for user in ("u", "us", "use", "user")]
    forms += [basic(f"{secret}:"), basic(f"laptop:{secret}").replace("Basic", "basic")]
    for form in forms:
        assert known.caller_of(form, local=local) == wanted, form


@pytest.mark.parametrize("local", [True, False])
def test_with_tokens_everybody_needs_one(path: Path, local: bool) -> None:
    _, secret = create(path, "laptop")
    assert secret
    for known in (Authenticator(path), Authenticator(path, open_to_all=True)):
        wrong = [
            None,
            "",
            f"Bearer {secret[:-1]}",
            f"Bearer {secret}x",
            f"Token {secret}",
            "Bearer",
            "Bearer ",
        ]
        wrong += ["Basic", "Basic ?", "Basic /w==", basic(secret), basic("laptop:"), basic(""), secret]
        wrong += [
            "Bearer \udcff",
            "Basic ä",
            f"Bearer {secret}, Bearer {secret}",
            "\0",
            "Bearer " + "x" * 100_000,
        ]
        for authorization in wrong:
            with pytest.raises(NotAuthenticated) as refused:
                known.caller_of(authorization, local=local)
            assert secret not in str(refused.value)


def test_a_hash_is_no_token(path: Path) -> None:
    made, _ = create(path, "laptop")
    create(path, "worker", certificate="worker.test")
    for token in (made.hash, "", "None"):
        with pytest.raises(NotAuthenticated):
            Authenticator(path).caller_of(f"Bearer {token}", local=True)


def test_expired_and_revoked_tokens_are_refused_at_once(path: Path) -> None:
    _, secret = create(path, "a")
    _, over = create(path, "over", expires=timedelta(seconds=-1))
    known = Authenticator(path)
    with pytest.raises(NotAuthenticated, match="'over' has expired"):
        known.caller_of(f"Bearer {over}", local=True)
    assert known.caller_of(f"Bearer {secret}", local=True).name == "a"
    revoke(path, "a")
    with pytest.raises(NotAuthenticated, match="revoked"):
        known.caller_of(f"Bearer {secret}", local=True)
    _, another = create(path, "a")
    assert known.caller_of(f"Bearer {another}", local=True).name == "a"


def test_certificates_are_known_by_their_entries(path: Path) -> None:
    create(path, "worker", rights="write", certificate="worker.test")
    create(path, "late", certificate="late.test", expires=timedelta(seconds=-1))
    _, secret = create(path, "laptop")
    known = Authenticator(path)
    assert known.caller_of(None, local=False, certificate="worker.test") == Caller("worker", "write")
    with pytest.raises(NotAuthenticated, match=r"'other.test'"):
        known.caller_of(None, local=False, certificate="other.test")
    with pytest.raises(NotAuthenticated, match="expired"):
        known.caller_of(None, local=False, certificate="late.test")
    # A token says more than a certificate, and a wrong one is not made good by it.
    assert known.caller_of(f"Bearer {secret}", local=False, certificate="worker.test").name == "laptop"
    with pytest.raises(NotAuthenticated):
        known.caller_of("Bearer wrong", local=False, certificate="worker.test")


def test_the_name_of_a_certificate() -> None:
    subject = ((("organizationName", "x"),), (("commonName", "cn.test"),))
    assert certificate_name({"subject": subject}) == "cn.test"
    names = (("DNS", "first.test"), ("URI", "spiffe://x/y"))
    assert certificate_name({"subject": subject, "subjectAltName": names}) == "first.test"
    assert certificate_name({"subject": subject, "subjectAltName": names[1:]}) == "spiffe://x/y"
    assert certificate_name(None) is None
    assert certificate_name({}) is None
