"""Writes explanations of made-up releases: as a page, as text and as JSON.

Run with the project's Python from the top of the repository:

    PYTHONPATH=tests python tests/golden/explain/generate.py

Key, clock and content are fixed, so equal code gives equal bytes.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fakes.evidence import NAME, NOON, evidence, run_context
from fakes.release import BUILDER, FixedClock, Release, policy, suite, vulns
from secure_pipeline.attestations import bundle, dsse, predicates
from secure_pipeline.attestations.quarantine import quarantine_predicate, release_predicate
from secure_pipeline.attestations.statement import make_statement
from secure_pipeline.events import ignore
from secure_pipeline.keys.local import LocalSigner
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import Algorithm, LoadedPolicy
from secure_pipeline.report.explain_html import explanation_page
from secure_pipeline.report.explain_json import explanation_document
from secure_pipeline.report.explain_text import explanation_lines
from secure_pipeline.stages.explain import Explanation, explain
from secure_pipeline.stages.result import Evidence
from secure_pipeline.stages.verify import VerifyInputs

HERE = Path(__file__).parent
HOSTILE = (
    "</script><script>alert(1)</script><img src=//evil.example onerror=alert(1)>"
    "\x1b[2J\x07\r\n\u202egnp.exe\u2066 \u0000 & \"quotes\" 'too' e\u0301\u0301\u0301\u0301\u0301"
)


def fixed_key(number: int) -> LocalSigner:
    """An Ed25519 key: its signatures are the same each time."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    return LocalSigner(key, Algorithm.ED25519)


RELEASE, STRANGER = fixed_key(1), fixed_key(2)


def stranger_attaches(release: Release, envelope: bytes) -> None:
    """Attach an envelope with the stranger's own key as its hint."""
    release.smuggle_layer(bundle.make_bundle(envelope, STRANGER.public_key_der))


def allowed(release: Release) -> None:
    """A whole run, judged and promoted since, and an earlier run of the same image."""
    release.run("run-0", key=RELEASE, time=NOON - timedelta(hours=1))
    release.run("run-1", key=RELEASE)
    after = [
        Evidence(
            predicates.VSA,
            {
                "verifier": {"id": f"{predicates.NAMESPACE}/verifier/local"},
                "timeVerified": "2026-03-01T12:00:30Z",
                "policy": {"uri": "secure-pipeline:policy/policy.yaml"},
                "verificationResult": "PASSED",
            },
        ),
        Evidence(predicates.PROMOTION, promotion("PROMOTED", "passed")),
    ]
    about = run_context("run-1", builder_id=BUILDER)
    release.attach(release.payloads(after, about), RELEASE)


def promotion(result: str, cause: str) -> Mapping[str, object]:
    """What a promotion says first."""
    return {
        "result": result,
        "cause": cause,
        "target": {"name": "production", "digest": {"sha256": "1" * 64}},
        "lookCount": 312,
        "finishedOn": "2026-03-01T12:00:40.000Z",
    }


def quarantined(release: Release) -> None:
    """A whole run whose promotion was rolled back, twice; one quarantine was released."""
    release.run("run-1", key=RELEASE)
    about = run_context("run-1", builder_id=BUILDER)
    made = [
        Evidence(
            predicates.QUARANTINE,
            quarantine_predicate(f"token share {share}", "latency", "production", None, "ci", NOON),
        )
        for share in ("31% over 5%", "12% over 5%")
    ]
    after = [Evidence(predicates.PROMOTION, promotion("ROLLED_BACK", "latency")), *made]
    payloads = release.payloads(after, about)
    ended = [Digest.of(payloads[1])]
    freed = release_predicate(ended, "the disk was replaced", "operator", NOON)
    payloads += release.payloads([Evidence(predicates.RELEASE, freed)], about)
    release.attach(payloads, RELEASE)


def denied(release: Release) -> None:
    """A scan over the gate, uncommitted changes, no bill of materials, and strangers' words."""
    items = {"vulns": vulns(("CVE-2026-1111", "critical"), ("CVE-2026-2222", "low"))}
    release.run(items=items, without=["spdx"], key=RELEASE, uncommitted=True)
    strange = [suite("test", "PASSED"), evidence()[predicates.SPDX]]
    for payload in release.payloads(strange, run_context("run-1", builder_id=BUILDER)):
        stranger_attaches(release, dsse.sign_envelope(payload, STRANGER))


def undetermined(release: Release) -> None:
    """Two runs sealed in the same second."""
    release.run("run-1", key=RELEASE)
    release.run("run-2", key=RELEASE)


def hostile(release: Release) -> None:
    """Names that would run, load, redraw or turn around; and a megabyte of one letter."""
    scan = vulns((HOSTILE, "low"), package=HOSTILE)
    items = {
        "test": suite(HOSTILE, coverage=97.5, exit="A" * (1 << 20)),
        "vulns": replace(scan, predicate={**scan.predicate, "note": HOSTILE}),
        "other": Evidence(f"https://evil.example/{HOSTILE}", {HOSTILE: HOSTILE, "b": "B" * 5000}),
    }
    release.run(items=items, key=RELEASE)
    payload = make_statement(HOSTILE, release.image.digest, HOSTILE, {"x": HOSTILE})
    stranger_attaches(release, dsse.sign_envelope(payload, STRANGER))
    message = dsse.pae(dsse.PAYLOAD_TYPE, b"{}")
    signature = dsse.EnvelopeSignature(HOSTILE, STRANGER.sign(message))
    stranger_attaches(release, dsse.serialise(dsse.PAYLOAD_TYPE, b"{}", (signature,)))


def nothing(release: Release) -> None:
    """An image without any evidence."""


CASES: Mapping[str, Callable[[Release], None]] = {
    "allowed": allowed,
    "quarantined": quarantined,
    "denied": denied,
    "undetermined": undetermined,
    "hostile": hostile,
    "nothing": nothing,
}


def explained(case: str, directory: Path) -> Explanation:
    """Make the release of a case below a directory and explain it."""
    release = Release(directory / "image")
    CASES[case](release)
    trusted = policy(directory / "policy", key=RELEASE, algorithm="ed25519")
    return explain_release(release, trusted)


def explain_release(release: Release, trusted: LoadedPolicy) -> Explanation:
    """Explain a release at noon."""
    image = ImageReference(NAME, release.image.digest)
    inputs = VerifyInputs(Layout.open(release.path), image, trusted)
    return explain(inputs, FixedClock(), ignore)


def files(case: str, directory: Path) -> dict[str, bytes]:
    """The golden files of a case, by name."""
    explanation = explained(case, directory)
    document = json.dumps(explanation_document(explanation), indent=1)
    return {
        f"{case}.html": explanation_page(explanation),
        f"{case}.txt": "\n".join([*explanation_lines(explanation), ""]).encode(),
        f"{case}.json": document.encode() + b"\n",
    }


def main() -> None:
    """Write all files."""
    for case in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            for name, content in files(case, Path(temporary)).items():
                (HERE / name).write_bytes(content)


if __name__ == "__main__":
    main()
