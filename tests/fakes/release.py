"""A release to verify: an image, signed evidence of its runs, and the ways to tamper with it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fakes.evidence import NAME, NOON, evidence, make_image, public_key, run_context, signer
from secure_pipeline.attestations import bundle, dsse, predicates
from secure_pipeline.attestations.attachments import attach
from secure_pipeline.attestations.predicates import RunContext, bind
from secure_pipeline.attestations.seal import make_seal
from secure_pipeline.attestations.statement import make_statement, parse_statement
from secure_pipeline.errors import ExitCode
from secure_pipeline.events import ignore
from secure_pipeline.files import canonical_json
from secure_pipeline.findings import Severity
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import EMPTY_BYTES, EMPTY_TYPE, MANIFEST_TYPE, Descriptor
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import LoadedPolicy, load
from secure_pipeline.policy.vulnerability_lists import severity_of
from secure_pipeline.ports import Signer
from secure_pipeline.stages.result import Evidence, StageResult, Verdict
from secure_pipeline.stages.verify import VerifyInputs, verify

Items = Mapping[str, Evidence]


@dataclass(frozen=True)
class FixedClock:
    """A clock that stands still."""

    time: datetime = NOON

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return 0.0


def stage_evidence() -> dict[str, Evidence]:
    """What the stages of a good run write, by a short name."""
    made = evidence()
    return {
        "analyze": suite("analyze", findings=open_findings(medium=3)),
        "test": suite("test", coverage=97.5),
        "build": built(),
        "vulns": vulns(("CVE-2024-0001", "medium")),
        "cosign-vuln": made[predicates.COSIGN_VULN],
        "cyclonedx": made[predicates.CYCLONEDX],
        "spdx": made[predicates.SPDX],
    }


def built(**relaxed: str) -> Evidence:
    """A build, with the rules that were switched off for it."""
    predicate = copy.deepcopy(dict(evidence()[predicates.PROVENANCE].predicate))
    rules = {name.replace("_", "-"): reason for name, reason in relaxed.items()}
    predicate["buildDefinition"]["internalParameters"] = {"relaxedRules": rules}
    return Evidence(predicates.PROVENANCE, predicate)


def open_findings(**counts: int) -> dict[str, int]:
    """Findings by severity, as the analysis counts them."""
    return {severity.value: counts.get(severity.value, 0) for severity in Severity}


def suite(name: str, result: str = "PASSED", **figures: Any) -> Evidence:
    """A test result with our figures."""
    predicate = {
        "result": result,
        "configuration": [{"name": name, "digest": {"sha256": "a" * 64}}],
        "secure-pipeline": {"figures": figures},
    }
    return Evidence(predicates.TEST_RESULT, predicate)


def vulns(
    *found: tuple[str, str], more: int = 0, gate: str = "high", **annotations: str
) -> Evidence:
    """A scan that found (id, severity word) pairs, and ``more`` secrets over its gate."""
    predicate = copy.deepcopy(dict(evidence()[predicates.VULNS].predicate))
    ratings = [(name, severity_of([{"score": word}]), word) for name, word in found]
    predicate["scanner"]["result"] = [
        {
            "id": name,
            "severity": [{"method": "trivy", "score": word}],
            "annotations": [{"package": "libc6", **annotations}],
        }
        for name, _, word in ratings
    ]
    reached = sum(s.reaches(Severity(gate)) for _, s, _ in ratings)
    over = more + (0 if "ignored" in annotations else reached)
    predicate["secure-pipeline"] = {
        "gate": {"severity": gate},
        "databaseDigest": "sha256:" + "d" * 64,
        "demonstrationDatabase": False,
        "figures": {"over_gate": over},
    }
    return Evidence(predicates.VULNS, predicate)


class Release:
    """An image in a layout, and what is attached to it."""

    def __init__(self, path: Path, content: bytes = b"hello\n") -> None:
        self.path = path
        self.image = make_image(path, content)
        self.layout = Layout.open(path)

    def payloads(
        self, items: Iterable[Evidence], context: RunContext, finished: datetime = NOON
    ) -> list[bytes]:
        """Statements about the image, bound to a run."""
        return [
            make_statement(
                NAME,
                self.image.digest,
                item.predicate_type,
                bind(item, context, finished - timedelta(minutes=1), finished),
            )
            for item in items
        ]

    def seal(
        self, payloads: Sequence[bytes], context: RunContext, sealed_at: datetime = NOON
    ) -> bytes:
        """The statement that seals payloads."""
        types = {parse_statement(payload).predicate_type for payload in payloads}
        predicate = make_seal(payloads, sorted(types), context, sealed_at)
        return make_statement(NAME, self.image.digest, predicates.SEAL, predicate)

    def run(
        self,
        run_id: str = "run-1",
        *,
        items: Items | None = None,
        key: Signer | None = None,
        time: datetime = NOON,
        without: Iterable[str] = (),
        sealed: bool = True,
        **context: Any,
    ) -> list[bytes]:
        """Attach a whole run, or one without some statements or its seal; the seal comes last."""
        chosen = {**stage_evidence(), **(items or {})}
        about = run_context(run_id, builder_id=BUILDER, **context)
        payloads = self.payloads(chosen.values(), about, time)
        seal = self.seal(payloads, about, time)
        kept = [p for name, p in zip(chosen, payloads, strict=True) if name not in set(without)]
        self.attach([*kept, *([seal] if sealed else [])], key)
        return [*payloads, seal]

    def attach(self, payloads: Sequence[bytes], key: Signer | None = None) -> None:
        """Sign and attach, in both layouts."""
        who = key or signer()
        signed = [dsse.sign_envelope(payload, who) for payload in payloads]
        typed = [
            (envelope, parse_statement(payload).predicate_type)
            for envelope, payload in zip(signed, payloads, strict=True)
        ]
        attach(self.layout, self.image, NAME, typed, who.public_key_der, NOON)

    def smuggle(self, envelope: bytes) -> None:
        """Attach an envelope as an attacker would: without any check."""
        self.smuggle_layer(bundle.make_bundle(envelope, signer().public_key_der))

    def smuggle_layer(self, data: bytes) -> None:
        """Attach any bytes as a bundle."""
        layer = self.layout.write_blob(data, bundle.MEDIA_TYPE)
        config = self.layout.write_blob(EMPTY_BYTES, EMPTY_TYPE)
        subject = Descriptor(self.image.media_type, self.image.digest, self.image.size)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": bundle.MEDIA_TYPE,
            "config": config.to_json(),
            "layers": [layer.to_json()],
            "subject": subject.to_json(),
        }
        listed = self.layout.write_blob(canonical_json(manifest), MANIFEST_TYPE)
        self.layout.add_manifest(replace(listed, artifact_type=bundle.MEDIA_TYPE))

    def verify(self, policy: LoadedPolicy, now: datetime = NOON, **changes: Any) -> StageResult:
        """Verify the image at a time."""
        inputs = VerifyInputs(
            Layout.open(self.path), ImageReference(NAME, self.image.digest), policy
        )
        return verify(replace(inputs, **changes), FixedClock(now), ignore)

    def blob(self, digest: Digest) -> Path:
        """Where a blob is."""
        return self.path / "blobs" / "sha256" / digest.hex


BUILDER = "https://secure-pipeline.dev/builder/local/v1"
REQUIRE = f"""
  - {{predicate: '{predicates.TEST_RESULT}', name: analyze}}
  - {{predicate: '{predicates.TEST_RESULT}', name: test}}
  - {{predicate: '{predicates.PROVENANCE}'}}
  - {{predicate: '{predicates.VULNS}', max-age: 7d}}
  - {{predicate: '{predicates.COSIGN_VULN}'}}
  - {{predicate: '{predicates.CYCLONEDX}'}}
  - {{predicate: '{predicates.SPDX}'}}
"""


def policy(
    directory: Path,
    *,
    key: Signer | None = None,
    window: str = "",
    algorithm: str = "ecdsa-p256-sha256",
    require: str = REQUIRE,
    builders: str = f"[{BUILDER}]",
    more: str = "",
) -> LoadedPolicy:
    """Write a policy that trusts one key, and load it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "release.pub").write_bytes(public_key(key).pem)
    text = (
        "version: 1\n"
        f"keys: [{{id: release, public-key: release.pub, algorithm: {algorithm}{window}}}]\n"
        f"require: {require}\nbuilders: {builders}\n{more}\n"
    )
    path = directory / "policy.yaml"
    path.write_text(text)
    return load(path)


def two_keys(directory: Path, **changes: str) -> LoadedPolicy:
    """A policy with the keys ``release`` and ``second``."""
    first = policy(directory)
    (directory / "second.pub").write_bytes(public_key(signer(1)).pem)
    text = first.source.read_text().replace(
        "keys: [", "keys: [{id: second, public-key: second.pub, algorithm: ecdsa-p256-sha256}, "
    )
    for old, new in changes.items():
        text = text.replace(old.replace("_", "-"), new)
    first.source.write_text(text)
    return load(first.source)


def statement(**members: Any) -> bytes:
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [],
        "predicateType": "https://example.org/x",
        "predicate": {},
    }
    return json.dumps(document | members, separators=(",", ":")).encode()


def flip(path: Path, offset: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[offset % len(data)] ^= mask
    path.write_bytes(data)


def objected(result: StageResult, code: ExitCode, *words: str) -> None:
    """Assert verdict, exit code, and that the reasons name the culprit."""
    verdict = Verdict.INCONCLUSIVE if code is ExitCode.INCONCLUSIVE else Verdict.FAIL
    text = "\n".join(result.reasons)
    assert (result.verdict, result.code) == (verdict, code), text
    for word in words:
        assert word in text


def refused(result: StageResult, code: ExitCode, *words: str) -> None:
    """Assert what ``objected`` does of an image, and what is left behind."""
    objected(result, code, *words)
    for summary in result.evidence:
        assert summary.predicate["verificationResult"] == "FAILED"
        assert summary.predicate["verifiedLevels"] == ["FAILED"]
    assert bool(result.evidence) == (result.verdict is Verdict.FAIL)


def passed(result: StageResult) -> None:
    assert (result.verdict, result.code) == (Verdict.PASS, ExitCode.PASS), result.reasons


def rules(result: StageResult) -> dict[str, str]:
    return {rule["rule"]: rule["outcome"] for rule in result.figures["decision"]}
