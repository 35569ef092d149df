"""What is handed over to a cluster: one event, good once, for minutes, and at one address.

The page docs/reference/hand-over-v1.md is its format. Who makes it signs it with a secret that the
cluster knows; ``plan/tekton_triggers.py`` is the other side. The patterns below mean the same
in Python and in CEL's RE2, and no character that they allow means anything to a shell, to JSON or
to Tekton.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from secure_pipeline.attestations.predicates import NAMESPACE
from secure_pipeline.errors import UsageError
from secure_pipeline.files import canonical_json
from secure_pipeline.oci.reference import ImageReference, in_registry
from secure_pipeline.shape import rfc3339

TYPE = f"{NAMESPACE}/hand-over/v1"
"""What the event says it is: no other event under the same secret can be taken for it."""
LIFETIME = timedelta(minutes=5)
MAX_LIFETIME = timedelta(minutes=15)
"""What the cluster accepts, from the making to the end and from its own present to the end."""
SIGNATURE = "X-Hub-Signature-256"
"""Header of the signature, as GitHub signs its events."""
MIN_SECRET, MAX_SECRET = 32, 4096
"""Bytes."""
MAX_VALUE = 400
"""Characters of a member."""
_HOST = r"[a-zA-Z0-9.-]+(:[0-9]{1,5})?"
_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"
PATTERNS = {
    "id": r"[0-9a-f]{32}",
    "image": rf"{_HOST}(/[a-z0-9._-]+)+@sha256:[0-9a-f]{{64}}",
    "target": r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
    "audience": rf"https?://{_HOST}(/[a-zA-Z0-9._~/-]*)?",
    "issued": _TIME,
    "expires": _TIME,
}
"""Member of the event to all that it may be; ``type`` is the only other member."""


@dataclass(frozen=True)
class Secret:
    """What both sides know; shown nowhere."""

    value: bytes

    def __post_init__(self) -> None:
        """Raises: UsageError for one that could be guessed, or is no single line."""
        if not MIN_SECRET <= len(self.value) <= MAX_SECRET:
            raise UsageError(
                f"the secret has {len(self.value)} bytes, not {MIN_SECRET} to {MAX_SECRET}",
                hint="openssl rand -hex 32",
            )
        if not re.fullmatch(rb"[!-~]+", self.value):
            raise UsageError("the secret is not one line of printable characters")

    def __repr__(self) -> str:
        return "Secret(…)"

    def sign(self, body: bytes) -> str:
        """The value of the header for these bytes: HMAC-SHA256, as GitHub writes it."""
        return f"sha256={hmac.new(self.value, body, 'sha256').hexdigest()}"


@dataclass(frozen=True)
class HandOver:
    """An image that a cluster shall promote."""

    id: str
    """Random; the run in the cluster is named after it, so there is one run of it."""
    image: ImageReference
    target: str
    """Name of the promotion target, as the cluster knows it."""
    audience: str
    """The address that it is sent to, and good at."""
    issued: datetime
    expires: datetime

    def __post_init__(self) -> None:
        """Raises: UsageError for a value that the other side would refuse."""
        for name, value in self._values().items():
            known = PATTERNS.get(name, re.escape(TYPE))
            if len(value) > MAX_VALUE or not re.fullmatch(known, value):
                raise UsageError(f"{value[:120]!r} cannot be handed over as {name}")
        if not in_registry(self.image.name):
            raise UsageError(
                f"{self.image.name!r} names no registry",
                hint="the cluster reads the image there: HOST/NAME@sha256:DIGEST",
            )
        if not timedelta() < self.expires - self.issued <= MAX_LIFETIME:
            raise UsageError(f"an event lives for at most {MAX_LIFETIME}")

    @property
    def run(self) -> str:
        """Name of the run in the cluster."""
        return f"promote-{self.id}"

    def body(self) -> bytes:
        """The bytes that are signed and sent: canonical JSON."""
        return canonical_json(self._values())

    def _values(self) -> dict[str, str]:
        return {
            "type": TYPE,
            "id": self.id,
            "image": str(self.image),
            "target": self.target,
            "audience": self.audience,
            "issued": rfc3339(self.issued),
            "expires": rfc3339(self.expires),
        }
