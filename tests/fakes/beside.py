"""Puts attestations of any shape beside an image in a layout, right and wrong ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fakes.evidence import make_image
from secure_pipeline.attestations import bundle, dsse
from secure_pipeline.attestations.forms import ATT_PREDICATE, ATT_SIGNATURE, ENVELOPE_TYPE, att_tag
from secure_pipeline.attestations.statement import make_statement
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import CONFIG_TYPE, EMPTY_BYTES, EMPTY_TYPE, MANIFEST_TYPE
from secure_pipeline.ports import Signer


@dataclass
class Beside:
    """An image in a layout, its signer, and what is put beside it."""

    layout: Layout
    image: Digest
    signer: Signer
    layers: list[dict[str, Any]]
    config: dict[str, Any]

    @classmethod
    def make(cls, path: Path, signer: Signer) -> Beside:
        """A fresh layout with an image of its own."""
        image = make_image(path, str(path).encode())
        layout = Layout.open(path)
        config = {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers"}}
        written = layout.write_blob(json.dumps(config).encode(), CONFIG_TYPE)
        return cls(layout, image.digest, signer, [], written.to_json())

    def statement(self, kind: str, about: Digest | None = None, **changes: Any) -> bytes:
        """A statement about the image, or another one."""
        document = json.loads(make_statement("service", about or self.image, kind, {"a": 1}))
        return json.dumps(document | changes).encode()

    def envelope(self, payload: bytes, signers: int = 1, **signature: str) -> bytes:
        """An envelope with that many signatures; members of them may be given."""
        made = [
            dsse.EnvelopeSignature("", self.signer.sign(dsse.pae(dsse.PAYLOAD_TYPE, payload)))
            for _ in range(signers)
        ]
        document = json.loads(dsse.serialise(dsse.PAYLOAD_TYPE, payload, tuple(made)))
        document["signatures"] = [item | signature for item in document["signatures"]]
        return json.dumps(document).encode()

    def wrapped(self, envelope: bytes, **changes: Any) -> bytes:
        """A bundle around an envelope, whatever is in that."""
        hint = dsse.key_id(self.signer.public_key_der)
        document = {
            "mediaType": bundle.MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": hint}},
            "dsseEnvelope": json.loads(envelope),
        }
        return json.dumps(document | changes).encode()

    def put_bundle(
        self,
        data: bytes,
        *,
        artifact_type: str | None = bundle.MEDIA_TYPE,
        layer_type: str = bundle.MEDIA_TYPE,
    ) -> None:
        """List a referrer with this layer."""
        config = self.layout.write_blob(EMPTY_BYTES, EMPTY_TYPE)
        subject = replace(self.layout.find(self.image), annotations={}, platform=None)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config.to_json(),
            "layers": [self.layout.write_blob(data, layer_type).to_json()],
            "subject": subject.to_json(),
        }
        if artifact_type:
            manifest["artifactType"] = artifact_type
        self.layout.write_manifest(json.dumps(manifest).encode(), MANIFEST_TYPE)

    def put_layer(
        self,
        data: bytes,
        kind: str,
        *,
        media_type: str = ENVELOPE_TYPE,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """Add a layer to the ``.att`` manifest, which ``finish`` writes."""
        notes = {ATT_SIGNATURE: "", ATT_PREDICATE: kind} if annotations is None else annotations
        written = self.layout.write_blob(data, media_type).to_json()
        self.layers.append({**written, "annotations": dict(notes)})

    def put(self, data: bytes, kind: str) -> None:
        """Put an envelope in both forms."""
        self.put_bundle(self.wrapped(data))
        self.put_layer(data, kind)

    def finish(self) -> None:
        """Write the ``.att`` manifest, if there is anything for it."""
        if self.layers:
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST_TYPE,
                "config": self.config,
                "layers": self.layers,
            }
            data = json.dumps(manifest).encode()
            self.layout.write_manifest(data, MANIFEST_TYPE, tag=att_tag(self.image), listed=False)
