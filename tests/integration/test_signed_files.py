"""Signed files with real parts: buildah makes the image, and cosign and we judge each other."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from contracts.builder import EPOCH
from fakes.cosign import PASSWORD, Cosign
from fakes.evidence import sign_inputs, stage_results
from fakes.foreign import open_policy
from fakes.ledgers import ledger
from fakes.release import BUILDER, policy, stage_evidence
from fakes.workplace import ROOT
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.attestations import predicates
from secure_pipeline.config import BuildConfig, Network
from secure_pipeline.events import ignore
from secure_pipeline.files import sha256_file
from secure_pipeline.keys.local import LocalSigner, generate, load
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.policy.document import BuildGate, LoadedPolicy
from secure_pipeline.ports import SourceState
from secure_pipeline.signing import Recording, sign_recorded
from secure_pipeline.stages.build import BuildInputs, build
from secure_pipeline.stages.result import StageResult, Verdict
from secure_pipeline.stages.verifyfile import VerifyFileInputs, verify_file
from secure_pipeline.tools.buildah import Buildah
from secure_pipeline.tools.locate import locate
from secure_pipeline.tools.process import Processes

pytestmark = pytest.mark.integration

PROVENANCE = predicates.PROVENANCE
DOCKERFILE = """\
FROM scratch AS base
COPY old.whl /opt/wheel/old.whl
COPY program.whl /opt/wheel/program-1.0-py3-none-any.whl
FROM base
COPY notes /opt/wheel/
"""


class Signed:
    """What a whole build and signing left in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        generate(directory / "release.key", PASSWORD)
        self.signer: LocalSigner = load(directory / "release.key", PASSWORD)
        self.key = directory / "release.pub"
        self.files = directory / "files"

    def policy(self, directory: Path, **more: str) -> LoadedPolicy:
        return policy(
            directory, key=self.signer, require=f"[{{predicate: '{PROVENANCE}'}}]", **more
        )

    def verify(self, path: Path, trusted: LoadedPolicy, bundle: Path | None = None) -> StageResult:
        inputs = VerifyFileInputs(path, trusted, bundle)
        return verify_file(inputs, SystemClock(), ignore)


def wheel_of_this_source(directory: Path) -> Path:
    """The program's own wheel, from the files as they are."""
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    ended = subprocess.run(
        [sys.executable, "-c", code, directory], cwd=ROOT, check=True, stdout=subprocess.PIPE,
        timeout=120,
    )  # fmt: skip
    return directory / ended.stdout.decode().split()[-1]


def made(directory: Path, dockerfile: str, files: tuple[str, ...]) -> BuildInputs:
    context = directory / "repository"
    context.mkdir()
    (context / "Dockerfile").write_text(dockerfile)
    return BuildInputs(
        root=context,
        config=BuildConfig(files=files, network=Network.NONE),
        gate=BuildGate(),
        source=SourceState("c" * 40, "sha256:" + "7" * 64, False, EPOCH, None),
        layout=directory / "image",
        name="wheels",
        secret_values={},
    )


def built(inputs: BuildInputs, storage: Path) -> StageResult:
    builder = Buildah(locate("buildah"), Processes(threading.Event()), storage, SystemClock())
    return build(inputs, builder, SystemClock(), ignore)


def sign(signed: Signed, inputs: BuildInputs, result: StageResult) -> StageResult:
    """Sign the image and its files; the other stages are fakes."""
    layout = Layout.open(inputs.layout)
    digest = str(result.figures["digest"])
    chosen = sign_inputs(inputs.layout, layout.find(Digest.parse(digest)))
    others = [item for item in stage_results(digest) if item.stage != "build"]
    suite = stage_evidence()["analyze"]
    others = [replace(r, evidence=(suite,)) if r.stage == "analyze" else r for r in others]
    context = replace(chosen.context, builder_id=BUILDER)
    chosen = replace(chosen, results=(*others, result), context=context)
    recording = Recording(ledger(signed.directory), "vault-transit://transit/release", None)
    return sign_recorded(
        chosen, signed.files, recording, lambda: signed.signer, SystemClock(), ignore
    )


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """The program's wheel in an image that buildah made of several layers, signed as a file."""
    place = Signed(tmp_path_factory.mktemp("signed"))
    inputs = made(place.directory, DOCKERFILE, ("/opt/wheel/program-*.whl", "/opt/wheel/*.txt"))
    wheel = wheel_of_this_source(place.directory)
    wheel.rename(inputs.root / "program.whl")
    (inputs.root / "old.whl").write_text("another")
    (inputs.root / "notes").mkdir()
    (inputs.root / "notes/NOTES.txt").write_text("what is new\n")
    result = built(inputs, place.directory / "storage")
    assert result.verdict is Verdict.PASS, result.reasons
    assert sign(place, inputs, result).verdict is Verdict.PASS
    assert {item["digest"] for item in result.figures["files"]} == {
        f"sha256:{sha256_file(inputs.root / name)}" for name in ("program.whl", "notes/NOTES.txt")
    }
    return place


@pytest.fixture(scope="module")
def cosign(tmp_path_factory: pytest.TempPathFactory) -> Cosign:
    return Cosign.located("cosign", tmp_path_factory.mktemp("cosign"))


@pytest.fixture(scope="module")
def wheel(signed: Signed) -> Path:
    (found,) = signed.files.glob("*.whl")
    return found


def bundle_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sigstore.json")


def cosign_accepts(
    cosign: Cosign, path: Path, bundle: Path, key: Path, kind: str = "slsaprovenance1"
) -> bool:
    ended = cosign.run(
        *("verify-blob-attestation", "--key", key, "--insecure-ignore-tlog"),
        *("--bundle", bundle, "--type", kind, path),
    )
    assert ended.returncode in (0, 1), ended.stderr
    return ended.returncode == 0


def test_the_file_that_buildah_put_there_is_signed_and_verifies(
    signed: Signed, wheel: Path, tmp_path: Path
) -> None:
    """Out of real layers, for us and as a program on its own: exit 0, and 11 once altered."""
    trusted = signed.policy(tmp_path / "p")
    names = {path.name for path in signed.files.iterdir()}
    assert names == {
        *(wheel.name, f"{wheel.name}.sigstore.json"),
        *("NOTES.txt", "NOTES.txt.sigstore.json"),
    }
    result = signed.verify(wheel, trusted)
    assert result.verdict is Verdict.PASS, result.reasons
    copy = tmp_path / wheel.name
    copy.write_bytes(wheel.read_bytes())
    bundle_of(copy).write_bytes(bundle_of(wheel).read_bytes())
    words = [sys.executable, "-m", "secure_pipeline", "verify", "file", copy.name]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    more = ["--policy", str(trusted.source), "--json"]
    for code in (0, 11):
        ended = subprocess.run(
            [*words, *more], cwd=tmp_path, env=environment, capture_output=True, timeout=60
        )
        assert ended.returncode == code, ended.stderr
        assert json.loads(ended.stdout)["exitCode"] == code
        copy.write_bytes(wheel.read_bytes() + b"\0")


def test_a_file_that_a_later_layer_deletes_is_missing(tmp_path: Path) -> None:
    """The real builder's whiteouts and opaque directories count."""
    text = (
        "FROM scratch AS base\nCOPY a.whl /opt/wheel/a.whl\nCOPY b.whl /opt/wheel/b.whl\n"
        "FROM base\nCOPY b.whl /opt/wheel/a.whl\n"
    )
    inputs = made(tmp_path, text, ("/opt/wheel/*.whl",))
    (inputs.root / "a.whl").write_text("first")
    (inputs.root / "b.whl").write_text("second")
    result = built(inputs, tmp_path / "storage")
    files = {item["path"]: item["digest"] for item in result.figures["files"]}
    assert set(files.values()) == {str(Digest.of(b"second"))}
    assert list(files) == ["/opt/wheel/a.whl", "/opt/wheel/b.whl"]


def test_cosign_accepts_our_bundle(cosign: Cosign, signed: Signed, wheel: Path) -> None:
    """With the key alone, by alias and by URI; not as another type."""
    for path in (wheel, signed.files / "NOTES.txt"):
        assert cosign_accepts(cosign, path, bundle_of(path), signed.key)
        assert cosign_accepts(cosign, path, bundle_of(path), signed.key, PROVENANCE)
        assert not cosign_accepts(cosign, path, bundle_of(path), signed.key, "slsaprovenance")


def other_signature(data: bytes) -> bytes:
    """A bundle with one changed bit of its signature."""
    document = json.loads(data)
    (signature,) = document["dsseEnvelope"]["signatures"]
    changed = bytearray(base64.b64decode(signature["sig"]))
    changed[-1] ^= 1
    signature["sig"] = base64.b64encode(changed).decode()
    return json.dumps(document).encode()


Change = Callable[[bytes], bytes]
ALTERED: dict[str, tuple[Change | None, Change | None]] = {
    "content": (lambda data: data[:-1] + b"?", None),
    "cut": (lambda data: data[:-1], None),
    "longer": (lambda data: data + b"\n", None),
    "empty": (lambda data: b"", None),
    "signature": (None, other_signature),
    "payload": (None, lambda data: data.replace(b'"payload":"eyJ', b'"payload":"eyK')),
    "cut bundle": (None, lambda data: data[:-2]),
    "no bundle": (None, lambda data: b"{}"),
}  # fmt: skip


@pytest.mark.parametrize("what", ALTERED)
def test_cosign_and_we_refuse_the_same(
    cosign: Cosign, signed: Signed, wheel: Path, tmp_path: Path, what: str
) -> None:
    """A changed file or bundle is refused by both."""
    of_file, of_bundle = ALTERED[what]
    path = tmp_path / wheel.name
    content, bundle = wheel.read_bytes(), bundle_of(wheel).read_bytes()
    path.write_bytes(of_file(content) if of_file else content)
    bundle_of(path).write_bytes(of_bundle(bundle) if of_bundle else bundle)
    assert (path.read_bytes(), bundle_of(path).read_bytes()) != (content, bundle)
    assert not cosign_accepts(cosign, path, bundle_of(path), signed.key)
    assert signed.verify(path, signed.policy(tmp_path / "p")).code == 11


def test_cosign_and_we_refuse_another_key_and_another_files_bundle(
    cosign: Cosign, signed: Signed, wheel: Path, tmp_path: Path
) -> None:
    """Sound bundles, of the wrong file or for the wrong key."""
    notes = bundle_of(signed.files / "NOTES.txt")
    assert not cosign_accepts(cosign, wheel, notes, signed.key)
    assert signed.verify(wheel, signed.policy(tmp_path / "p"), notes).code == 11
    generate(tmp_path / "other.key", PASSWORD)
    assert not cosign_accepts(cosign, wheel, bundle_of(wheel), tmp_path / "other.pub")
    other = policy(tmp_path / "q", key=load(tmp_path / "other.key", PASSWORD))
    assert signed.verify(wheel, other).code == 11


SLSA = {
    "buildDefinition": {"buildType": "https://example.invalid/build/v1", "externalParameters": {}},
    "runDetails": {"builder": {"id": BUILDER}},
}
BOM = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}


@pytest.mark.parametrize(
    ("alias", "kind", "predicate", "builders"),
    [
        ("slsaprovenance1", PROVENANCE, SLSA, f"['{BUILDER}']"),
        ("cyclonedx", predicates.CYCLONEDX, BOM, "[]"),
    ],
)
def test_we_accept_what_cosign_attests_and_the_policy_asks_for(
    cosign: Cosign,
    signed: Signed,
    tmp_path: Path,
    alias: str,
    kind: str,
    predicate: dict[str, object],
    builders: str,
) -> None:
    """What attest-blob writes is judged alike; a policy that asks for something else denies."""
    path, proof = tmp_path / "tool", tmp_path / "tool.sigstore.json"
    path.write_bytes(b"\x7fELF tool")
    (tmp_path / "predicate.json").write_text(json.dumps(predicate))
    ended = cosign.run(
        *("attest-blob", "--key", signed.key.with_suffix(".key"), "--yes"),
        *("--use-signing-config=false", "--tlog-upload=false", "--new-bundle-format"),
        *("--predicate", tmp_path / "predicate.json", "--type", alias, "--bundle", proof, path),
    )
    assert ended.returncode == 0, ended.stderr
    asked = f"[{{predicate: '{kind}'}}]"
    trusted = open_policy(tmp_path / "p", require=asked, builders=builders)
    trusted.source.with_name("release.pub").write_bytes(signed.key.read_bytes())
    assert cosign_accepts(cosign, path, proof, signed.key, alias)
    result = signed.verify(path, trusted)
    assert (result.code, result.figures["signedName"]) == (0, "tool"), result.reasons
    other = open_policy(tmp_path / "q", require=f"[{{predicate: '{predicates.SPDX}'}}]")
    other.source.with_name("release.pub").write_bytes(signed.key.read_bytes())
    assert signed.verify(path, other).code == 12
    path.write_bytes(b"\x7fELF tooL")
    assert not cosign_accepts(cosign, path, proof, signed.key, alias)
    assert signed.verify(path, trusted).code == 11
