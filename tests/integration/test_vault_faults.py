"""A real Vault that is sealed, slow, redirecting, restarted or lying: nothing leaks or hangs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import hvac
import pytest

from fakes.faultproxy import (
    Exchange,
    FaultProxy,
    Reply,
    answer,
    drip,
    drip_headers,
    fault_proxy,
)
from fakes.vaultserver import RealVault, real_vault
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.identitytoken import GithubJob
from secure_pipeline.adapters.vault import TokenRule, VaultSession
from secure_pipeline.adapters.vaulthealth import STATES
from secure_pipeline.adapters.vaultlogin import AppRole, GithubRole, JwtRole, Login, log_in
from secure_pipeline.adapters.vaultpending import PendingTokens
from secure_pipeline.adapters.vaultwire import VaultServer, VaultWire, known_words
from secure_pipeline.audit.entry import Actor
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.errors import ConfigError, Unavailable, VerificationFailed
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.keys.vault_transit import VaultTransitSigner

pytestmark = pytest.mark.integration

KEY = KeyRef.parse("vault-transit://transit/release")


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealVault]:
    """A Vault without TLS, for faults to be put in front of."""
    with real_vault(tmp_path_factory.mktemp("vault"), plain=True) as made:
        made.transit_key("release")
        made.role("signer", "release")
        yield made


@pytest.fixture
def proxy(vault: RealVault) -> Iterator[FaultProxy]:
    """What does wrong in front of it."""
    with fault_proxy(f"127.0.0.1:{vault.port}") as made:
        yield made


def approle(vault: RealVault, **more: str) -> AppRole:
    """A login with a fresh wrapped secret-id."""
    role_id = vault.api("GET", "auth/approle/role/signer/role-id")["data"]["role_id"]
    return AppRole(
        "signer", role_id, more.get("wrapped") or vault.wrapped_secret_id("signer"),
        creation_path=more.get("creation_path"),
    )  # fmt: skip


Open = Callable[..., VaultSession]


@pytest.fixture
def opened(vault: RealVault, proxy: FaultProxy, tmp_path: Path) -> Open:
    """Makes sessions through the proxy; they wait a second at most."""

    def make(login: Login | None = None, **more: object) -> VaultSession:
        options = {"seconds": 1.0, "patience": 0.0, "plain_http": True, **more}
        rule = TokenRule(int(str(options.pop("maximum", 900))))
        server = VaultServer(f"http://{proxy.host}", **options)  # type: ignore[arg-type]
        pending = PendingTokens(tmp_path / "tokens")
        return VaultSession(server, login or approle(vault), SystemClock(), pending, rule=rule)

    return make


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_vlt_01_no_redirect_takes_the_token_anywhere(
    proxy: FaultProxy, opened: Open, status: int, method: str
) -> None:
    """Whatever the redirect, the other host sees no request at all, so no token."""
    with fault_proxy() as thief, opened() as session:
        signer = VaultTransitSigner(session, KEY)
        path = "/transit/keys/" if method == "GET" else "/transit/sign/"
        location = f"http://{thief.host}/v1/{path}"
        proxy.on(method, path, answer(status, Location=location), times=1)
        proxy.on("PUT", path, answer(status, Location=location), times=1)
        with pytest.raises(Unavailable, match="redirects to"):
            VaultTransitSigner(session, KEY) if method == "GET" else signer.sign(b"m")
        assert thief.seen == []


def test_vlt_01_no_redirect_takes_the_secret_id_anywhere(
    vault: RealVault, proxy: FaultProxy, opened: Open
) -> None:
    """A login that is redirected sends role-id and secret-id nowhere else."""
    before = vault.accessors()
    with fault_proxy() as thief:
        location = f"http://{thief.host}/v1/auth/approle/login"
        proxy.on("POST", "/approle/login", answer(307, Location=location))
        with pytest.raises(Unavailable, match="redirects to"), opened():
            pass
        assert thief.seen == []
    assert vault.accessors() == before


def test_vlt_01_a_peer_that_was_named_is_followed_by_307_only(
    vault: RealVault, proxy: FaultProxy, opened: Open
) -> None:
    """A standby's 307 to a configured peer is followed; the same by 302 is not."""
    with fault_proxy(f"127.0.0.1:{vault.port}") as peer:
        address = f"http://{peer.host}"
        for status in (307, 302):
            location = f"{address}/v1/transit/keys/release"
            proxy.on("GET", "/transit/keys/", answer(status, Location=location), times=1)
        with opened(peers=(address,)) as session:
            assert VaultTransitSigner(session, KEY).version == 1
            assert len(peer.seen) == 1
            with pytest.raises(Unavailable, match="redirects to"):
                VaultTransitSigner(session, KEY)
        assert len(peer.seen) == 1


def test_vlt_01_hvac_by_itself_would_hand_the_token_over(proxy: FaultProxy) -> None:
    """The control: the library alone follows the same redirect with the token, as was measured."""
    with fault_proxy() as thief:
        location = f"http://{thief.host}/v1/transit/keys/release"
        proxy.on("GET", "/transit/keys/", answer(302, Location=location))
        client = hvac.Client(url=f"http://{proxy.host}", token="hvs.sentinel")
        with suppress(Exception):
            client.secrets.transit.read_key(name="release")
        assert thief.seen[0].headers["x-vault-token"] == "hvs.sentinel"


def test_vlt_11_a_proxy_of_the_environment_sees_nothing(
    vault: RealVault, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxy variables are not read: no token passes through whoever they name."""
    login = approle(vault)
    with fault_proxy() as outsider:
        for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://{outsider.host}")
        monkeypatch.setenv("no_proxy", "")
        with opened(login) as session:
            assert VaultTransitSigner(session, KEY).sign(b"message")
        assert outsider.seen == []


def test_vlt_11_plain_http_is_written_to_the_ledger(
    vault: RealVault, proxy: FaultProxy, tmp_path: Path
) -> None:
    """A session without TLS says so in each entry."""
    path = tmp_path / "ledger.jsonl"
    ledger = FileLedger(path, Actor("os", "me", verified=False), SystemClock())
    server = VaultServer(f"http://{proxy.host}", plain_http=True, patience=0.0)
    pending = PendingTokens(tmp_path / "tokens")
    opened = VaultSession(server, approle(vault), SystemClock(), pending, ledger=ledger)
    with opened as session:
        VaultTransitSigner(session, KEY).sign(b"message")
    _, *entries = [json.loads(line) for line in path.read_text().splitlines()]
    intents = [entry for entry in entries if entry["kind"] == "intent"]
    assert [entry["action"] for entry in intents] == ["login", "sign"]
    assert all(entry["details"]["plainHttp"] for entry in intents)


def test_vlt_04_errors_hold_no_token_and_no_secret(
    vault: RealVault, proxy: FaultProxy, opened: Open
) -> None:
    """A server that repeats in its error what it was sent is not quoted."""

    def echo(exchange: Exchange) -> None:
        texts = [*exchange.seen.headers.values(), exchange.seen.body.decode()]
        body = json.dumps({"errors": [*texts, "permission denied"]}).encode()
        exchange.reply(Reply(403, (("Content-Type", "application/json"),), body))

    login = approle(vault)
    proxy.on("POST", "/approle/login", echo)
    proxy.on("PUT", "/approle/login", echo)
    with pytest.raises(Exception, match="permission denied") as caught, opened(login):
        pass
    (sent,) = proxy.requests("POST", "/approle/login")
    secret = json.loads(sent.body)["secret_id"]
    error: BaseException | None = caught.value
    while error is not None:
        for text in (secret, login.wrapped, login.role_id):
            assert text not in f"{error!r} {error} {vars(error)}"
        error = error.__cause__ or error.__context__


def test_vlt_04_only_known_words_are_repeated() -> None:
    """An error body gives one of our own phrases, or nothing."""
    assert known_words(b'{"errors":["1 error occurred:\\n\\t* permission denied: hvs.X"]}') == (
        "permission denied"
    )
    for body in (b"", b"hvs.X", b'{"errors":["hvs.X"]}', b'{"errors":"hvs.X"}', b"[]"):
        assert known_words(body) == ""


def test_vlt_06_a_wrapping_token_that_expired_is_an_alarm(vault: RealVault, opened: Open) -> None:
    """An expired wrapping token cannot be told from a stolen one, and is treated as such."""
    wrapped = vault.wrapped_secret_id("signer", "1s")
    gone = threading.Event()
    for _ in range(100):
        body = {"token": wrapped}
        if vault.status("POST", "sys/wrapping/lookup", body, "") != 200:
            gone.set()
            break
        gone.wait(0.05)
    assert gone.is_set()
    with (
        pytest.raises(VerificationFailed, match="stolen") as caught,
        opened(approle(vault, wrapped=wrapped)),
    ):
        pass
    assert caught.value.exit_code == 11


def test_vlt_06_a_wrapping_token_made_elsewhere_is_refused(
    vault: RealVault, proxy: FaultProxy, opened: Open
) -> None:
    """A token that wraps another thing, or another role's secret-id, is never unwrapped."""
    headers = {"X-Vault-Wrap-TTL": "60s"}
    planted = vault.api("POST", "sys/wrapping/wrap", {"secret_id": "planted"}, **headers)
    vault.role("other", "release")
    for wrapped in (planted["wrap_info"]["token"], vault.wrapped_secret_id("other")):
        with (
            pytest.raises(VerificationFailed, match="made by another request"),
            opened(approle(vault, wrapped=wrapped)),
        ):
            pass
        assert vault.status("POST", "sys/wrapping/lookup", {"token": wrapped}, "") == 200
    assert proxy.requests("POST", "unwrap") == []
    named = approle(vault, creation_path="auth/approle/role/other/secret-id")
    with pytest.raises(VerificationFailed, match="made by another request"), opened(named):
        pass


def test_vlt_06_somebody_faster_between_look_and_unwrapping_is_an_alarm(
    vault: RealVault, proxy: FaultProxy, opened: Open
) -> None:
    """A token that is unwrapped between our lookup and our unwrapping is an alarm."""
    login = approle(vault)

    def stolen(exchange: Exchange) -> None:
        vault.api("POST", "sys/wrapping/unwrap", token=login.wrapped)
        exchange.reply(exchange.forward())

    proxy.on("POST", "/sys/wrapping/unwrap", stolen)
    with pytest.raises(VerificationFailed, match="used by somebody else"), opened(login):
        pass


def test_vlt_07_a_token_that_ends_too_soon_signs_nothing(
    vault: RealVault, proxy: FaultProxy, opened: Open
) -> None:
    """With less time left than a step needs, and no renewal, nothing is sent to be signed."""
    vault.role("brief", "release", ttl="20s")
    role_id = vault.api("GET", "auth/approle/role/brief/role-id")["data"]["role_id"]
    login = AppRole("brief", role_id, vault.wrapped_secret_id("brief"))
    with opened(login) as session:
        signer = VaultTransitSigner(session, KEY)
        with pytest.raises(Unavailable, match="seconds left, 60 are needed"):
            signer.sign(b"message")
    assert len(proxy.requests("POST", "/transit/sign/")) == 0
    assert len(proxy.requests("PUT", "renew-self") + proxy.requests("POST", "renew-self")) == 1


def test_vlt_07_a_token_that_may_be_renewed_is(
    vault: RealVault, proxy: FaultProxy, opened: Open
) -> None:
    """A short token with a longer maximum is renewed before the step."""
    vault.role("renewed", "release", ttl="20s", token_max_ttl="10m")
    role_id = vault.api("GET", "auth/approle/role/renewed/role-id")["data"]["role_id"]
    login = AppRole("renewed", role_id, vault.wrapped_secret_id("renewed"))
    with opened(login) as session:
        assert VaultTransitSigner(session, KEY).sign(b"message")
        assert VaultTransitSigner(session, KEY).sign(b"message")
    renewals = proxy.requests("PUT", "renew-self") + proxy.requests("POST", "renew-self")
    assert len(renewals) == 1


@pytest.mark.parametrize("status", sorted(set(STATES) - {200, 429, 473}))
def test_vlt_09_each_state_has_its_own_message(
    proxy: FaultProxy, opened: Open, status: int
) -> None:
    """A server that cannot serve is told by what it is, before anything is sent to it."""
    proxy.on("GET", "/sys/health", answer(status, b"{}"))
    with pytest.raises(Unavailable) as caught, opened():
        pass
    assert caught.value.exit_code == 4
    assert caught.value.message == f"Vault {STATES[status][0]}"
    assert caught.value.hint == STATES[status][1]
    assert len({meaning for meaning, _ in STATES.values()}) == len(STATES)
    assert [item for item in proxy.seen if "/sys/health" not in item.path] == []


@pytest.mark.parametrize("status", [429, 473])
def test_vlt_09_a_standby_serves(proxy: FaultProxy, opened: Open, status: int) -> None:
    """Standbys pass requests on: they are used."""
    proxy.on("GET", "/sys/health", answer(status, b"{}"))
    with opened() as session:
        assert VaultTransitSigner(session, KEY).version == 1


def test_vlt_09_a_server_that_unseals_in_time_is_waited_for(
    proxy: FaultProxy, opened: Open
) -> None:
    """Within the patience that was asked for, a sealed server may become active."""
    proxy.on("GET", "/sys/health", answer(503, b"{}"), times=2)
    with opened(patience=20.0) as session:
        assert VaultTransitSigner(session, KEY).version == 1
    assert len(proxy.requests("GET", "/sys/health")) == 3


def test_vlt_09_sealed_and_restarted_between_two_signatures(tmp_path: Path) -> None:
    """A Vault that is sealed or restarted stops the next signature; its token ends afterwards."""
    with real_vault(tmp_path / "vault", plain=True) as vault:
        vault.transit_key("release")
        vault.role("signer", "release")
        before = vault.accessors()
        server = VaultServer(vault.address, seconds=2.0, patience=0.0, plain_http=True)
        pending = PendingTokens(tmp_path / "tokens")
        told: list[str] = []
        session = VaultSession(server, approle(vault), SystemClock(), pending, warn=told.append)
        with session:
            signer = VaultTransitSigner(session, KEY)
            signer.sign(b"one")
            vault.seal()
            with pytest.raises(Unavailable, match="Vault is sealed"):
                signer.sign(b"two")
            vault.unseal()
            signer.sign(b"three")
            vault.kill()
            with pytest.raises(Unavailable, match="no answer"):
                signer.sign(b"four")
        (left,) = pending.all()
        assert left.accessor in told[0]
        assert "vault revoke-pending" in told[0]
        vault.start()
        with pytest.raises(Unavailable, match="Vault is sealed"):
            VaultSession(server, JwtRole("x", "y"), SystemClock(), pending).open()
        vault.unseal()
        with VaultSession(server, approle(vault), SystemClock(), pending) as later:
            assert later.revoke_pending() == ((left, "revoked"),)
        assert vault.accessors() == before


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/sys/health", drip_headers),
        ("/sys/wrapping/lookup", drip),
        ("/sys/wrapping/lookup", drip_headers),
        ("/approle/login", drip),
        ("/approle/login", drip_headers),
    ],
)
def test_vlt_10_a_slow_server_is_given_up_in_time(
    proxy: FaultProxy, opened: Open, fault: Callable[[Exchange], None], path: str
) -> None:
    """Bytes that drip for minutes end with the call's deadline, wherever they drip."""
    for method in ("GET", "POST", "PUT"):
        proxy.on(method, path, fault)
    with pytest.raises(Unavailable, match="deadline"), opened():
        pass


def test_vlt_10_an_answer_over_the_limit_is_not_read(proxy: FaultProxy, opened: Open) -> None:
    """An answer of gigabytes is refused by its length."""
    proxy.on("GET", "/transit/keys/", lambda e: e.begin(200, {"Content-Length": "9" * 12}))
    with opened() as session, pytest.raises(Exception, match="limit"):
        VaultTransitSigner(session, KEY)


@pytest.mark.parametrize(
    ("address", "options", "words"),
    [
        ("http://vault.example:8200", {"plain_http": True}, "plain http is refused"),
        ("http://127.0.0.1:8200", {}, "plain http is refused unless it is asked for"),
        ("https://user:password@vault.example", {}, "is no address"),
        ("https://vault.example/v1?token=x", {}, "is more than"),
        ("ftp://vault.example", {}, "is no address"),
        ("vault.example:8200", {}, "is no address"),
        ("https://vault.example", {"namespace": "../root"}, "plain names"),
        ("https://vault.example", {"peers": ("http://vault.example",)}, "plain http is refused"),
    ],
)
def test_vlt_11_addresses_that_are_refused(
    address: str, options: dict[str, object], words: str
) -> None:
    """Plain http is for this machine and by request alone; nothing hides in an address."""
    with pytest.raises(ConfigError, match=words) as caught:
        VaultServer(address, **options)  # type: ignore[arg-type]
    assert "password" not in str(caught.value)
    assert "token=x" not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["../sys/raw", "a/../b", "a%2fb", "a//b", "/a", "a/", "", "a b", "a?b", "a#b", ".", "ä"]
)
def test_vlt_13_no_path_leaves_its_mount(proxy: FaultProxy, opened: Open, path: str) -> None:
    """Names with dots, slashes or escapes in the wrong place are refused before they are sent."""
    with opened() as session:
        count = len(proxy.seen)
        with pytest.raises(ConfigError, match="plain names"):
            session.transit_key("transit", path)
        with pytest.raises(ConfigError, match="plain names"):
            session.kv_read(path, "release", None)
        assert len(proxy.seen) == count


def _rewritten(change: Callable[[str], str]) -> Callable[[Exchange], None]:
    def fault(exchange: Exchange) -> None:
        reply = exchange.forward()
        document = json.loads(reply.body)
        document["data"]["signature"] = change(document["data"]["signature"])
        headers = tuple(i for i in reply.headers if i[0].lower() != "content-length")
        exchange.reply(replace(reply, headers=headers, body=json.dumps(document).encode()))

    return fault


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("v1:", "v10:"), "signed with version 10 instead of 1"),
        (lambda text: text.replace("v1:", "v01:"), "no signature of its form"),
        (lambda text: text + "\n", "no signature of its form"),
        (lambda text: text.replace("vault:", "Vault:"), "no signature of its form"),
        (lambda text: "vault:v1:AAAA", "does not verify"),
        (lambda text: "vault:v1:A", "no base64"),
        (lambda text: "", "no signature of its form"),
    ],
)
def test_a_signature_that_is_not_the_keys_is_never_given_out(
    proxy: FaultProxy, opened: Open, change: Callable[[str], str], words: str
) -> None:
    """Altered answers of Vault are found before anybody sees the signature."""
    for method in ("POST", "PUT"):
        proxy.on(method, "/transit/sign/", _rewritten(change))
    with opened() as session:
        signer = VaultTransitSigner(session, KEY)
        with pytest.raises(VerificationFailed, match=words):
            signer.sign(b"message")


def test_versions_are_numbers(vault: RealVault, opened: Open) -> None:
    """After eleven rotations the newest is 12, not 9; a named one stays what it is."""
    vault.transit_key("often")
    for _ in range(11):
        vault.api("POST", "transit/keys/often/rotate")
    vault.role("signer", "often")
    try:
        with opened() as session:
            newest = VaultTransitSigner(session, KeyRef.parse("vault-transit://transit/often"))
            named = VaultTransitSigner(session, KeyRef.parse("vault-transit://transit/often@9"))
            assert (newest.version, named.version) == (12, 9)
            assert named.public_key("k").verify(b"m", named.sign(b"m"))
            assert not newest.public_key("k").verify(b"m", named.sign(b"m"))
            with pytest.raises(ConfigError, match="versions 1 to 12"):
                VaultTransitSigner(session, KeyRef.parse("vault-transit://transit/often@13"))
    finally:
        vault.role("signer", "release")


@pytest.mark.parametrize("kind", ["ecdsa-p384", "ed25519"])
def test_other_kinds_of_keys_sign(vault: RealVault, opened: Open, kind: str) -> None:
    """P-384 and Ed25519 keys of Vault sign and verify as well."""
    vault.transit_key(kind, kind)
    vault.role("signer", kind)
    try:
        with opened() as session:
            signer = VaultTransitSigner(session, KeyRef.parse(f"vault-transit://transit/{kind}"))
            assert signer.algorithm.startswith(kind)
            assert signer.public_key("k").verify(b"message", signer.sign(b"message"))
    finally:
        vault.role("signer", "release")


def test_a_key_that_cannot_sign_is_refused(vault: RealVault, opened: Open) -> None:
    """A symmetric key is told apart by what Vault says about it."""
    vault.transit_key("sealed-box", "aes256-gcm96")
    vault.role("signer", "sealed-box")
    try:
        with opened() as session, pytest.raises(ConfigError, match="cannot sign"):
            VaultTransitSigner(session, KeyRef.parse("vault-transit://transit/sealed-box"))
    finally:
        vault.role("signer", "release")


def test_github_tokens_are_asked_for_without_leaving_their_host(vault: RealVault) -> None:
    """The job's token goes to the address that was given, and to nobody it redirects to."""
    with fault_proxy() as github, fault_proxy() as thief:
        wire = VaultWire(VaultServer(vault.address, seconds=2.0, plain_http=True), SystemClock())
        url = f"http://{github.host}/token?api-version=2.0"
        login = GithubRole("signer", GithubJob(url, "bearer-value"), audience="vault")
        github.on("GET", "/token", answer(302, Location=f"http://{thief.host}/"), times=1)
        with pytest.raises(Unavailable, match="redirects") as caught:
            log_in(wire, login, 900)
        assert "bearer-value" not in str(caught.value)
        assert thief.seen == []
        assert github.seen[0].headers["authorization"] == "bearer bearer-value"
        assert github.seen[0].path.endswith("&audience=vault")


def test_a_namespace_is_sent_with_each_request(proxy: FaultProxy, opened: Open) -> None:
    """Every request of a session names the namespace; the question about health does not."""
    with opened(namespace="team/ci") as session:
        VaultTransitSigner(session, KEY).sign(b"message")
    named = [seen for seen in proxy.seen if "/sys/health" not in seen.path]
    assert len(named) >= 6
    assert {seen.headers.get("x-vault-namespace") for seen in named} == {"team/ci"}
    assert "x-vault-namespace" not in proxy.requests("GET", "/sys/health")[0].headers
