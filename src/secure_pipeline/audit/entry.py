r"""One entry of the ledger, and the one line of bytes that it is written as.

A line is printable ASCII: the entry as JSON with sorted members, no spaces, and every other
character as ``\uXXXX`` (AUD-10). ``hash`` is the SHA-256 of the line without the member
``"hash":"…",``, whatever the version. docs/reference/audit.md lists the members.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, NamedTuple

from secure_pipeline import strictjson

VERSION = 1
NO_HASH = "0" * 64
"""What the first entry has in the place of the hash of the entry before."""
MAX_LINE_BYTES = 256 << 10
MAX_TEXT = 512
"""Characters of one text; what is longer is cut and named by its digest."""
MAX_DETAILS = 24
UNWRITTEN = b"\0"
"""What a file shows where a power failure kept a page from the disk; no line has it. A last line
with it was never acknowledged, because its fsync never returned: it is a torn tail."""
_MAX_INTEGER = 2**53 - 1
_CUT = 400

Value = str | int | bool | None


class Kind(Enum):
    """What an entry records."""

    OPENED = "opened"
    """The first entry of a ledger."""
    INTENT = "intent"
    """Something is about to happen."""
    CONCLUSION = "conclusion"
    """How it ended."""
    RECOVERED = "recovered"
    """A torn tail was moved aside."""


class Outcome(Enum):
    """How something ended."""

    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"


class InvalidEntry(ValueError):
    """The bytes are not a line that this program writes."""


class UnknownVersion(InvalidEntry):
    """The line is whole, and of a version that this program does not know."""


@dataclass(frozen=True)
class Actor:
    """Who did it."""

    kind: str
    """'vault' (entity), 'oidc' (subject), 'kubernetes' (service account) or 'os' (user)."""
    id: str
    verified: bool
    """True only if somebody other than this machine vouches for it."""


@dataclass(frozen=True)
class Entry:
    """One entry; its texts are bounded and its details sorted once constructed."""

    seq: int
    """0 for the first, then one more each."""
    prev: str
    """Hash of the entry before, in hex."""
    time: datetime
    kind: Kind
    action: str
    stage: str
    subject: str
    actor: Actor
    run: str | None = None
    intent: str | None = None
    """Hash of the intent that is concluded."""
    outcome: Outcome | None = None
    details: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.details) > MAX_DETAILS:
            raise ValueError(f"more than {MAX_DETAILS} details")
        if (self.kind is Kind.CONCLUSION) != (self.intent is not None):
            raise ValueError("exactly the conclusions name an intent")
        if (self.intent is None) != (self.outcome is None):
            raise ValueError("exactly the conclusions have an outcome")
        for name in ("action", "stage", "subject", "run"):
            object.__setattr__(self, name, bounded(getattr(self, name)))
        actor = replace(self.actor, id=str(bounded(self.actor.id)))
        object.__setattr__(self, "actor", actor)
        details = {name: bounded(self.details[name]) for name in sorted(self.details)}
        object.__setattr__(self, "details", details)
        object.__setattr__(self, "time", self.time.astimezone(UTC))


@dataclass(frozen=True)
class Line:
    """An entry as it is in the file."""

    seq: int
    hash: str
    data: bytes
    """The line without its line end."""


class Link(NamedTuple):
    """What the chain needs of a line; hashes in hex."""

    seq: int
    prev: bytes
    hash: bytes
    intent: bytes | None
    """Hash of the intent that the line concludes."""
    kind: bytes


def bounded(value: Value) -> Value:
    """Cut a text that is too long, with its digest; write an integer too large as text."""
    if isinstance(value, str):
        text = value.encode("utf-8", "backslashreplace").decode()  # lone surrogates
        if len(text) <= MAX_TEXT:
            return text
        digest = hashlib.sha256(text.encode()).hexdigest()
        return f"{text[:_CUT]}… ({len(text)} characters, sha256:{digest})"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _MAX_INTEGER:
        return str(value)[:MAX_TEXT]
    return value


def write(entry: Entry) -> Line:
    """Write an entry as its one line. Raises: ValueError for a detail of a wrong name or type."""
    members = _members(entry)
    digest = hashlib.sha256(_canonical(members)).hexdigest()
    data = _canonical(members | {"hash": digest})
    scan(data)
    return Line(entry.seq, digest, data)


def scan(data: bytes) -> Link:
    r"""Check that a line is exactly what ``write`` makes, hash included; return its links.

    Raises: UnknownVersion, InvalidEntry. The one regular expression accepts only the canonical
    spelling, except for ``\u`` and the order of details, which are looked at where they occur.
    """
    found = _LINE.fullmatch(data)
    if found is None:
        raise _not_a_line(data)
    start, end = found.span(2)
    digest, kind, intent, prev, seq = found.group(3, 4, 5, 6, 7)
    if hashlib.sha256(data[:start] + data[end:]).hexdigest().encode() != digest:
        raise InvalidEntry("its hash is not that of its content")
    names = _NAME.findall(found[1])
    if names != sorted(set(names)):
        raise InvalidEntry("its details are not in order")
    if b"\\u" in data and _canonical(json.loads(data)) != data:
        raise InvalidEntry("it is not in canonical form")
    return Link(int(seq), prev, digest, intent, kind or b"conclusion")


def read(data: bytes) -> Entry:
    """Parse a line. Raises: InvalidEntry."""
    scan(data)
    try:
        return _entry(json.loads(data))
    except ValueError as error:
        raise InvalidEntry(f"it makes no sense: {error}") from None


def _entry(value: Mapping[str, Any]) -> Entry:
    actor = value["actor"]
    return Entry(
        seq=value["seq"],
        prev=value["prev"],
        time=datetime.fromisoformat(value["time"]),
        kind=Kind(value["kind"]),
        action=value["action"],
        stage=value["stage"],
        subject=value["subject"],
        actor=Actor(actor["kind"], actor["id"], actor["verified"]),
        run=value["run"],
        intent=value["intent"],
        outcome=Outcome(value["outcome"]) if value["outcome"] else None,
        details=value["details"],
    )


def instant(time: datetime) -> str:
    """Write a time as RFC 3339 in UTC with milliseconds."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def request_hash(method: str, path: str, role: str, parameters: Mapping[str, Value]) -> str:
    """``sha256:…`` of a request without its secrets: canonical JSON (RFC 8785) of its parts."""
    request = {"method": method, "path": path, "role": role, "parameters": dict(parameters)}
    text = json.dumps(
        request, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _members(entry: Entry) -> dict[str, Any]:
    return {
        "action": entry.action,
        "actor": {
            "id": entry.actor.id,
            "kind": entry.actor.kind,
            "verified": entry.actor.verified,
        },
        "details": dict(entry.details),
        "intent": entry.intent,
        "kind": entry.kind.value,
        "outcome": entry.outcome.value if entry.outcome else None,
        "prev": entry.prev,
        "run": entry.run,
        "seq": entry.seq,
        "stage": entry.stage,
        "subject": entry.subject,
        "time": instant(entry.time),
        "v": VERSION,
    }


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def _canonical(value: Any) -> bytes:
    return _ENCODER.encode(value).encode()


def _pattern() -> re.Pattern[bytes]:
    plain = rb"[ !#-\[\]-~]*+"
    text = rb'"' + plain + rb'(?:\\(?:["\\bfnrt]|u[0-9a-f]{4})' + plain + rb')*+"'
    value = text + rb"|0|-?[1-9][0-9]{0,15}|true|false|null"
    detail = rb'"[A-Za-z][A-Za-z0-9._-]{0,63}":(?:' + value + rb")"
    digest = rb'"([0-9a-f]{64})"'
    parts = [
        rb'\{"action":' + text,
        rb'"actor":\{"id":' + text + rb',"kind":"(?:vault|oidc|kubernetes|os)"',
        rb'"verified":(?:true|false)\}',
        rb'"details":(\{(?:' + detail + rb"(?:," + detail + rb')*+)?\}),("hash":' + digest + rb",)"
        rb'(?:"intent":null,"kind":"(intent|opened|recovered)","outcome":null'
        rb'|"intent":' + digest + rb',"kind":"conclusion","outcome":"(?:done|failed|refused)")',
        rb'"prev":' + digest,
        rb'"run":(?:null|' + text + rb")",
        rb'"seq":(0|[1-9][0-9]{0,15})',
        rb'"stage":' + text,
        rb'"subject":' + text,
        rb'"time":"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"',
        rb'"v":1\}',
    ]
    return re.compile(rb",".join(parts))


_LINE = _pattern()
_NAME = re.compile(rb'"([A-Za-z][A-Za-z0-9._-]*+)":')
"""A member's name; quotes inside of texts have a backslash before them, so no text matches."""
_HASH = re.compile(rb'"hash":"([0-9a-f]{64})",')
_OTHER_VERSION = re.compile(rb'"v":([0-9]{1,9})\}\Z')


def _not_a_line(data: bytes) -> InvalidEntry:
    """Tell a line of another version, whose hash is right, from one that is none."""
    version = _OTHER_VERSION.search(data)
    if version and version[1] != b"%d" % VERSION and _hash_fits(data):
        return UnknownVersion(f"version {version[1].decode()} is not known")
    try:
        strictjson.loads(data, limit=MAX_LINE_BYTES)
    except strictjson.InvalidJson as error:
        return InvalidEntry(f"it is not JSON: {error}")
    return InvalidEntry("it does not have the form of an entry")


def _hash_fits(data: bytes) -> bool:
    """Tell whether one of the members that look like the hash is it."""
    return any(
        hashlib.sha256(data[: found.start()] + data[found.end() :]).hexdigest().encode() == found[1]
        for found in list(_HASH.finditer(data))[:8]
    )
