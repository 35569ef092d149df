"""Where a source comes from, as others name it: an address that git cannot take for anything else.

What is not understood is refused before any program sees it (CI-11): options in the place of an
address or of a host, ways out of a path, credentials, and helpers that git would start by name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from secure_pipeline.errors import UsageError

MAX_URL = 1000
_HOST = r"(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
_URL = re.compile(
    rf"(?P<scheme>https|http|ssh)://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]{{0,63}})@)?{_HOST}"
    r"(?P<path>(?:/[A-Za-z0-9._~%+@:=,-]+)+)/?"
)
_REF = re.compile(r"refs/(heads|tags)(/[A-Za-z0-9_][A-Za-z0-9._+@=-]*)+")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_HINT = "https://HOST/PATH or ssh://USER@HOST/PATH"


@dataclass(frozen=True)
class Remote:
    """One commit of a repository elsewhere."""

    url: str
    commit: str
    plain_http: bool = False
    """The address may be one of http."""
    ref: str | None = None
    """A branch or tag, in full, that has to have the commit in its history.

    Servers give out commits that none of their branches has: those of forks and of requests.
    """

    def __post_init__(self) -> None:
        """Raises: UsageError."""
        match = _URL.fullmatch(self.url) if len(self.url) <= MAX_URL else None
        if match is None or not _stays(match["path"]):
            shown = re.sub(r"//[^/@]*@", "//…@", self.url[:120])
            raise UsageError(f"{shown!r} is no address of a repository", hint=_HINT)
        if match["scheme"] != "ssh" and match["user"]:
            raise UsageError("the address has a user in it", hint="name a file: --credentials")
        if match["scheme"] == "http" and not self.plain_http:
            raise UsageError("the address is not encrypted", hint="https://, or --plain-http")
        if not _COMMIT.fullmatch(self.commit):
            raise UsageError(
                f"{self.commit[:80]!r} is no commit", hint="40 or 64 hex digits, never a branch"
            )

        if self.ref is not None and not _is_ref(self.ref):
            raise UsageError(
                f"{self.ref[:80]!r} is no branch or tag",
                hint="in full: refs/heads/NAME or refs/tags/NAME",
            )

    @property
    def scheme(self) -> str:
        """The one way that git may talk."""
        return self.url.partition(":")[0]

    @property
    def object_format(self) -> str:
        """Which digest the repository has, as git names it."""
        return "sha1" if len(self.commit) == 40 else "sha256"


def _is_ref(text: str) -> bool:
    """By git's rules and narrower (git-check-ref-format)."""
    return (
        len(text) <= MAX_URL
        and bool(_REF.fullmatch(text))
        and not any(part in text for part in ("..", "@{"))
        and not any(part.endswith((".", ".lock")) for part in text.split("/"))
    )


def _stays(path: str) -> bool:
    """No part of a path leads out of it, or looks like an option, also when it is decoded."""
    for part in path.split("/")[1:]:
        decoded = unquote(part)
        if not decoded.isprintable() or set(decoded) & set("/\\"):
            return False
        if decoded.startswith("-") or decoded in (".", ".."):
            return False
    return True
