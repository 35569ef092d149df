"""Download one file over https, with limits on size, time and redirects."""

from __future__ import annotations

from pathlib import Path
from typing import IO
from urllib.parse import urljoin, urlsplit

import requests

from secure_pipeline.ports import Clock
from secure_pipeline.tools.release import Unreachable

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 30.0
TOTAL_SECONDS = 900.0
MAX_REDIRECTS = 5
_CHUNK = 1 << 18


class HttpsDownload:
    """Fetches public files; sends no credentials, so a redirect cannot carry any away."""

    def __init__(self, clock: Clock, ca: Path | None = None) -> None:
        """``ca``: PEM file of the authorities to trust instead of the system's."""
        self._clock = clock
        self._ca = ca

    def __call__(self, url: str, target: Path, limit: int) -> None:
        """Write the content of ``url``, at most ``limit`` bytes, to ``target``.

        Raises: Unreachable, whatever went wrong.
        """
        deadline = self._clock.monotonic() + TOTAL_SECONDS
        try:
            with requests.Session() as session, target.open("wb") as stream:
                session.trust_env = True
                session.auth = _no_credentials
                self._copy(session, url, stream, limit, deadline)
        except requests.RequestException as error:
            raise Unreachable(f"no download: {_reason(error)}", where=_shown(url)) from error

    def _copy(
        self,
        session: requests.Session,
        url: str,
        stream: IO[bytes],
        limit: int,
        deadline: float,
    ) -> None:
        with self._follow(session, url) as response:
            if response.status_code != 200:
                raise Unreachable(f"answered {response.status_code}", where=_shown(url))
            size = 0
            for chunk in response.iter_content(_CHUNK):
                size += len(chunk)
                if size > limit:
                    raise Unreachable(f"larger than {limit} bytes", where=_shown(url))
                if self._clock.monotonic() > deadline:
                    raise Unreachable(f"took over {TOTAL_SECONDS:.0f} s", where=_shown(url))
                stream.write(chunk)

    def _follow(self, session: requests.Session, url: str) -> requests.Response:
        for _ in range(MAX_REDIRECTS + 1):
            if urlsplit(url).scheme != "https":
                raise Unreachable("leads away from https", where=_shown(url))
            response = session.get(
                url,
                stream=True,
                allow_redirects=False,
                timeout=(CONNECT_SECONDS, SILENCE_SECONDS),
                verify=str(self._ca) if self._ca else True,
            )
            if not response.is_redirect:
                return response
            url = urljoin(url, response.headers["location"])
            response.close()
        raise Unreachable(f"more than {MAX_REDIRECTS} redirects", where=_shown(url))


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Stand in for authentication, so that no netrc file is read."""
    return request


def _shown(url: str) -> str:
    """The address without its query, which may hold a signed token."""
    return url.partition("?")[0]


def _reason(error: requests.RequestException) -> str:
    """The innermost cause in a few words, without addresses that may hold tokens."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return f"{type(error).__name__} ({getattr(cause, 'strerror', None) or type(cause).__name__})"
