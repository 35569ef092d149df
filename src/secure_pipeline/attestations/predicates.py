"""Predicate types, and how each of them carries the run it belongs to (SIG-09).

``bind`` puts the run where readers of that type look for it; ``read_run`` gets exactly
the same run back. docs/reference/evidence.md lists the places.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from secure_pipeline import shape
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.files import canonical_json
from secure_pipeline.stages.result import Evidence

NAMESPACE = "https://secure-pipeline.dev"

TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
PROVENANCE = "https://slsa.dev/provenance/v1"
PROVENANCE_V02 = "https://slsa.dev/provenance/v0.2"
VULNS = "https://in-toto.io/attestation/vulns/v0.2"
COSIGN_VULN = "https://cosign.sigstore.dev/attestation/vuln/v1"
CYCLONEDX = "https://cyclonedx.org/bom"
SPDX = "https://spdx.dev/Document"
SIGN = "https://sigstore.dev/cosign/sign/v1"
"""cosign's signature over an image: the type and the subject are all that it says."""
VSA = "https://slsa.dev/verification_summary/v1"
SEAL = f"{NAMESPACE}/attestation/seal/v1"
PROMOTION = f"{NAMESPACE}/attestation/promotion/v1"
QUARANTINE = f"{NAMESPACE}/attestation/quarantine/v1"
RELEASE = f"{NAMESPACE}/attestation/quarantine-release/v1"
LEDGER_HEAD = f"{NAMESPACE}/attestation/ledger-head/v1"

AFTER_SEAL = frozenset({SEAL, VSA, PROMOTION, QUARANTINE, RELEASE, LEDGER_HEAD})
"""Types that a run may add after its seal: verdicts about the evidence, not evidence."""

RUN_MEMBER = "securePipeline_run"
"""Top-level member of types without a place of their own (SLSA's vendor_field form)."""
TREE_ALGORITHM = "securePipelineTree"
"""Digest of a working tree: lower-case hex SHA-256 over paths, modes and contents."""
SOURCE_DEPENDENCY = "source"
"""Name of the entry in resolvedDependencies that is the source under test."""
_PREFIX = "secure-pipeline:"
_SPDX_COMMENT = "secure-pipeline run: "
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TREE = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_ITEMS = 1_000_000


@dataclass(frozen=True)
class RunContext:
    """What all statements of one run have in common, and what a verifier compares."""

    run_id: str
    commit: str | None
    """Source commit, hex; None outside git."""
    tree: str
    """``sha256:…`` of the working tree's content."""
    uncommitted: bool
    builder_id: str

    def __post_init__(self) -> None:
        if not self.run_id or not self.builder_id:
            raise ValueError("run id and builder id must not be empty")
        if self.commit is not None and not _COMMIT.fullmatch(self.commit):
            raise ValueError(f"{self.commit[:80]!r} is not a commit in hex")
        if not _TREE.fullmatch(self.tree):
            raise ValueError(f"{self.tree[:80]!r} is not sha256:<hex>")


def to_json(context: RunContext) -> dict[str, Any]:
    """Return the run as the object that RUN_MEMBER holds."""
    value: dict[str, Any] = {
        "id": context.run_id,
        "tree": context.tree,
        "uncommitted": context.uncommitted,
        "builderId": context.builder_id,
    }
    return value | ({"commit": context.commit} if context.commit else {})


def from_json(value: Mapping[str, Any], where: str) -> RunContext:
    """Read what ``to_json`` wrote.

    Raises: VerificationFailed.
    """
    try:
        return RunContext(
            run_id=shape.member(value, "id", str, where),
            commit=shape.optional(value, "commit", str, where),
            tree=shape.member(value, "tree", str, where),
            uncommitted=shape.member(value, "uncommitted", bool, where),
            builder_id=shape.member(value, "builderId", str, where),
        )
    except ValueError as error:
        raise VerificationFailed(f"run: {error}", where=where) from None


def bind(
    evidence: Evidence,
    context: RunContext,
    started: datetime | None = None,
    finished: datetime | None = None,
) -> dict[str, Any]:
    """Return the predicate with its run (and times, where it has none) written into it.

    Whatever run the predicate named before is replaced; everything else is kept.
    """
    predicate = copy.deepcopy(dict(evidence.predicate))
    carrier = _CARRIERS.get(evidence.predicate_type, _MEMBER)
    carrier.write(predicate, context)
    _set_times(evidence.predicate_type, predicate, started, finished)
    return predicate


def read_run(predicate_type: str, predicate: Mapping[str, Any]) -> RunContext:
    """Return the run that a predicate says it belongs to.

    Raises: VerificationFailed if it names none, or an incomplete one, or two.
    """
    return _CARRIERS.get(predicate_type, _MEMBER).read(predicate, predicate_type)


def read_time(predicate_type: str, predicate: Mapping[str, Any]) -> datetime | None:
    """Return when the evidence was complete, UTC, or None where the predicate has no time.

    Raises: VerificationFailed for a time that is none.
    """
    *parents, name = _TIMES.get(predicate_type, (RUN_MEMBER, "finishedOn"))
    value: Any = predicate
    for parent in parents:
        value = shape.optional(value, parent, dict, predicate_type) or {}
    text = shape.optional(value, name, str, predicate_type)
    return shape.timestamp(text, predicate_type) if text else None


_TIMES = {
    PROVENANCE: ("runDetails", "metadata", "finishedOn"),
    PROVENANCE_V02: ("metadata", "buildFinishedOn"),
    VULNS: ("metadata", "scanFinishedOn"),
    COSIGN_VULN: ("metadata", "scanFinishedOn"),
    CYCLONEDX: ("metadata", "timestamp"),
    SPDX: ("creationInfo", "created"),
    VSA: ("timeVerified",),
    SEAL: ("sealedAt",),
    LEDGER_HEAD: ("takenAt",),
    PROMOTION: ("finishedOn",),
    QUARANTINE: ("quarantinedAt",),
    RELEASE: ("releasedAt",),
}
_STARTED = {"finishedOn": "startedOn", "scanFinishedOn": "scanStartedOn"}


def _set_times(
    predicate_type: str,
    predicate: dict[str, Any],
    started: datetime | None,
    finished: datetime | None,
) -> None:
    *parents, name = _TIMES.get(predicate_type, (RUN_MEMBER, "finishedOn"))
    if finished:
        _descend(predicate, *parents).setdefault(name, shape.rfc3339(finished))
    if started and name in _STARTED:
        _descend(predicate, *parents).setdefault(_STARTED[name], shape.rfc3339(started))


def _descend(value: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return the nested object, making what is missing on the way."""
    for name in names:
        value = value.setdefault(name, {})
    return value


@dataclass(frozen=True)
class _Carrier:
    """Where one predicate type keeps its run."""

    write: Callable[[dict[str, Any], RunContext], None]
    read: Callable[[Mapping[str, Any], str], RunContext]


def _write_member(predicate: dict[str, Any], context: RunContext) -> None:
    predicate[RUN_MEMBER] = to_json(context)


def _read_member(predicate: Mapping[str, Any], where: str) -> RunContext:
    return from_json(shape.member(predicate, RUN_MEMBER, dict, where), where)


def _write_provenance(predicate: dict[str, Any], context: RunContext) -> None:
    _descend(predicate, "runDetails", "builder")["id"] = context.builder_id
    _descend(predicate, "runDetails", "metadata")["invocationId"] = context.run_id
    dependencies = _descend(predicate, "buildDefinition").setdefault("resolvedDependencies", [])
    sources = [item for item in dependencies if item.get("name") == SOURCE_DEPENDENCY]
    source: dict[str, Any] = sources[0] if sources else {"name": SOURCE_DEPENDENCY}
    source["digest"] = {TREE_ALGORITHM: context.tree.removeprefix("sha256:")}
    if context.commit:
        source["digest"]["gitCommit"] = context.commit
    source.setdefault("annotations", {})["uncommitted"] = context.uncommitted
    dependencies[:] = [source, *(item for item in dependencies if item is not source)]


def _read_provenance(predicate: Mapping[str, Any], where: str) -> RunContext:
    definition = shape.member(predicate, "buildDefinition", dict, where)
    details = shape.member(predicate, "runDetails", dict, where)
    dependencies = shape.objects(definition, "resolvedDependencies", where, limit=_MAX_ITEMS)
    sources = [item for item in dependencies if item.get("name") == SOURCE_DEPENDENCY]
    if len(sources) != 1:
        raise VerificationFailed(f"{len(sources)} sources in resolvedDependencies", where=where)
    digest = shape.texts(sources[0], "digest", where)
    annotations = shape.member(sources[0], "annotations", dict, where)
    value = {
        "id": shape.member(details, "metadata", dict, where).get("invocationId"),
        "commit": digest.get("gitCommit"),
        "tree": f"sha256:{digest.get(TREE_ALGORITHM, '')}",
        "uncommitted": annotations.get("uncommitted"),
        "builderId": shape.member(details, "builder", dict, where).get("id"),
    }
    return from_json(value, where)


def _write_cosign_vuln(predicate: dict[str, Any], context: RunContext) -> None:
    invocation = _descend(predicate, "invocation")
    kept = [item for item in invocation.get("parameters") or [] if not _is_ours(item)]
    invocation["parameters"] = kept + _pairs(context, "commit", "tree", "uncommitted")
    invocation["event_id"] = context.run_id
    invocation["builder.id"] = context.builder_id
    invocation.setdefault("uri", "")


def _read_cosign_vuln(predicate: Mapping[str, Any], where: str) -> RunContext:
    invocation = shape.member(predicate, "invocation", dict, where)
    parameters = shape.optional(invocation, "parameters", list, where) or []
    value = _from_pairs([item for item in parameters if _is_ours(item)], where)
    value["id"] = invocation.get("event_id")
    value["builderId"] = invocation.get("builder.id")
    return from_json(value, where)


def _write_cyclonedx(predicate: dict[str, Any], context: RunContext) -> None:
    metadata = _descend(predicate, "metadata")
    kept = [item for item in metadata.get("properties") or [] if not _is_ours(item.get("name"))]
    pairs = [pair.partition("=") for pair in _pairs(context, *to_json(context))]
    metadata["properties"] = kept + [{"name": name, "value": value} for name, _, value in pairs]


def _read_cyclonedx(predicate: Mapping[str, Any], where: str) -> RunContext:
    metadata = shape.member(predicate, "metadata", dict, where)
    items = shape.objects(metadata, "properties", where, limit=_MAX_ITEMS)
    ours = [f"{item['name']}={item.get('value')}" for item in items if _is_ours(item.get("name"))]
    return from_json(_from_pairs(ours, where), where)


def _write_spdx(predicate: dict[str, Any], context: RunContext) -> None:
    kept = [
        item
        for item in predicate.get("annotations") or []
        if not str(item.get("comment")).startswith(_SPDX_COMMENT)
    ]
    created = (predicate.get("creationInfo") or {}).get("created")
    annotation = {
        "annotationDate": created or "1970-01-01T00:00:00Z",
        "annotationType": "OTHER",
        "annotator": "Tool: secure-pipeline",
        "comment": _SPDX_COMMENT + canonical_json(to_json(context)).decode(),
    }
    predicate["annotations"] = [*kept, annotation]


def _read_spdx(predicate: Mapping[str, Any], where: str) -> RunContext:
    items = shape.objects(predicate, "annotations", where, limit=_MAX_ITEMS)
    comments = [shape.optional(item, "comment", str, where) or "" for item in items]
    ours = [text for text in comments if text.startswith(_SPDX_COMMENT)]
    if len(ours) != 1:
        raise VerificationFailed(f"{len(ours)} annotations name a run", where=where)
    data = ours[0].removeprefix(_SPDX_COMMENT).encode()
    return from_json(shape.parse_object(data, where, limit=65536), where)


def _is_ours(item: Any) -> bool:
    return isinstance(item, str) and item.startswith(_PREFIX)


def _pairs(context: RunContext, *names: str) -> list[str]:
    """Return ``secure-pipeline:name=value`` for each member that is set."""
    members = to_json(context)
    texts = {True: "true", False: "false"}
    return [
        f"{_PREFIX}{name}={texts.get(members[name], members[name])}"
        for name in names
        if name in members
    ]


def _from_pairs(pairs: list[str], where: str) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for pair in pairs:
        name, _, text = pair.removeprefix(_PREFIX).partition("=")
        if name in value:
            raise VerificationFailed(f"{_PREFIX}{name[:40]} occurs twice", where=where)
        value[name] = text
    value["uncommitted"] = {"true": True, "false": False}.get(value.get("uncommitted", ""))
    return value


_MEMBER = _Carrier(_write_member, _read_member)
_CARRIERS = {
    PROVENANCE: _Carrier(_write_provenance, _read_provenance),
    COSIGN_VULN: _Carrier(_write_cosign_vuln, _read_cosign_vuln),
    CYCLONEDX: _Carrier(_write_cyclonedx, _read_cyclonedx),
    SPDX: _Carrier(_write_spdx, _read_spdx),
}
