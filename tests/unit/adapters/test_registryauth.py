"""What a registry's challenge may make us do."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import faultproxy as fault
from fakes.faultproxy import FaultProxy, fault_proxy
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.dockerconfig import ANONYMOUS, Login
from secure_pipeline.adapters.registry import Repository, open_repository
from secure_pipeline.adapters.registryauth import challenges
from secure_pipeline.adapters.registryclient import Place
from secure_pipeline.errors import Unavailable, UsageError
from secure_pipeline.oci.digest import Digest

ALICE = Login("as user 'alice'", "alice", "s3cr3t")
BASIC = "Basic " + base64.b64encode(b"alice:s3cr3t").decode()
BLOB = b"content"
DIGEST = Digest.of(BLOB)


class Logins:
    """One login for whoever asks."""

    def __init__(self, login: Login) -> None:
        self._login = login
        self.asked: list[str] = []

    def login(self, registry: str) -> Login:
        self.asked.append(registry)
        return self._login


@pytest.fixture
def registry() -> Iterator[FaultProxy]:
    with fault_proxy() as proxy:
        yield proxy


def repository(registry: FaultProxy, logins: Logins, *realms: str) -> Repository:
    return open_repository(
        f"{registry.host}/team/app",
        credentials=logins,
        clock=SystemClock(),
        realms=realms,
        sleep=lambda seconds: None,
    )


def wants(registry: FaultProxy, challenge: str, authorization: str) -> None:
    """Make a registry of one blob that wants exactly this Authorization."""

    def gate(exchange: fault.Exchange) -> None:
        if exchange.seen.headers.get("authorization") == authorization:
            exchange.reply(fault.Reply(200, (), BLOB))
        else:
            said = f"denied {exchange.seen.headers.get('authorization')}".encode()
            exchange.reply(fault.Reply(401, (("WWW-Authenticate", challenge),), said))

    registry.on("GET", "/v2/", gate)


def token(text: object = "t0k3n", **more: object) -> fault.Fault:
    return fault.answer(200, json.dumps({"token": text, **more}).encode())


def read(repository: Repository) -> bytes:
    return repository.read_blob(DIGEST, 100)


def test_nobody_is_asked_for_credentials_that_no_one_wants(registry: FaultProxy) -> None:
    """Without a challenge no login is looked up and none is sent."""
    registry.on("GET", "/v2/", fault.answer(200, BLOB))
    logins = Logins(ALICE)
    assert read(repository(registry, logins)) == BLOB
    assert logins.asked == []
    assert "authorization" not in registry.seen[0].headers


def test_basic_is_sent_after_the_challenge_and_kept(registry: FaultProxy) -> None:
    """One challenge is enough for all requests that follow."""
    wants(registry, 'Basic realm="x"', BASIC)
    logins = Logins(ALICE)
    opened = repository(registry, logins)
    assert read(opened) == read(opened) == BLOB
    assert logins.asked == [registry.host]
    shown = [item.headers.get("authorization") for item in registry.seen]
    assert shown == [None, BASIC, BASIC]


@pytest.mark.parametrize(
    ("login", "challenge"),
    [
        (ANONYMOUS, 'Basic realm="x"'),
        (Login("with a token", "", "s3cr3t", identity=True), 'Basic realm="x"'),
        (ALICE, 'Digest realm="x"'),
        (ALICE, ""),
        (ALICE, "Bearer service=x"),
    ],
    ids=["anonymous", "identity token", "unknown scheme", "no challenge", "no realm"],
)
def test_nothing_suitable_to_show(registry: FaultProxy, login: Login, challenge: str) -> None:
    """Where nothing fits the challenge the refusal stands; a secret is never tried elsewhere."""
    wants(registry, challenge, "never")
    with pytest.raises(Unavailable, match="does not let us"):
        read(repository(registry, Logins(login)))
    assert [item.headers.get("authorization") for item in registry.seen] == [None]


def test_wrong_credentials_are_tried_once(registry: FaultProxy) -> None:
    """A refused password is not sent again and again, and not shown in the error."""
    wants(registry, 'Basic realm="x"', "never")
    with pytest.raises(Unavailable) as caught:
        read(repository(registry, Logins(ALICE)))
    assert [item.headers.get("authorization") for item in registry.seen] == [None, BASIC]
    assert "as user 'alice'" in str(caught.value)
    assert "denied Basic [secret]" in str(caught.value)
    assert caught.value.hint == f"docker login {registry.host}"


def test_a_realm_of_the_registry_itself_gets_the_login(registry: FaultProxy) -> None:
    """The same origin may have the credentials; the token is used for its scope."""
    realm = f"http://{registry.host}/token?fixed=1"
    wants(registry, f'Bearer realm="{realm}",service="a b",scope="repository:x:*"', "Bearer t0k3n")
    registry.on("GET", "/token", token())
    assert read(repository(registry, Logins(ALICE))) == BLOB
    asked = registry.requests("GET", "/token")
    assert [item.headers["authorization"] for item in asked] == [BASIC]
    assert asked[0].path == (
        "/token?fixed=1&service=a+b&account=alice&scope=repository%3Ateam%2Fapp%3Apull"
    )


def test_reg_10_a_realm_elsewhere_is_asked_without_credentials(registry: FaultProxy) -> None:
    """Any registry may name any realm: a stranger's gets no password, allowed or not by http."""
    with fault_proxy() as other:
        realm = f"http://{other.host}/token"
        wants(registry, f'Bearer realm="{realm}",service="x"', "never")
        other.on("GET", "/token", fault.answer(401, b"who are you?"))
        for realms in ((), (other.host,), ("127.0.0.1",)):
            with pytest.raises(Unavailable, match="not shown to the token service") as caught:
                read(repository(registry, Logins(ALICE), *realms))
            assert "s3cr3t" not in str(caught.value)
            assert caught.value.hint is not None
        assert all("authorization" not in item.headers for item in other.seen)
        assert all("alice" not in item.path for item in other.seen)


def test_reg_10_a_token_stays_with_its_registry(registry: FaultProxy) -> None:
    """A redirect of a blob to another host carries no bearer token."""
    with fault_proxy() as storage:
        storage.on("GET", "/signed", fault.answer(200, BLOB))
        away = fault.answer(307, Location=f"http://{storage.host}/signed?key=1")

        def gate(exchange: fault.Exchange) -> None:
            realm = f'Bearer realm="http://{registry.host}/token"'
            known = exchange.seen.headers.get("authorization") == "Bearer t0k3n"
            (away if known else fault.answer(401, WWW_Authenticate=realm))(exchange)

        registry.on("GET", "/v2/", gate)
        registry.on("GET", "/token", token())
        assert read(repository(registry, Logins(ALICE))) == BLOB
        assert "authorization" not in storage.seen[0].headers


def test_a_401_of_another_host_is_no_challenge(registry: FaultProxy) -> None:
    """Where a redirect led, nobody can ask for the credentials."""
    with fault_proxy() as other:
        registry.on("GET", "/v2/", fault.answer(307, Location=f"http://{other.host}/x"))
        other.on("GET", "/x", fault.answer(401, WWW_Authenticate='Basic realm="x"'))
        logins = Logins(ALICE)
        with pytest.raises(Unavailable):
            read(repository(registry, logins))
        assert logins.asked == []
        assert all("authorization" not in item.headers for item in other.seen)


def test_a_realm_that_redirects_gets_no_further(registry: FaultProxy) -> None:
    """A token service that sends us on does not send the password on."""
    with fault_proxy() as other:
        wants(registry, f'Bearer realm="http://{registry.host}/token"', "Bearer t0k3n")
        registry.on("GET", "/token", fault.answer(302, Location=f"http://{other.host}/token"))
        other.on("GET", "/token", token())
        assert read(repository(registry, Logins(ALICE))) == BLOB
        assert all("authorization" not in item.headers for item in other.seen)


def test_an_old_token_is_replaced(registry: FaultProxy) -> None:
    """A token that is over by its own account is not sent; a refused one is renewed once."""
    wants(registry, f'Bearer realm="http://{registry.host}/token"', "Bearer second")
    registry.on("GET", "/token", token("first"), times=1)
    registry.on("GET", "/token", token("second"))
    opened = repository(registry, Logins(ALICE))
    with pytest.raises(Unavailable):
        read(opened)
    assert read(opened) == BLOB
    assert len(registry.requests("GET", "/token")) == 2


@pytest.mark.parametrize(
    "answer",
    [
        fault.answer(200, b"not json"),
        fault.answer(200, b"{}"),
        token(5),
        token("two\nlines"),
        token(""),
        token("x" * 70_000),
        fault.answer(200, b'{"token":"a","token":"b"}'),
        fault.answer(404, b"gone"),
        fault.answer(403, b"no"),
    ],
)
def test_a_bad_answer_of_the_token_service(registry: FaultProxy, answer: fault.Fault) -> None:
    """What is no token ends in an error for people, with the place."""
    wants(registry, f'Bearer realm="http://{registry.host}/token"', "never")
    registry.on("GET", "/token", answer)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        read(repository(registry, Logins(ALICE)))
    assert type(caught.value).__name__ in ("Unavailable", "Inconclusive")
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        ("Basic", [("basic", {})]),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://a/t",service="s, t",scope="r:x:pull,push",Basic realm="y"',
            [
                ("bearer", {"realm": "https://a/t", "service": "s, t", "scope": "r:x:pull,push"}),
                ("basic", {"realm": "y"}),
            ],
        ),
        ('bearer REALM = "q\\"uoted"', [("bearer", {"realm": 'q"uoted'})]),
        ("", []),
        ("=,=", []),
    ],
)
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    """The forms that RFC 9110 allows and registries send."""
    assert [(item.scheme, item.parameters) for item in challenges(header)] == expected


@given(st.text(alphabet='aB"=, \\\t-', max_size=300))
def test_any_header_is_read(header: str) -> None:
    """No header makes the reader fail or run for long."""
    list(challenges(header * 20))


@pytest.mark.parametrize(
    ("name", "host", "path", "key"),
    [
        ("registry.example/a/b", "registry.example", "a/b", "registry.example"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000", "x", "127.0.0.1:5000"),
        ("localhost/x", "localhost", "x", "localhost"),
        ("[::1]:5000/x", "[::1]:5000", "x", "[::1]:5000"),
        ("docker.io/x", "registry-1.docker.io", "library/x", "https://index.docker.io/v1/"),
        ("index.docker.io/a/x", "registry-1.docker.io", "a/x", "https://index.docker.io/v1/"),
    ],
)
def test_names_of_repositories(name: str, host: str, path: str, key: str) -> None:
    """A name says whom to ask, for what, and under which name the login is kept."""
    place = Place.parse(name)
    assert (place.host, place.path, place.key) == (host, path, key)


@pytest.mark.parametrize(
    "name",
    [
        *("", "app", "team/app", "registry.example", "registry.example/", "/app"),
        *("registry.example/App", "registry.example/a//b", "registry.example/../x"),
        *("user@registry.example/x", "https://registry.example/x", "registry.example/x:tag"),
        *("registry.example/x@sha256:aa", "registry.example:65536/x", "a.b/" + "x" * 255),
        *("registry.example/x?y", "registry.example/x#y", "re gistry.example/x", "[::1/x"),
    ],
)
def test_what_names_no_repository(name: str) -> None:
    """Anything else is refused with what to write."""
    with pytest.raises(UsageError) as caught:
        Place.parse(name)
    assert caught.value.hint


@given(st.text(max_size=60))
def test_any_name_is_parsed_or_refused(name: str) -> None:
    """Parsing ends in a place or in an error for people."""
    try:
        place = Place.parse(name)
    except UsageError:
        return
    assert "@" not in place.host
    assert ".." not in place.path
