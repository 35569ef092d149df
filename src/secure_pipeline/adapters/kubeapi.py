"""Ask a Kubernetes API server: whole answers, within a deadline, or a clear error.

API conventions: https://kubernetes.io/docs/reference/using-api/api-concepts/ (chunked lists).
"""

from __future__ import annotations

import json
import queue
import re
import shlex
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import requests
from requests.adapters import HTTPAdapter

from secure_pipeline import strictjson
from secure_pipeline.adapters.kubeconfig import KubernetesConfig
from secure_pipeline.errors import Inconclusive, Unavailable
from secure_pipeline.ports import Clock

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 20.0
TOTAL_SECONDS = 60.0
"""For everything that one question needs, not for each request."""
MAX_ANSWER_BYTES = 32 << 20
MAX_ITEMS = 5000
MAX_PAGES = 500
_PAGE = 100
_WORDS = 300
_WRITER = "secure-pipeline"
"""Under this name the server notes who set a field."""
_JSON_PATCH = "application/json-patch+json"
_USER = re.compile(r'User "([^"]{1,253})"')


class Forbidden(Unavailable):
    """The server knows who asks and does not allow it."""


class Changed(Unavailable):
    """Somebody changed the object since it was read; nothing was written."""


@dataclass(frozen=True)
class Resource:
    """One kind of things: where its API is and how RBAC calls it."""

    plural: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    verbs: tuple[str, ...] = ()
    """What one must be allowed who asks for them; () if each verb is of use alone."""

    def path(self, namespace: str, name: str = "") -> str:
        """The path of all of them, or of one."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = ["namespaces", namespace] if self.namespaced else []
        parts += [self.plural, name] if name else [self.plural]
        return "/".join([base, *(quote(part, safe="") for part in parts)])


class KubernetesApi:
    """Connections to one server while ``connected``; nothing is sent anywhere else."""

    def __init__(
        self, session: requests.Session, config: KubernetesConfig, clock: Clock, seconds: float
    ) -> None:
        self._session = session
        self._config = config
        self._clock = clock
        self._seconds = seconds
        self._deadline = clock.monotonic() + seconds

    @classmethod
    @contextmanager
    def connected(
        cls, config: KubernetesConfig, clock: Clock, seconds: float | None = None
    ) -> Iterator[KubernetesApi]:
        """Yield an API whose requests all end within ``seconds`` (TOTAL_SECONDS) from now."""
        with (
            tempfile.TemporaryDirectory(prefix="secure-pipeline-") as name,
            _session(config, Path(name)) as session,
        ):
            yield cls(session, config, clock, TOTAL_SECONDS if seconds is None else seconds)

    def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any] | None:
        """Read one object; None if there is none of that name.

        Raises: Forbidden, Unavailable.
        """
        path = resource.path(namespace, name)
        return self._answer(path, "get", resource, namespace)

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        version: str,
        operations: Sequence[Mapping[str, Any]],
    ) -> None:
        """Apply a JSON Patch (RFC 6902) to the object whose resourceVersion is ``version``.

        Raises: Changed if there is another one by now; Forbidden; Unavailable, and then it may
        have been written all the same.
        """
        # The server answers 409 to a version that is not the present one. To an operation
        # "test" that fails it answers 422, as it does to a value that is wrong.
        guard = {"op": "replace", "path": "/metadata/resourceVersion", "value": version}
        path = f"{resource.path(namespace, name)}?{urlencode({'fieldManager': _WRITER})}"
        body = json.dumps([guard, *operations]).encode()
        if self._answer(path, "patch", resource, namespace, body) is None:
            raise Changed(f"{name} is no longer one of the {resource.plural}", where=self._server)

    def read_all(self, resource: Resource, namespace: str) -> list[dict[str, Any]]:
        """Read all objects of one kind in a namespace.

        Raises: Forbidden; Unavailable; Inconclusive for more than MAX_ITEMS.
        """
        items: list[dict[str, Any]] = []
        following = ""
        for _ in range(MAX_PAGES):
            query = {"limit": str(_PAGE), **({"continue": following} if following else {})}
            path = f"{resource.path(namespace)}?{urlencode(query)}"
            page = self._answer(path, "list", resource, namespace)
            if page is None:
                raise self._error(f"it knows no {resource.plural}")
            items += self._items(page, resource)
            following = self._following(page)
            if len(items) > MAX_ITEMS:
                break
            if not following:
                return items
        raise Inconclusive(
            f"more than {MAX_ITEMS} {resource.plural} in namespace {namespace}",
            where=self._server,
            hint="name one workload: k8s://NAMESPACE/KIND/NAME",
        )

    def _items(self, page: Mapping[str, Any], resource: Resource) -> list[dict[str, Any]]:
        items = page.get("items")
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise self._error(f"its answer is no list of {resource.plural}")
        return items

    def _following(self, page: Mapping[str, Any]) -> str:
        metadata = page.get("metadata")
        if not isinstance(metadata, dict):
            raise self._error("its list says nothing about a next page")
        following = metadata.get("continue") or ""
        if not isinstance(following, str) or len(following) > 1 << 14:
            raise self._error("its list has no readable next page")
        return following

    def _answer(
        self, path: str, verb: str, resource: Resource, namespace: str, patch: bytes | None = None
    ) -> dict[str, Any] | None:
        """The JSON object that a path gives; None for 404."""
        code, body = self._within_the_deadline(path, patch)
        if code == 404:
            return None
        if code == 403:
            raise self._forbidden(body, verb, resource, namespace)
        if code == 401:
            raise self._error(
                "it does not accept the credential (401)",
                hint="renew the token or certificate of this context",
            )
        if code == 410:
            raise self._error("the list changed too much while it was read (410); try again")
        if code == 409:
            raise Changed("the object was changed meanwhile (409)", where=self._server)
        if code != 200:
            raise self._error(f"it answered {code} to {verb} {resource.plural}{_said(body)}")
        return self._object(body)

    def _object(self, body: bytes) -> dict[str, Any]:
        try:
            value = strictjson.loads(body, limit=MAX_ANSWER_BYTES)
        except strictjson.InvalidJson as error:
            raise self._error(f"its answer is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise self._error("its answer is not a JSON object")
        return value

    def _within_the_deadline(self, path: str, patch: bytes | None) -> tuple[int, bytes]:
        """Status and body of a GET, or of a PATCH.

        A server that sends a byte now and then never trips a time-out of the socket, so the
        request runs in a thread that is left alone when the time is over.
        """
        answers: queue.SimpleQueue[tuple[int, bytes] | Exception] = queue.SimpleQueue()
        asked = (self._session, self._server + path, patch, answers)
        threading.Thread(target=_request, args=asked, daemon=True).start()
        try:
            answer = answers.get(timeout=max(0.0, self._deadline - self._clock.monotonic()))
        except queue.Empty:
            raise self._error(f"no whole answer within {self._seconds:.0f} s") from None
        if isinstance(answer, (requests.RequestException, OSError)):
            raise self._error(f"no answer: {_reason(answer)}", hint=_hint(answer)) from None
        if isinstance(answer, Exception):
            raise answer
        if len(answer[1]) > MAX_ANSWER_BYTES:
            raise self._error(f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
        return answer

    def _forbidden(self, body: bytes, verb: str, resource: Resource, namespace: str) -> Forbidden:
        user = _user(body)
        place = f" in namespace {namespace}" if resource.namespaced else ""
        return Forbidden(
            f"{user or 'this credential'} may not {verb} {resource.plural}{place}",
            where=self._server,
            hint=_permission(user or "USER", verb, resource, namespace),
        )

    @property
    def _server(self) -> str:
        return self._config.server

    def _error(self, message: str, hint: str | None = None) -> Unavailable:
        return Unavailable(message, where=self._server, hint=hint)


class _Verified(HTTPAdapter):
    """Connections that check the server's certificate for another name than the host's."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        if self._name:
            options |= {"server_hostname": self._name, "assert_hostname": self._name}
        super().init_poolmanager(*arguments, **options)


@contextmanager
def _session(config: KubernetesConfig, directory: Path) -> Iterator[requests.Session]:
    """A session that trusts the cluster's CA alone and reads no proxy, netrc or CA variable."""
    with requests.Session() as session:
        session.trust_env = False
        session.verify = _file(directory / "ca.pem", config.ca)
        if config.certificate is not None and config.key is not None:
            session.cert = (
                _file(directory / "certificate.pem", config.certificate),
                _file(directory / "key.pem", config.key),
            )
        if config.token is not None:
            session.headers["Authorization"] = f"Bearer {config.token}"
        session.headers["Accept"] = "application/json"
        session.headers["Accept-Encoding"] = "identity"
        session.mount("https://", _Verified(config.tls_name))
        yield session


def _user(refusal: bytes) -> str | None:
    """The name of who asked, from the Status that refuses; what stands between may send less."""
    match = _USER.search(_message(refusal))
    return match[1] if match and match[1].isprintable() else None


def _said(refusal: bytes) -> str:
    """The server's own words about a refusal, such as those of an admission webhook."""
    words = " ".join(_message(refusal).split())[:_WORDS]
    return f": {words}" if words and words.isprintable() else ""


def _message(body: bytes) -> str:
    """The message of a Status; '' if there is none."""
    try:
        status = strictjson.loads(body, limit=MAX_ANSWER_BYTES)
    except strictjson.InvalidJson:
        return ""
    message = status.get("message") if isinstance(status, dict) else None
    return message if isinstance(message, str) else ""


def _permission(user: str, verb: str, resource: Resource, namespace: str) -> str:
    """The commands that allow it."""
    kind, place = ("role", f" -n {namespace}") if resource.namespaced else ("clusterrole", "")
    verbs = resource.verbs or (verb,)
    name = f"secure-pipeline-{'-'.join(verbs)}-{resource.plural}"
    plural = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    account = user.removeprefix("system:serviceaccount:")
    subject = f"--serviceaccount={account}" if account != user else f"--user={user}"
    return (
        f"kubectl create {kind} {name} --verb={','.join(verbs)} --resource={plural}{place}"
        f" && kubectl create {kind}binding {name} --{kind}={name} {shlex.quote(subject)}{place}"
    )


def _file(path: Path, data: bytes) -> str:
    path.touch(mode=0o600)
    path.write_bytes(data)
    return str(path)


def _request(
    session: requests.Session,
    url: str,
    patch: bytes | None,
    answers: queue.SimpleQueue[tuple[int, bytes] | Exception],
) -> None:
    """Put status and body, one byte over the limit at most, or what went wrong."""
    try:
        with session.request(
            "GET" if patch is None else "PATCH",
            url,
            data=patch,
            headers={} if patch is None else {"Content-Type": _JSON_PATCH},
            stream=True,
            allow_redirects=False,
            timeout=(CONNECT_SECONDS, SILENCE_SECONDS),
        ) as response:
            answers.put((response.status_code, _body(response)))
    except Exception as error:
        answers.put(error)


def _body(response: requests.Response) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(1 << 16):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            break
    return bytes(body[: MAX_ANSWER_BYTES + 1])


def _reason(error: Exception) -> str:
    """The innermost cause in a few words; never an address or a header."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    detail = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None)
    return f"{type(error).__name__} ({detail or type(cause).__name__})"


def _hint(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "check certificate-authority and tls-server-name of the context's cluster"
    return "check the address of the context's cluster: kubectl cluster-info"
