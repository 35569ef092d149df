"""A file with a bundle beside it, as ``sign`` leaves it, and the ways to write others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fakes.evidence import NAME, NOON, run_context, signer
from fakes.release import BUILDER, FixedClock, built
from secure_pipeline.attestations import bundle, dsse, predicates
from secure_pipeline.attestations.fileform import file_provenance
from secure_pipeline.attestations.statement import STATEMENT_V1
from secure_pipeline.events import ignore
from secure_pipeline.files import canonical_json
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.imagefiles import BUNDLE_SUFFIX, ImageFile
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.ports import Signer
from secure_pipeline.stages.result import Evidence, StageResult
from secure_pipeline.stages.verifyfile import VerifyFileInputs, verify_file

WHEEL = "app-1.0-py3-none-any.whl"
CONTENT = b"a wheel\n" * 100
IMAGE = ImageReference(NAME, Digest("e" * 64))

Subjects = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class SignedWheel:
    """A file, and what lies beside it."""

    path: Path

    @classmethod
    def write(cls, directory: Path, content: bytes = CONTENT) -> SignedWheel:
        """Write the file; nothing is beside it yet."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / WHEEL).write_bytes(content)
        return cls(directory / WHEEL)

    @property
    def bundle(self) -> Path:
        return self.path.with_name(self.path.name + BUNDLE_SUFFIX)

    @property
    def digest(self) -> Digest:
        return Digest.of(self.path.read_bytes())

    def evidence(self, source: Evidence | None = None, **context: Any) -> Evidence:
        """The provenance of the file, bound to a run."""
        file = ImageFile(f"/opt/wheel/{WHEEL}", self.digest, self.path.stat().st_size)
        return bound(file_provenance(source or built(), file, IMAGE), **context)

    def statement(
        self, evidence: Evidence | None = None, subjects: Subjects | None = None
    ) -> bytes:
        """A statement about the file."""
        chosen = evidence or self.evidence()
        own = [{"name": WHEEL, "digest": {"sha256": self.digest.hex}}]
        document = {
            "_type": STATEMENT_V1,
            "subject": own if subjects is None else subjects,
            "predicateType": chosen.predicate_type,
            "predicate": chosen.predicate,
        }
        return canonical_json(document)

    def sign(
        self,
        evidence: Evidence | None = None,
        *,
        subjects: Subjects | None = None,
        key: Signer | None = None,
    ) -> SignedWheel:
        """Put a bundle beside the file."""
        who = key or signer()
        envelope = dsse.sign_envelope(self.statement(evidence, subjects), who)
        self.bundle.write_bytes(bundle.make_bundle(envelope, who.public_key_der))
        return self

    def verify(self, policy: LoadedPolicy, now: datetime = NOON, **changes: Any) -> StageResult:
        """Verify the file at a time."""
        return verify_file(
            replace(VerifyFileInputs(self.path, policy), **changes), FixedClock(now), ignore
        )


def bound(evidence: Evidence, run_id: str = "run-1", **context: Any) -> Evidence:
    """Evidence of a run that has just ended."""
    about = run_context(run_id, **{"builder_id": BUILDER, **context})
    started = NOON - timedelta(minutes=2)
    bound_to = predicates.bind(evidence, about, started, NOON - timedelta(minutes=1))
    return Evidence(evidence.predicate_type, bound_to)
