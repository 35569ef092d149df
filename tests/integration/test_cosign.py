"""cosign judges what we signed, and we read what cosign signed. No network but loopback."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from fakes.evidence import StepClock, evidence, make_image, sign_inputs
from fakes.registry import (
    build_referrers_registry,
    debian_registry,
    push_fallback_tag,
    push_layout,
    referrers_registry,
)
from fakes.workplace import Workplace
from secure_pipeline.attestations import bundle, dsse, predicates
from secure_pipeline.attestations.attachments import collect
from secure_pipeline.attestations.forms import att_tag
from secure_pipeline.attestations.statement import parse_statement
from secure_pipeline.events import ignore
from secure_pipeline.keys.local import LocalSigner, generate, load
from secure_pipeline.keys.verify import PublicKey, load_public_key
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import Descriptor
from secure_pipeline.policy.document import Algorithm
from secure_pipeline.stages.result import Verdict
from secure_pipeline.stages.sign import sign
from secure_pipeline.wiring import locate_tool

pytestmark = pytest.mark.integration

PASSWORD = "only for tests"
TYPES = [*evidence(), predicates.SEAL]
BUNDLE, ATT = "--new-bundle-format=true", "--new-bundle-format=false"
P256 = Algorithm.ECDSA_P256_SHA256
NO_LOG = ("--use-signing-config=false", "--tlog-upload=false")


@dataclass(frozen=True)
class Cosign:
    """The pinned cosign, in a home of its own."""

    path: Path
    home: Path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.path), *map(str, arguments)],
            cwd=self.home,
            env={"HOME": str(self.home), "PATH": "/usr/bin:/bin", "COSIGN_PASSWORD": PASSWORD},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def verify(self, key: Path, kind: str, form: str, image: str) -> bool:
        """Whether cosign accepts an attestation of this type, and tells us that payload."""
        ended = self.run(
            *("verify-attestation", "--key", key, "--insecure-ignore-tlog"),
            *("--type", kind, form, image),
        )
        if ended.returncode:
            return False
        payloads = [json.loads(line)["payload"] for line in ended.stdout.splitlines()]
        statements = [parse_statement(dsse.strict_base64(p, "payload", kind)) for p in payloads]
        assert statements
        assert {item.predicate_type for item in statements} == {kind}
        return True


@dataclass(frozen=True)
class Signed:
    """A layout that we signed with a generated key."""

    layout: Layout
    image: Descriptor
    key: Path
    signer: LocalSigner


@pytest.fixture(scope="module")
def cosign(tmp_path_factory: pytest.TempPathFactory) -> Cosign:
    return Cosign(locate_tool("cosign").path, tmp_path_factory.mktemp("cosign"))


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    directory = tmp_path_factory.mktemp("signed")
    generate(directory / "release.key", PASSWORD)
    signer = load(directory / "release.key", PASSWORD)
    image = make_image(directory / "layout")
    result = sign(sign_inputs(directory / "layout", image), signer, StepClock(), ignore)
    assert result.verdict is Verdict.PASS
    return Signed(Layout.open(directory / "layout"), image, directory / "release.pub", signer)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with the referrers API."""
    program = build_referrers_registry(tmp_path_factory.mktemp("registry"))
    with referrers_registry(program) as host:
        yield host


@pytest.fixture(scope="module")
def plain_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's registry, without the referrers API."""
    program = shutil.which("docker-registry", path=f"{os.environ.get('PATH', '')}:/usr/bin")
    assert program, "docker-registry is not installed: apt-get install docker-registry"
    with debian_registry(Path(program), tmp_path_factory.mktemp("debian")) as host:
        yield host


def only_bundles(item: Descriptor) -> bool:
    return not (item.tag or "").endswith(".att")


def only_att(item: Descriptor) -> bool:
    return item.tag is not None


@pytest.fixture(scope="module")
def pushed(registry: str, plain_registry: str, signed: Signed) -> dict[str, str]:
    """The image four times, each with one attachment layout in one kind of registry."""
    repositories = {}
    for name, host in (("api", registry), ("plain", plain_registry)):
        for form, chosen in ((BUNDLE, only_bundles), (ATT, only_att)):
            repository = "bundle" if form == BUNDLE else "att"
            push_layout(signed.layout, host, repository, chosen)
            repositories[f"{name} {form}"] = f"{host}/{repository}@{signed.image.digest}"
    push_fallback_tag(signed.layout, plain_registry, "bundle", signed.image.digest)
    return repositories


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("form", [BUNDLE, ATT])
@pytest.mark.parametrize("place", ["api", "plain"])
def test_cosign_accepts_every_type(
    cosign: Cosign, signed: Signed, pushed: dict[str, str], kind: str, form: str, place: str
) -> None:
    """Each predicate type verifies in each layout alone, with and without the referrers API."""
    assert cosign.verify(signed.key, kind, form, pushed[f"{place} {form}"])


@pytest.mark.xdist_group("released")
def test_cosign_accepts_the_evidence_of_a_real_run(
    cosign: Cosign, registry: str, released: Workplace, shared: Path
) -> None:
    """Every type that the whole pipeline wrote verifies in both layouts."""
    layout = Layout.open(released.state / "image")
    digest = Digest.parse(released.image())
    public = load_public_key("release", (shared / "release.pub").read_bytes(), P256)
    kinds = {
        parse_statement(item.envelope.payload).predicate_type for item in collect(layout, digest)
    }
    assert kinds == {*TYPES, predicates.LEDGER_HEAD}
    assert all(public.signed(item.envelope) for item in collect(layout, digest))
    for form, chosen in ((BUNDLE, only_bundles), (ATT, only_att)):
        repository = f"run-{'bundle' if form == BUNDLE else 'att'}"
        push_layout(layout, registry, repository, chosen)
        for kind in kinds:
            image = f"{registry}/{repository}@{digest}"
            assert cosign.verify(shared / "release.pub", kind, form, image), (kind, form)


@pytest.mark.parametrize("form", [BUNDLE, ATT])
def test_cosign_rejects_what_it_should(
    cosign: Cosign, signed: Signed, pushed: dict[str, str], tmp_path: Path, form: str
) -> None:
    """Another key, or a type that is not there, is rejected: acceptance above means something."""
    image = pushed[f"api {form}"]
    other = generate(tmp_path / "other.key", PASSWORD)
    assert other.der != signed.signer.public_key_der
    assert not cosign.verify(tmp_path / "other.pub", predicates.SEAL, form, image)
    assert not cosign.verify(signed.key, predicates.VSA, form, image)


@pytest.mark.parametrize("form", [BUNDLE, ATT])
@pytest.mark.parametrize("damage", ["signature", "payload"])
def test_cosign_and_we_reject_the_same_tampering(
    cosign: Cosign, signed: Signed, registry: str, tmp_path: Path, form: str, damage: str
) -> None:
    """A layout whose attachments were rewritten with one changed byte is refused by both."""
    copy = tmp_path / "layout"
    shutil.copytree(signed.layout.path, copy)
    layout = Layout.open(copy)
    tagged = layout.tagged(att_tag(signed.image.digest))
    assert tagged
    public = signed.signer.public_key("release")
    bundles = [item for item in layout.manifests() if item.artifact_type]
    for manifest in bundles if form == BUNDLE else [tagged]:
        tamper(layout, public, manifest, damage)
    repository = f"tampered-{damage}-{form[-4:].strip('=')}"
    push_layout(layout, registry, repository, only_bundles if form == BUNDLE else only_att)
    for kind in TYPES:
        image = f"{registry}/{repository}@{signed.image.digest}"
        assert not cosign.verify(signed.key, kind, form, image)


def tamper(layout: Layout, public: PublicKey, listed: Descriptor, damage: str) -> None:
    """Change each attachment of a manifest, with all digests made right again."""
    document = json.loads(layout.read_blob(listed.digest, 1 << 20))
    for layer in document["layers"]:
        value = json.loads(layout.read_blob(Digest.parse(layer["digest"]), 1 << 24))
        envelope = value.get("dsseEnvelope", value)
        if damage == "payload":
            payload = dsse.strict_base64(envelope["payload"], "payload", "test")
            changed = payload.replace(b'"run-1"', b'"run-2"').replace(b"=run-1", b"=run-2")
            envelope["payload"] = base64.b64encode(changed + b" ").decode()
        else:
            signature = bytearray(dsse.strict_base64(envelope["signatures"][0]["sig"], "", ""))
            signature[-1] ^= 1
            envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
        raw = json.dumps(value).encode()
        parse = bundle.parse_bundle if "dsseEnvelope" in value else dsse.parse_envelope
        assert not public.signed(parse(raw))
        made = layout.write_blob(raw, layer["mediaType"])
        layer.update(digest=str(made.digest), size=made.size)
    made = layout.write_blob(json.dumps(document).encode(), listed.media_type)
    with layout.edit() as edit:
        position = edit.entries.index(listed)
        edit.entries[position] = Descriptor(
            made.media_type, made.digest, made.size, listed.artifact_type, listed.annotations
        )
        edit.changed = True


def test_cosign_reads_our_key(cosign: Cosign, signed: Signed) -> None:
    """Cosign opens the key file that we wrote and finds the same public key."""
    private = signed.key.with_suffix(".key")
    ended = cosign.run("public-key", "--key", private)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == signed.key.read_text().strip()


def test_we_read_a_key_of_cosign(cosign: Cosign, tmp_path: Path) -> None:
    """A pair that cosign generated signs with us, and cosign's public half verifies it."""
    prefix = tmp_path / "theirs"
    ended = cosign.run("generate-key-pair", "--output-key-prefix", prefix)
    assert ended.returncode == 0, ended.stderr
    signer = load(tmp_path / "theirs.key", PASSWORD)
    public = load_public_key("theirs", (tmp_path / "theirs.pub").read_bytes(), P256)
    assert public.verify(b"message", signer.sign(b"message"))
    assert public.der == signer.public_key_der


def attest(
    cosign: Cosign, signed: Signed, host: str, repository: str, form: str, predicate: Path
) -> None:
    """Let cosign attest the image with our key."""
    push_layout(signed.layout, host, repository, lambda item: item.tag == "latest")
    ended = cosign.run(
        *("attest", "--key", signed.key.with_suffix(".key"), "--yes", *NO_LOG, form),
        *("--predicate", predicate, "--type", predicates.CYCLONEDX),
        f"{host}/{repository}@{signed.image.digest}",
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("form", [BUNDLE, ATT])
def test_we_verify_what_cosign_attested(
    cosign: Cosign, signed: Signed, registry: str, tmp_path: Path, form: str
) -> None:
    """An attestation that cosign pushed parses, verifies and is about the image, in each form."""
    predicate = tmp_path / "bom.json"
    predicate.write_text('{"bomFormat":"CycloneDX","specVersion":"1.6","version":1}')
    repository = "theirs-bundle" if form == BUNDLE else "theirs-att"
    attest(cosign, signed, registry, repository, form, predicate)
    base = f"http://{registry}/v2/{repository}"
    if form == BUNDLE:
        answer = requests.get(f"{base}/referrers/{signed.image.digest}", timeout=20).json()
        reference = answer["manifests"][0]["digest"]
    else:
        reference = att_tag(signed.image.digest)
    manifest = requests.get(f"{base}/manifests/{reference}", timeout=20).json()
    blob = requests.get(f"{base}/blobs/{manifest['layers'][0]['digest']}", timeout=20).content
    envelope = bundle.parse_bundle(blob) if form == BUNDLE else dsse.parse_envelope(blob)
    public = load_public_key("release", signed.key.read_bytes(), P256)
    assert public.signed(envelope)
    statement = parse_statement(envelope.payload)
    statement.require_subject(signed.image.digest)
    statement.require_type(predicates.CYCLONEDX)
    if form == BUNDLE:
        assert envelope.signatures[0].keyid == public.hint
