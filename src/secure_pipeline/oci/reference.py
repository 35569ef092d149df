"""Image references. A tag is not an image: only ``name@sha256:…`` is accepted (REG-01)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from secure_pipeline.errors import UsageError, VerificationFailed
from secure_pipeline.oci.digest import Digest

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_NAME = re.compile(rf"(?:{_HOST}/)?{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MAX_NAME = 255
_HINT = "write name@sha256:<digest>; 'secure-pipeline build' prints it"


@dataclass(frozen=True)
class ImageReference:
    """An image by digest; the name says where, only the digest says what."""

    name: str
    """Repository, such as ``registry.example:5000/team/app``."""
    digest: Digest

    def __post_init__(self) -> None:
        if len(self.name) > _MAX_NAME or not _NAME.fullmatch(self.name):
            raise UsageError(f"{self.name[:80]!r} is not an image name", hint=_HINT)

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Parse ``name@sha256:<hex>``.

        Raises: UsageError, for a tag too, even beside a digest: it could only mislead.
        """
        name, at, digest = text.partition("@")
        if ":" in name.rpartition("/")[2]:
            raise UsageError(f"{text[:120]!r} names a tag, which can move", hint=_HINT)
        if not at:
            raise UsageError(f"{text[:120]!r} has no digest", hint=_HINT)
        try:
            return cls(name, Digest.parse(digest))
        except VerificationFailed as error:
            raise UsageError(error.message, hint=_HINT) from None

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}"


def in_registry(name: str) -> bool:
    """Tell whether a name begins with a registry's host.

    By docker's rule: ``.`` or ``:`` in the part before the first slash, or ``localhost``.
    """
    host, slash, _ = name.partition("/")
    return bool(slash) and ("." in host or ":" in host or host == "localhost")


def check_tag(tag: str) -> str:
    """Return a tag that registries accept. Raises: UsageError."""
    if not _TAG.fullmatch(tag):
        raise UsageError(
            f"{tag[:140]!r} is no tag", hint="letters, digits, '_', '.' and '-', at most 128"
        )
    return tag
