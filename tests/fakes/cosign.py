"""Real cosign as a judge: of files, and of attestations in a registry on loopback."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import requests

from secure_pipeline.attestations.forms import ATT_PREDICATE, ATT_SIGNATURE, ENVELOPE_TYPE, att_tag
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.manifest import CONFIG_TYPE, MANIFEST_TYPE
from secure_pipeline.wiring import locate_tool

PASSWORD = "only for tests"
_SECONDS = 120


@dataclass(frozen=True)
class Cosign:
    """A pinned cosign, in a home of its own, with nothing of the environment."""

    path: Path
    home: Path
    always: tuple[str, ...] = ()
    """Options that each verification needs."""

    @classmethod
    def located(cls, name: str, home: Path) -> Cosign:
        """The installed ``cosign`` or ``cosign2``.

        cosign 2 judges no bundle without a trusted root, which it would get from the network
        even where a key is given: it gets an empty one.
        """
        home.mkdir(exist_ok=True)
        if name == "cosign":
            return cls(locate_tool(name).path, home)
        root = home / "trusted-root.json"
        kind = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
        root.write_text(json.dumps({"mediaType": kind}))
        return cls(locate_tool(name).path, home, ("--trusted-root", str(root)))

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end; 120 s at most."""
        return subprocess.run(
            [str(self.path), *map(str, arguments)],
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": "/usr/bin:/bin", "COSIGN_PASSWORD": PASSWORD},
            capture_output=True,
            timeout=_SECONDS,
        )

    def accepts_bundle(self, key: Path, bundle: Path, kind: str, digest: Digest) -> bool:
        """Whether it accepts the bundle in a file as an attestation of this digest and type."""
        ended = self.run(
            *("verify-blob-attestation", "--key", key, "--insecure-ignore-tlog"),
            *("--bundle", bundle, "--type", kind, "--check-claims=true"),
            *("--digest", digest.hex, "--digestAlg", "sha256", *self.always),
        )
        return ended.returncode == 0

    def verify_attestation(
        self, key: Path, kind: str, image: str, *options: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Verify the attestations of one type of an image in a registry."""
        return self.run(
            *("verify-attestation", "--key", key, "--insecure-ignore-tlog"),
            *("--type", kind, *options, image),
        )


@dataclass
class AttJudge:
    """cosign over many envelopes at once: each a layer of one ``.att`` manifest."""

    cosign: Cosign
    key: Path
    host: str
    image: Digest
    processes: int = 0
    repositories: int = 0
    session: requests.Session = field(default_factory=requests.Session)

    def accepted(self, kind: str, envelopes: Sequence[bytes]) -> set[int]:
        """Positions of the envelopes that verify as attestations of this image and type.

        Where one envelope makes the whole command fail, halves are judged until it is alone.
        """
        ended = self._verify(kind, envelopes)
        if ended.returncode == 0:
            return {at for at, data in enumerate(envelopes) if data + b"\n" in ended.stdout}
        if len(envelopes) == 1:
            return set()
        middle = len(envelopes) // 2
        right = self.accepted(kind, envelopes[middle:])
        return self.accepted(kind, envelopes[:middle]) | {middle + at for at in right}

    def _verify(self, kind: str, envelopes: Sequence[bytes]) -> subprocess.CompletedProcess[bytes]:
        self.processes += 1
        self.repositories += 1
        base = f"http://{self.host}/v2/judged-{self.repositories}"
        layers = [
            {
                **self._push(base, data, ENVELOPE_TYPE),
                "annotations": {ATT_SIGNATURE: "", ATT_PREDICATE: kind},
            }
            for data in envelopes
        ]
        config = {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers"}}
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": self._push(base, json.dumps(config).encode(), CONFIG_TYPE),
            "layers": layers,
        }
        answer = self.session.put(
            f"{base}/manifests/{att_tag(self.image)}",
            json.dumps(document).encode(),
            headers={"Content-Type": MANIFEST_TYPE},
            timeout=_SECONDS,
        )
        assert answer.status_code == 201, answer.text
        image = f"{self.host}/judged-{self.repositories}@{self.image}"
        return self.cosign.verify_attestation(self.key, kind, image, "--new-bundle-format=false")

    def _push(self, base: str, data: bytes, media_type: str) -> dict[str, object]:
        digest = str(Digest.of(data))
        answer = self.session.post(
            f"{base}/blobs/uploads/", data, params={"digest": digest}, timeout=_SECONDS
        )
        assert answer.status_code == 201, answer.text
        return {"mediaType": media_type, "digest": digest, "size": len(data)}
