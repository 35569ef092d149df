"""Keyless signing: a key of minutes that Fulcio certifies, each signature stamped and logged.

The ``sigstore`` library makes the requests, signatures and bundles. What it sends goes through
our own transport, so that each call has its deadline and the identity token one origin; and no
bundle is given out that ``SigstoreVerifier`` has not accepted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from rfc3161_client import (
    HashAlgorithm,
    TimestampRequestBuilder,
    TimeStampResponse,
    decode_timestamp_response,
)
from sigstore._internal.fulcio.client import (
    SIGNING_CERT_ENDPOINT,
    FulcioCertificateSigningResponse,
    _serialize_cert_request,
)
from sigstore._internal.rekor import EntryRequestBody, RekorLogSubmitter
from sigstore._internal.rekor.client import RekorClient
from sigstore._internal.rekor.client_v2 import RekorV2Client
from sigstore.dsse import Envelope, Statement
from sigstore.errors import Error
from sigstore.hashes import Hashed
from sigstore.models import SigningConfig, TransparencyLogEntry
from sigstore.oidc import ExpiredIdentity, IdentityError, IdentityToken
from sigstore.sign import Signer, SigningContext
from sigstore_models.rekor.v1 import TransparencyLogEntry as RawEntry
from sigstore_models.trustroot.v1 import SigningConfig as RawConfig

from secure_pipeline import shape
from secure_pipeline.adapters.http import Grant, HttpLimits, Origin, Transport, shown
from secure_pipeline.adapters.sigstore import PRODUCTION_STORE, SigstoreVerifier
from secure_pipeline.errors import (
    ConfigError,
    Inconclusive,
    PipelineError,
    Unavailable,
    VerificationFailed,
)
from secure_pipeline.files import canonical_json
from secure_pipeline.keys.certificate import read_claim
from secure_pipeline.ports import Clock

LIMITS = HttpLimits(total=60.0, attempts=4, redirects=0)
MARGIN = timedelta(minutes=3)
"""A certificate with less left is renewed: longer than the stamp of a signature may take."""
MAX_CONFIG_BYTES = 4 << 20
_MAX_ANSWER = 1 << 20
_TRUST_CONFIG = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
_TOKEN_HINT = "the token is for the audience 'sigstore' and of this moment: ask for a new one"
_CONFIG_FILE = "signing_config.v0.2.json"
_ENTRIES = {1: "api/v1/log/entries", 2: "api/v2/log/entries"}


@dataclass(frozen=True)
class Services:
    """Where certificates, log entries and time-stamps come from."""

    authority: str
    log: str
    log_version: int
    stamps: tuple[str, ...]
    root: bytes | None
    """The trusted_root.json that came along."""


def read_services(data: bytes | None, where: str) -> Services:
    """Read a SigningConfig v0.2, alone or in a ClientTrustConfig; None is the public instance.

    Raises: ConfigError if it is neither, names no service of today, or none that dates.
    """
    try:
        if data is None:
            data = (resources.files("sigstore") / PRODUCTION_STORE / _CONFIG_FILE).read_bytes()
        document = shape.parse_object(data, where, limit=MAX_CONFIG_BYTES)
        root = None
        if document.get("mediaType") == _TRUST_CONFIG:
            root = canonical_json(shape.member(document, "trustedRoot", dict, where))
            data = canonical_json(shape.member(document, "signingConfig", dict, where))
        chosen = SigningConfig(RawConfig.from_json(data))
    except (VerificationFailed, Error, ValueError, TypeError) as error:
        text = " ".join(getattr(error, "message", str(error)).split())
        raise ConfigError(
            f"no signing configuration of Sigstore: {text[:200]}", where=where
        ) from None
    logs, stamps = chosen._tlogs, tuple(one.url for one in chosen._tsas)
    if len(logs) != 1:
        raise ConfigError(f"asks for {len(logs)} log entries; one is written", where=where)
    if logs[0].major_api_version != 1 and not stamps:
        raise ConfigError(
            "names no time-stamp authority, and entries of this log have no time", where=where
        )
    log = logs[0]
    return Services(chosen._fulcios[0].url, log.url, log.major_api_version, stamps, root)


class SigstoreSigner:
    """A ``KeylessSigner``; the certificate is asked for when it is first needed."""

    def __init__(
        self,
        services: Services,
        verifier: SigstoreVerifier,
        token: Callable[[], str],
        transport: Transport,
        clock: Clock,
    ) -> None:
        """``token`` gives an identity token, a new one each time if there is one."""
        wire = _Wire(transport)
        self._context = SigningContext(
            fulcio=_Authority(wire, services.authority),  # type: ignore[arg-type]
            rekor=_Log(wire, services),
            trusted_root=verifier.root,
            tsa_clients=[_Stamps(wire, url) for url in services.stamps],  # type: ignore[misc]
        )
        self._verifier = verifier
        self._token = token
        self._clock = clock
        self._lock = threading.Lock()
        self._signer: Signer | None = None
        self._until = clock.now()
        self._identity: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return "SigstoreSigner()"

    @property
    def identity(self) -> tuple[str, str]:
        """Implement ``KeylessSigner.identity``."""
        self._certified()
        assert self._identity is not None
        return self._identity

    def sign(self, payload: bytes) -> bytes:
        """Implement ``KeylessSigner.sign``."""
        signer = self._certified()
        with _explained():
            bundle = signer.sign_dsse(Statement(payload)).to_json().encode()
        self._check(bundle, payload)
        return bundle

    def signed(self, bundle: bytes, payload: bytes) -> bool:
        """Implement ``KeylessSigner.signed``."""
        self._certified()
        try:
            self._check(bundle, payload)
        except (VerificationFailed, Inconclusive):
            return False
        return True

    def _check(self, bundle: bytes, payload: bytes) -> None:
        found = self._verifier.verify(bundle, payload)
        if (found.identity, found.issuer) != self._identity:
            raise VerificationFailed("the bundle is of another identity than the certificate")

    def _certified(self) -> Signer:
        """The library's signer, with a certificate that lives long enough.

        Raises: VerificationFailed if a renewed one names somebody else.
        """
        with self._lock, _explained():
            if self._signer is None or self._until - self._clock.now() < MARGIN:
                signer = Signer(IdentityToken(self._token()), self._context)
                certificate = signer._signing_cert()
                claim = read_claim(certificate.public_bytes(Encoding.DER))
                identity = (claim.identity, claim.issuer)
                if self._identity not in (None, identity):
                    raise VerificationFailed(
                        f"the identity changed from {self._identity} to {identity} in between"
                    )
                self._signer, self._identity = signer, identity
                self._until = certificate.not_valid_after_utc
            return self._signer


class _Wire:
    """What the services are asked through; nothing but a good answer comes back."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def post(self, url: str, body: bytes, kind: str, grant: Grant | None = None) -> bytes:
        """Send, and read the whole answer. Raises: Unavailable, Inconclusive (too long)."""
        headers = {"Content-Type": kind}
        with self._transport.request(
            "POST", url, headers=headers, body=body, grant=grant, retry=True, follow=False
        ) as answer:
            if answer.status not in (200, 201):
                words = answer.quote()
                raise Unavailable(
                    f"refused: answer {answer.status}{f', {words}' if words else ''}",
                    where=shown(url),
                )
            return answer.read(_MAX_ANSWER)

    def post_json(self, url: str, body: bytes, grant: Grant | None = None) -> dict[str, Any]:
        """Send JSON and parse the answer. Raises: Unavailable, VerificationFailed."""
        answer = self.post(url, body, "application/json", grant)
        return shape.parse_object(answer, shown(url), limit=_MAX_ANSWER)


class _Authority:
    """Fulcio, as the library's client of it looks to a signer."""

    def __init__(self, wire: _Wire, url: str) -> None:
        self._wire = wire
        self._url = f"{url.rstrip('/')}{SIGNING_CERT_ENDPOINT}"

    @property
    def signing_cert(self) -> _Authority:
        """Itself: there is one thing to ask for."""
        return self

    def post(
        self, request: x509.CertificateSigningRequest, token: IdentityToken
    ) -> FulcioCertificateSigningResponse:
        """Ask for a certificate with its promise embedded, and its chain."""
        where = shown(self._url)
        grant = Grant(Origin.of(self._url), f"Bearer {token}")
        body = _serialize_cert_request(request).encode()
        answer = self._wire.post_json(self._url, body, grant)
        signed = shape.member(answer, "signedCertificateEmbeddedSct", dict, where)
        chain = shape.member(
            shape.member(signed, "chain", dict, where), "certificates", list, where
        )
        found = [x509.load_pem_x509_certificate(str(text).encode()) for text in chain[:10]]
        if len(found) < 2:
            raise VerificationFailed("the certificate comes without its issuer's", where=where)
        return FulcioCertificateSigningResponse(found[0], found[1:])


class _Log(RekorLogSubmitter):
    """Rekor of either version; the library words the entries."""

    def __init__(self, wire: _Wire, services: Services) -> None:
        self._wire = wire
        self._version = services.log_version
        self._url = f"{services.log.rstrip('/')}/{_ENTRIES[services.log_version]}"
        made = RekorClient if services.log_version == 1 else RekorV2Client
        self._words: RekorLogSubmitter = made(services.log)

    def create_entry(self, request: EntryRequestBody) -> TransparencyLogEntry:
        """Log, and return the entry with its proof."""
        answer = self._wire.post_json(self._url, canonical_json(request))
        if self._version == 1:
            return TransparencyLogEntry._from_v1_response(answer)
        return TransparencyLogEntry(RawEntry.from_dict(answer))

    def _build_dsse_request(  # type: ignore[override]
        self, envelope: Envelope, certificate: x509.Certificate
    ) -> EntryRequestBody:
        return self._words._build_dsse_request(envelope=envelope, certificate=certificate)

    def _build_hashed_rekord_request(  # type: ignore[override]
        self, hashed_input: Hashed, signature: bytes, certificate: x509.Certificate
    ) -> EntryRequestBody:
        raise NotImplementedError("only statements are signed")


class _Stamps:
    """A time-stamp authority, as the library's client of it looks to a signer."""

    def __init__(self, wire: _Wire, url: str) -> None:
        self._wire = wire
        self.url = url

    def request_timestamp(self, signature: bytes) -> TimeStampResponse:
        """Ask for a stamp of a signature; whether it is good the verifier says."""
        wanted = TimestampRequestBuilder().hash_algorithm(HashAlgorithm.SHA256).data(signature)
        body = wanted.nonce(nonce=True).build().as_bytes()
        answer = self._wire.post(self.url, body, "application/timestamp-query")
        return decode_timestamp_response(answer)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn whatever the library raises into an error that says who has to act."""
    try:
        yield
    except PipelineError:
        raise
    except (IdentityError, ExpiredIdentity) as error:
        why = str(error.__cause__ or error) or "it is expired"
        raise Unavailable(
            f"the identity token cannot be used: {why[:200]}", hint=_TOKEN_HINT
        ) from None
    except Exception as error:
        text = " ".join(str(error).split()).partition(" [type=")[0][:300]
        raise VerificationFailed(f"not signed: {text or type(error).__name__}") from error
