"""Evidence as other tools leave it: older bundles, annotated layers, signatures, BuildKit's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fakes.evidence import NAME, NOON, make_image, public_key, signer
from fakes.release import FixedClock
from secure_pipeline.adapters.sigstore import SigstoreVerifier
from secure_pipeline.attestations import bundle, dsse
from secure_pipeline.attestations.buildkit import ATTESTATION, REFERENCE_DIGEST, REFERENCE_TYPE
from secure_pipeline.attestations.forms import ENVELOPE_TYPE, att_tag
from secure_pipeline.attestations.signatures import SIMPLE_SIGNING, sig_tag
from secure_pipeline.events import ignore
from secure_pipeline.files import canonical_json
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import (
    CONFIG_TYPE,
    EMPTY_BYTES,
    EMPTY_TYPE,
    INDEX_TYPE,
    MANIFEST_TYPE,
    Descriptor,
    Platform,
)
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import LoadedPolicy, load
from secure_pipeline.policy.trust import trust_root
from secure_pipeline.ports import Signer
from secure_pipeline.stages.result import StageResult
from secure_pipeline.stages.verify import VerifyInputs, verify

STATEMENT_V01 = "https://in-toto.io/Statement/v0.1"
SLSA_V1 = "https://slsa.dev/provenance/v1"
SLSA_V02 = "https://slsa.dev/provenance/v0.2"
TEST = "https://in-toto.io/attestation/test-result/v0.1"
VULNS = "https://in-toto.io/attestation/vulns/v0.2"
COSIGN_VULN = "https://cosign.sigstore.dev/attestation/vuln/v1"
SIGN = "https://sigstore.dev/cosign/sign/v1"
TEAM = "https://ci.invalid/builder/v2"


class Foreign:
    """An image that another pipeline made, and what it attached."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.image = make_image(path)
        self.layout = Layout.open(path)

    def statement(
        self,
        kind: str = SLSA_V1,
        predicate: Mapping[str, Any] | None = None,
        *,
        subjects: Sequence[Digest] = (),
        version: str = STATEMENT_V01,
        others: Sequence[Digest] = (),
    ) -> bytes:
        """A statement about the image (or ``subjects``), as Go writes JSON."""
        about = [*(subjects or [self.image.digest]), *others]
        document = {
            "_type": version,
            "predicateType": kind,
            "subject": [{"name": "registry/x", "digest": {"sha256": item.hex}} for item in about],
            "predicate": provenance() if predicate is None else predicate,
        }
        return json.dumps(document).encode()

    def put_bundle(self, data: bytes, media_type: str = bundle.MEDIA_TYPE) -> None:
        """Attach a bundle as a referrer."""
        layer = self.layout.write_blob(data, media_type)
        config = self.layout.write_blob(EMPTY_BYTES, EMPTY_TYPE)
        subject = Descriptor(self.image.media_type, self.image.digest, self.image.size)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": media_type,
            "config": config.to_json(),
            "layers": [layer.to_json()],
            "subject": subject.to_json(),
        }
        listed = self.layout.write_blob(canonical_json(manifest), MANIFEST_TYPE)
        self.layout.add_manifest(replace(listed, artifact_type=media_type))

    def put_key_bundle(self, payload: bytes, key: Signer | None = None) -> None:
        """Attach a statement signed with a bare key."""
        who = key or signer()
        self.put_bundle(bundle.make_bundle(dsse.sign_envelope(payload, who), who.public_key_der))

    def put_att(self, *layers: tuple[bytes, Mapping[str, str]]) -> None:
        """Make the ``.att`` tag of these envelopes and annotations."""
        self._tag(att_tag(self.image.digest), ENVELOPE_TYPE, layers)

    def put_sig(self, *layers: tuple[bytes, Mapping[str, str]]) -> None:
        """Make the ``.sig`` tag of these payloads and annotations."""
        self._tag(sig_tag(self.image.digest), SIMPLE_SIGNING, layers)

    def _tag(
        self, tag: str, media_type: str, layers: Sequence[tuple[bytes, Mapping[str, str]]]
    ) -> None:
        described = [
            replace(self.layout.write_blob(data, media_type), annotations=dict(annotations))
            for data, annotations in layers
        ]
        config = self.layout.write_blob(b'{"architecture":"","os":"","config":{}}', CONFIG_TYPE)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config.to_json(),
            "layers": [item.to_json() for item in described],
        }
        self.layout.replace(tag, self.layout.write_blob(canonical_json(manifest), MANIFEST_TYPE))

    def index(self, *payloads: bytes, refers: Digest | None = None) -> None:
        """Make the image an index of it and an attestation manifest with these statements."""
        layers = [self.layout.write_blob(item, dsse.PAYLOAD_TYPE) for item in payloads]
        config = self.layout.write_blob(b'{"architecture":"unknown","os":"unknown"}', CONFIG_TYPE)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config.to_json(),
            "layers": [item.to_json() for item in layers],
        }
        made = self.layout.write_blob(canonical_json(manifest), MANIFEST_TYPE)
        about = str(refers or self.image.digest)
        annotations = {REFERENCE_TYPE: ATTESTATION, REFERENCE_DIGEST: about}
        children = [
            replace(self.image, platform=Platform("linux", "amd64")),
            replace(made, platform=Platform("unknown", "unknown"), annotations=annotations),
        ]
        document = {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [item.to_json() for item in children],
        }
        self.image = self.layout.write_blob(canonical_json(document), INDEX_TYPE)
        self.layout.replace("index", self.image)

    def verify(self, policy: LoadedPolicy, **changes: Any) -> StageResult:
        """Verify the image, with the policy's own trust root."""
        root = trust_root(policy)
        checker = SigstoreVerifier(*root, NOON) if root else None
        inputs = VerifyInputs(
            Layout.open(self.path),
            ImageReference(NAME, self.image.digest),
            policy,
            identity_verifier=checker,
        )
        return verify(replace(inputs, **changes), FixedClock(NOON), ignore)


def provenance(builder: str = TEAM, **more: Any) -> dict[str, Any]:
    """SLSA v1 provenance of a builder that is not ours."""
    definition = {"buildType": "https://ci.invalid/type/v1", "externalParameters": {}}
    metadata = {"invocationId": "42", "finishedOn": "2026-03-01T11:00:00Z"}
    return {
        "buildDefinition": definition,
        "runDetails": {"builder": {"id": builder}, "metadata": metadata},
    } | more


def vulnerabilities(*found: tuple[str, str], **more: Any) -> dict[str, Any]:
    """Vulns v0.2 with only what the standard has."""
    result = [
        {"id": name, "severity": [{"method": "nvd", "score": score}]} for name, score in found
    ]
    return {
        "scanner": {
            "uri": "pkg:github/other/scanner@1",
            "db": {"uri": "https://db.invalid", "lastUpdate": "2026-03-01T06:00:00Z"},
            "result": result,
        },
        "metadata": {
            "scanStartedOn": "2026-03-01T11:50:00Z",
            "scanFinishedOn": "2026-03-01T11:51:00Z",
        },
    } | more


def simple_signing(digest: Digest | str, kind: str = "cosign container image signature") -> bytes:
    """What cosign signs in its older form."""
    critical = {
        "identity": {"docker-reference": "registry/x"},
        "image": {"docker-manifest-digest": str(digest)},
        "type": kind,
    }
    return json.dumps({"critical": critical, "optional": None}).encode()


def open_policy(
    directory: Path,
    *,
    require: str = f"[{{predicate: '{SLSA_V1}'}}]",
    builders: str = f"['{TEAM}']",
    identities: str = "[]",
    root: bytes | None = None,
    keys: bool = True,
    more: str = "",
) -> LoadedPolicy:
    """A policy that takes evidence without a seal."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "release.pub").write_bytes(public_key().pem)
    entry = "{id: release, public-key: release.pub, algorithm: ecdsa-p256-sha256}"
    text = f"version: 1\nkeys: [{entry if keys else ''}]\nidentities: {identities}\n"
    if root is not None:
        (directory / "root.json").write_bytes(root)
        text += "trust-root: root.json\n"
    text += f"require: {require}\nbuilders: {builders}\nseal: {{required: false}}\n{more}\n"
    (directory / "policy.yaml").write_text(text)
    return load(directory / "policy.yaml")


def requiring(directory: Path, *kinds: str, **more: Any) -> LoadedPolicy:
    """Such a policy that requires these predicate types."""
    listed = ", ".join(f"{{predicate: '{kind}'}}" for kind in kinds)
    return open_policy(directory, require=f"[{listed}]", **more)
