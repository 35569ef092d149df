"""A client of the API server for tests, with an administrator's certificate."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import requests

T = TypeVar("T")
_SECONDS = 10


class Api:
    """Requests of the administrator; call inside the cluster's network."""

    def __init__(self, server: str, keys: Path) -> None:
        self.server = server
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(keys / "ca.crt")
        self._session.cert = (str(keys / "admin.crt"), str(keys / "admin.key"))

    def call(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json"
    ) -> requests.Response:
        """One request, whatever the answer."""
        return self._session.request(
            method,
            self.server + path,
            json=body,
            headers={"Content-Type": kind} if body is not None else {},
            timeout=_SECONDS,
        )

    def get(self, path: str) -> dict[str, Any]:
        return self._sound(self.call("GET", path))

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._sound(self.call("POST", path, body))

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge ``body`` into an object as kubectl does: lists by their keys."""
        kind = "application/strategic-merge-patch+json"
        return self._sound(self.call("PATCH", path, body, kind=kind))

    def delete(self, path: str) -> dict[str, Any]:
        return self._sound(self.call("DELETE", path))

    def status(self, method: str, path: str, token: str) -> int:
        """What somebody else is answered, whose request changes nothing; 403 comes first of all."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        changes = method != "GET" and "exec" not in path
        answer = requests.request(
            method,
            self.server + path,
            json=None if method in ("GET", "DELETE") else {},
            params={"dryRun": "All"} if changes else {},
            headers={"Authorization": f"Bearer {token}", "Content-Type": kind},
            verify=str(self._session.verify),
            timeout=_SECONDS,
        )
        return answer.status_code

    @staticmethod
    def _sound(answer: requests.Response) -> dict[str, Any]:
        assert answer.ok, f"{answer.request.method} {answer.url}: {answer.text}"
        value = answer.json()
        assert isinstance(value, dict)
        return value


def until(what: str, ask: Callable[[], T | None], seconds: float = 60) -> T:
    """Ask until the answer is true and return it; after ``seconds`` the test fails."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)
    return answer
