"""Logging in at real registries: Basic, bearer tokens, identity tokens, helpers; over TLS."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.authority import Authority, make_authority
from fakes.lockedregistry import HASH
from fakes.registry import configured_registry, debian_program
from fakes.tokenservice import IDENTITY, PASSWORD, USER, TokenService, token_service
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.dockerconfig import DockerConfig, HelperPrograms, NoCredentials
from secure_pipeline.adapters.http import HttpLimits
from secure_pipeline.adapters.registry import RegistryLimits, Repository, open_repository
from secure_pipeline.errors import PipelineError, Unavailable
from secure_pipeline.oci.digest import Digest
from secure_pipeline.tools.process import Processes

pytestmark = pytest.mark.integration


BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
QUICK = RegistryLimits(http=HttpLimits(total=20.0))


@dataclass(frozen=True)
class Secured:
    """A registry with TLS that wants a login."""

    host: str
    authority: Authority
    home: Path

    def config(self, document: object) -> None:
        self.home.mkdir(exist_ok=True)
        (self.home / "config.json").write_text(json.dumps(document))

    def helper(self, name: str, script: str) -> None:
        program = self.home / f"docker-credential-{name}"
        self.home.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def open(self, *, realms: tuple[str, ...] = (), anonymous: bool = False) -> Repository:
        helpers = HelperPrograms(
            Processes(threading.Event()), (str(self.home),), {"PATH": "/usr/bin:/bin"}, 5.0
        )
        credentials = NoCredentials() if anonymous else DockerConfig(self.home, helpers)
        return open_repository(
            f"{self.host}/team/app",
            credentials=credentials,
            ca=self.authority.ca,
            clock=SystemClock(),
            realms=realms,
            limits=QUICK,
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def basic_host(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[str]:
    """Debian's registry with htpasswd."""
    directory = tmp_path_factory.mktemp("basic")
    (directory / "htpasswd").write_text(f"{USER}:{HASH}\n")
    settings = {"auth": {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}}
    program = debian_program()
    with configured_registry(program, directory, settings, tls=authority) as host:
        yield host


@pytest.fixture
def basic(basic_host: str, authority: Authority, tmp_path: Path) -> Secured:
    return Secured(basic_host, authority, tmp_path / "home")


@contextmanager
def bearer(
    tmp_path: Path, authority: Authority, **settings: object
) -> Iterator[tuple[Secured, TokenService]]:
    """Debian's registry with a token service at another port, so another origin."""
    program = debian_program()
    with (
        token_service(authority, **settings) as service,
        configured_registry(program, tmp_path, service.registry_settings(), tls=authority) as host,
    ):
        yield Secured(host, authority, tmp_path / "home"), service


def refused(repository: Repository) -> PipelineError:
    """Try to write; return the error, after checking that it gives no secret away."""
    with pytest.raises(PipelineError) as caught:
        repository.write_blob(b"content", "text/plain")
    text = f"{caught.value} {caught.value.hint}"
    assert "\n" not in text
    assert PASSWORD not in text
    assert BASIC not in text
    assert IDENTITY not in text
    return caught.value


def test_basic_login_reads_and_writes(basic: Secured) -> None:
    """User and password of docker's configuration open a registry with htpasswd."""
    basic.config({"auths": {basic.host: {"auth": BASIC}}})
    repository = basic.open()
    blob = repository.write_blob(b"content", "text/plain")
    assert repository.read_blob(blob.digest, 100) == b"content"


@pytest.mark.parametrize(
    ("entry", "tried"),
    [
        ({"username": USER, "password": "wrong-secret"}, f"as user '{USER}'"),
        ({}, "anonymously"),
        (None, "anonymously"),
    ],
    ids=["wrong", "empty", "none"],
)
def test_a_refused_login_names_registry_and_attempt(
    basic: Secured, entry: object, tried: str
) -> None:
    """A refusal is Unavailable; it names registry, repository and user, and what to type."""
    basic.config({"auths": {basic.host: entry} if entry is not None else {}})
    error = refused(basic.open())
    assert isinstance(error, Unavailable)
    assert basic.host in str(error)
    assert "team/app" in str(error)
    assert f"tried {tried}" in str(error)
    assert "wrong-secret" not in str(error)
    assert error.hint == f"docker login {basic.host}"


def test_a_certificate_of_another_authority_is_refused(basic: Secured, tmp_path: Path) -> None:
    """Without trust in its certificate a registry gets nothing, whatever it is."""
    other = make_authority(tmp_path / "other")
    basic.config({"auths": {basic.host: {"auth": BASIC}}})
    error = refused(Secured(basic.host, other, basic.home).open())
    assert isinstance(error, Unavailable)
    assert "certificate is not trusted" in str(error)


def test_reg_13_a_helper_is_asked_only_for_the_exact_registry(basic: Secured) -> None:
    """A helper for another registry, or a store without an entry, is never started."""
    log = basic.home / "asked"
    answer = json.dumps({"ServerURL": "x", "Username": USER, "Secret": PASSWORD})
    basic.helper("cloud", f"cat >>'{log}'; echo '{answer}'")
    neighbours = {f"{basic.host}0": "cloud", "127.0.0.1": "cloud", f"https://{basic.host}": "cloud"}
    basic.config({"credHelpers": neighbours, "credsStore": "cloud"})
    assert "anonymously" in str(refused(basic.open()))
    assert not log.exists()
    basic.config({"credHelpers": {basic.host: "cloud"}})
    basic.open().write_blob(b"by helper", "text/plain")
    assert log.read_text() == basic.host
    basic.config({"credsStore": "cloud", "auths": {basic.host: {}}})
    basic.open().write_blob(b"by store", "text/plain")
    assert log.read_text() == basic.host * 2


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (f"echo '{PASSWORD}'; echo '{PASSWORD}' >&2; exit 3", "exited with 3"),
        (f"echo '{PASSWORD}'", "gave no login"),
        ("sleep 60", "timed out"),
        ("kill -9 $$", "killed by SIGKILL"),
        ('echo \'{"Username":"u","Secret":""}\'', "empty secret"),
    ],
    ids=["fails", "nonsense", "hangs", "killed", "empty"],
)
def test_a_helper_that_fails_is_an_error(basic: Secured, script: str, says: str) -> None:
    """A broken helper is not silently 'anonymous'; the error names it and the registry."""
    basic.helper("broken", script)
    basic.config({"credHelpers": {basic.host: "broken"}})
    error = refused(basic.open())
    assert isinstance(error, Unavailable)
    assert says in str(error)
    assert basic.host in str(error)
    assert "docker-credential-broken" in str(error)


def test_a_helper_that_knows_nothing_is_anonymous(basic: Secured) -> None:
    """'Not found' of a helper means no login, and the refusal says so."""
    basic.helper("empty", "echo 'credentials not found in native keychain'; exit 1")
    basic.config({"credHelpers": {basic.host: "empty"}})
    assert "docker-credential-empty knows no login" in str(refused(basic.open()))


def test_a_missing_helper_says_what_to_install(basic: Secured) -> None:
    """A helper that is named and not there is an error with a hint."""
    basic.config({"credHelpers": {basic.host: "gone"}})
    error = refused(basic.open())
    assert error.hint is not None
    assert "docker-credential-gone" in error.hint


def test_bearer_tokens_for_pull_and_push(tmp_path: Path, authority: Authority) -> None:
    """Tokens are asked for this repository only, once for each scope, and open the registry."""
    with bearer(tmp_path, authority) as (secured, service):
        secured.config({"auths": {secured.host: {"auth": BASIC}}})
        repository = secured.open(realms=(service.host,))
        blob = repository.write_blob(b"content", "text/plain")
        assert repository.read_blob(blob.digest, 100) == b"content"
        assert repository.tagged("latest") is None
        scope = "repository:team/app:"
        assert service.asked == [
            (f"{scope}pull", f"Basic {BASIC}"),
            (f"{scope}pull,push", f"Basic {BASIC}"),
        ]


def test_an_identity_token_is_exchanged(tmp_path: Path, authority: Authority) -> None:
    """An identity token goes to the token service as a refresh token (OAuth2), nowhere else."""
    with bearer(tmp_path, authority) as (secured, service):
        secured.config({"auths": {secured.host: {"identitytoken": IDENTITY}}})
        secured.open(realms=(service.host,)).write_blob(b"content", "text/plain")
        assert {shown for _, shown in service.asked} == {IDENTITY}


def test_an_ended_token_is_renewed_once(tmp_path: Path, authority: Authority) -> None:
    """A token that the registry no longer takes is replaced by one new one."""
    with bearer(tmp_path, authority) as (secured, service):
        secured.config({"auths": {secured.host: {"auth": BASIC}}})
        repository = secured.open(realms=(service.host,))
        service.seconds = -120  # over already, though it is announced to last
        error = refused(repository)
        assert "does not let us" in str(error)
        asked = len(service.asked)
        service.seconds = 300
        repository.write_blob(b"content", "text/plain")
        assert len(service.asked) <= asked + 2


def test_reg_10_a_token_service_elsewhere_gets_no_credentials(
    tmp_path: Path, authority: Authority
) -> None:
    """A realm at another origin that nobody allowed is asked without credentials."""
    with bearer(tmp_path, authority) as (secured, service):
        secured.config({"auths": {secured.host: {"auth": BASIC}}})
        error = refused(secured.open())
        assert {shown for _, shown in service.asked} == {None}
        assert "not shown to the token service 127.0.0.1" in str(error)
        assert error.hint is not None
        assert "allow the token service" in error.hint


def test_anonymous_tokens_may_pull(tmp_path: Path, authority: Authority) -> None:
    """A registry that gives tokens to anyone for reading is read without a login."""
    with bearer(tmp_path, authority, anonymous=True) as (secured, service):
        repository = secured.open(anonymous=True)
        assert not repository.has_blob(Digest.of(b"nothing"), 7)
        assert "tried anonymously" in str(refused(repository))
        assert {shown for _, shown in service.asked} == {None}
