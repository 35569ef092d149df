"""Runs of the real readers over what we write, of us over what they write, and their tables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fakes.beside import Beside
from fakes.cosign import PASSWORD, Cosign
from fakes.evidence import StepClock, evidence, make_image, sign_inputs
from fakes.jsjudge import install_judge
from fakes.registry import (
    build_referrers_registry,
    debian_registry,
    push_fallback_tag,
    push_layout,
    referrers_registry,
)
from fakes.scenes import KIND, SCENES, Scene
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.dockerconfig import Login
from secure_pipeline.adapters.registry import Repository, open_repository
from secure_pipeline.attestations import bundle
from secure_pipeline.attestations.attachments import bundle_spots, collect
from secure_pipeline.attestations.predicates import SEAL
from secure_pipeline.attestations.statement import parse_statement
from secure_pipeline.errors import PipelineError
from secure_pipeline.events import ignore
from secure_pipeline.interop.model import Finding, Verdict
from secure_pipeline.interop.readers import report
from secure_pipeline.interop.sight import look
from secure_pipeline.keys.local import LocalSigner, generate, load
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import Descriptor
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.stages.result import Verdict as StageVerdict
from secure_pipeline.stages.sign import sign
from secure_pipeline.wiring import locate_tool

COSIGNS = {"cosign-2": "cosign2", "cosign-3": "cosign"}
"""Name in ``interop`` to name of the tool."""
READERS = (*COSIGNS, "policy-controller")
"""Names in ``interop`` of the readers that are run."""
POLICY = """\
apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata: {name: evidence}
spec:
  images: [{glob: "**"}]
  authorities:
  - name: key
    key: {data: KEY}
    attestations: [{name: evidence, predicateType: "TYPE"}]
"""
TYPES = sorted({*evidence(), SEAL})
FORMS: dict[str, Callable[[Descriptor], bool]] = {
    "bundle": lambda item: not (item.tag or "").endswith(".att"),
    "att": lambda item: item.tag is not None,
}
REGISTRIES = ("api", "tag")
WRITES = {
    "cosign-2": ("--tlog-upload=false",),
    "cosign-3": ("--use-signing-config=false", "--tlog-upload=false"),
}
_WORDS = {True: "accepts", False: "rejects"}


class NoCredentials:
    """For registries on loopback that ask for none."""

    def login(self, registry: str) -> Login:
        return Login("anonymously")


@dataclass(frozen=True)
class Ground:
    """The readers, two registries and one key pair."""

    directory: Path
    cosigns: dict[str, Cosign]
    policy_tester: Path
    hosts: dict[str, str]
    signer: LocalSigner
    key: Path
    """The public key; the private one is beside it."""

    def repository(self, registry: str, name: str) -> Repository:
        """Our own view of a repository."""
        return open_repository(
            f"{self.hosts[registry]}/{name}", credentials=NoCredentials(), clock=SystemClock()
        )

    def reference(self, registry: str, name: str, digest: Digest) -> str:
        """The image's name for the readers."""
        return f"{self.hosts[registry]}/{name}@{digest}"

    def accepts(self, reader: str, kind: str, image: str) -> bool:
        """Whether the real reader accepts, given what ``interop`` says that it needs."""
        if reader == "policy-controller":
            return self._admitted(kind, image)
        cosign = self.cosigns[reader]
        return cosign.verify_attestation(self.key, kind, image, *cosign.always).returncode == 0

    def _admitted(self, kind: str, image: str) -> bool:
        """policy-controller's own decision, without a cluster, about a policy of one type."""
        path = self.directory / "policy.yaml"
        pem = json.dumps(self.key.read_text())
        path.write_text(POLICY.replace("KEY", pem).replace("TYPE", kind))
        ended = subprocess.run(
            [str(self.policy_tester), "-policy", str(path), "-image", image],
            env={"HOME": str(self.directory), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            timeout=120,
        )
        decision = json.loads(ended.stdout or b"{}")
        assert (ended.returncode == 0) == (not decision.get("errors")), ended.stdout
        return ended.returncode == 0


@contextmanager
def open_ground(directory: Path) -> Iterator[Ground]:
    """Start both registries, make a key pair, find the readers."""
    program = shutil.which("docker-registry", path=f"{os.environ.get('PATH', '')}:/usr/bin")
    assert program, "docker-registry is not installed: apt-get install docker-registry"
    generate(directory / "release.key", PASSWORD)
    signer = load(directory / "release.key", PASSWORD)
    cosigns = {name: Cosign.located(tool, directory / name) for name, tool in COSIGNS.items()}
    tester = locate_tool("policy-tester").path
    with (
        referrers_registry(build_referrers_registry(directory)) as api,
        debian_registry(Path(program), directory) as tag,
    ):
        hosts = {"api": api, "tag": tag}
        yield Ground(directory, cosigns, tester, hosts, signer, directory / "release.pub")


# ---- what we write, read by others -----------------------------------------------------------


def ours_read_by_others(ground: Ground) -> dict[tuple[str, str, str, str], bool]:
    """(predicate type, reader, form, registry) to whether the real reader accepts it."""
    path = ground.directory / "ours"
    image = make_image(path)
    result = sign(sign_inputs(path, image), ground.signer, StepClock(), ignore)
    assert result.verdict is StageVerdict.PASS
    layout = Layout.open(path)
    verdicts = {}
    for form, only in FORMS.items():
        for registry in REGISTRIES:
            name = f"ours-{form}"
            push_layout(layout, ground.hosts[registry], name, only)
            if form == "bundle" and registry == "tag":
                push_fallback_tag(layout, ground.hosts[registry], name, image.digest)
            reference = ground.reference(registry, name, image.digest)
            for kind in TYPES:
                for reader in READERS if form == "att" else COSIGNS:
                    accepted = ground.accepts(reader, kind, reference)
                    verdicts[kind, reader, form, registry] = accepted
    return verdicts | _read_by_javascript(ground, layout, image.digest)


def _read_by_javascript(
    ground: Ground, layout: Layout, image: Digest
) -> dict[tuple[str, str, str, str], bool]:
    spots = bundle_spots(layout, layout.referrers(image), image)
    data = [layout.read_blob(spot.digest, bundle.MAX_BUNDLE_BYTES) for _, spot in spots]
    kinds = [parse_statement(bundle.parse_bundle(item).payload).predicate_type for item in data]
    payloads = install_judge().payloads(ground.key, data)
    return {
        (kind, "javascript", "bundle", "file"): payload is not None
        for kind, payload in zip(kinds, payloads, strict=True)
    }


# ---- what cosign writes, read by us ----------------------------------------------------------


def theirs_read_by_us(ground: Ground) -> dict[tuple[str, str, str, str], bool]:
    """(predicate type, writer, form, registry) to whether we accept what cosign attested."""
    path = ground.directory / "theirs"
    image = make_image(path, b"theirs").digest
    predicate = ground.directory / "predicate.json"
    verdicts = {}
    for writer in COSIGNS:
        for form in FORMS:
            for registry in REGISTRIES:
                name = f"theirs-{writer}-{form}"
                push_layout(Layout.open(path), ground.hosts[registry], name)
                reference = ground.reference(registry, name, image)
                for kind in TYPES:
                    content = evidence()[kind].predicate if kind in evidence() else {"a": 1}
                    predicate.write_text(json.dumps(content))
                    _attest(ground, writer, form, kind, predicate, reference)
                accepted = _we_accept(ground, registry, name, image)
                for kind in TYPES:
                    verdicts[kind, writer, form, registry] = kind in accepted
    return verdicts


def _attest(ground: Ground, writer: str, form: str, kind: str, predicate: Path, image: str) -> None:
    ended = ground.cosigns[writer].run(
        *("attest", "--key", ground.key.with_suffix(".key"), "--yes", *WRITES[writer]),
        f"--new-bundle-format={'true' if form == 'bundle' else 'false'}",
        *("--predicate", predicate, "--type", kind, image),
    )
    assert ended.returncode == 0, ended.stderr.decode()


def _we_accept(ground: Ground, registry: str, name: str, image: Digest) -> set[str]:
    """Types of what is signed by the key and about the image, as verify reads it."""
    public = ground.signer.public_key("release")
    found = set()
    for item in collect(ground.repository(registry, name), image):
        if item.envelope and public.signed(item.envelope):
            statement = parse_statement(item.envelope.payload)
            statement.require_subject(image)
            found.add(statement.predicate_type)
    return found


# ---- scenes: the real reader and its emulation -----------------------------------------------


def play(ground: Ground, number: int, scene: Scene) -> tuple[str, Digest]:
    """Build a scene and push it; return repository and image."""
    site = Beside.make(ground.directory / f"scene-{number}", ground.signer)
    scene.build(site)
    site.finish()
    name = f"scene-{number}"
    host = ground.hosts[scene.registry]
    push_layout(site.layout, host, name)
    if scene.registry == "tag" and scene.fallback:
        push_fallback_tag(site.layout, host, name, site.image)
    return name, site.image


def emulated(ground: Ground, registry: str, name: str, image: Digest) -> dict[str, Verdict]:
    """What ``interop`` says of each reader."""
    reference = ImageReference(f"{ground.hosts[registry]}/{name}", image)
    public = ground.signer.public_key("release.pub")
    sight = look(ground.repository(registry, name), image)
    return {item.reader: item for item in report(reference, sight, public, ()).verdicts}


def of_kind(verdict: Verdict) -> Finding | None:
    """The finding of the one type that scenes are about."""
    return next((item for item in verdict.findings if item.predicate_type == KIND), None)


def all_scenes(ground: Ground) -> dict[tuple[str, str], tuple[bool, Finding | None]]:
    """(scene, reader) to the real verdict and the emulated finding; our own as ``verify``."""
    results = {}
    for number, (title, scene) in enumerate(SCENES.items()):
        name, image = play(ground, number, scene)
        says = emulated(ground, scene.registry, name, image)
        for reader in READERS:
            real = ground.accepts(reader, KIND, ground.reference(scene.registry, name, image))
            results[title, reader] = (real, of_kind(says[reader]))
        results[title, "verify"] = (_we_accept_scene(ground, scene.registry, name, image), None)
    return results


def _we_accept_scene(ground: Ground, registry: str, name: str, image: Digest) -> bool:
    """Whether our own verify would count the scene's attestation, and not stop at it."""
    try:
        return KIND in _we_accept(ground, registry, name, image)
    except PipelineError:
        return False


# ---- tables ----------------------------------------------------------------------------------


def type_table(verdicts: dict[tuple[str, str, str, str], bool]) -> list[str]:
    """One row a predicate type, one column a reader, form and registry."""
    columns = list(dict.fromkeys(key[1:] for key in verdicts))
    names = [f"{who}: {form}, {_PLACES[where]}" for who, form, where in columns]
    lines = [f"| predicate type | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for kind in TYPES:
        words = [_WORDS[verdicts[kind, *column]] for column in columns]
        lines.append(f"| `{kind}` | {' | '.join(words)} |")
    return lines


def scene_table(results: dict[tuple[str, str], tuple[bool, Finding | None]]) -> list[str]:
    """One row a scene, one column a reader, with its real verdict."""
    columns = (*READERS, "verify")
    lines = [f"| beside the image | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for title in SCENES:
        words = [_WORDS[results[title, reader][0]] for reader in columns]
        lines.append(f"| {title} | {' | '.join(words)} |")
    return lines


_PLACES = {"api": "API", "tag": "no API", "file": "file"}


BEGIN, END = "<!-- runs: begin -->\n", "<!-- runs: end -->\n"


def page_section(
    ours: dict[tuple[str, str, str, str], bool],
    theirs: dict[tuple[str, str, str, str], bool],
    scenes: dict[tuple[str, str], tuple[bool, Finding | None]],
) -> str:
    """The generated part of docs/reference/interop.md."""
    parts = [
        ("### What `sign` writes, read by others", type_table(ours)),
        ("### What cosign's `attest` writes, read by `verify`", type_table(theirs)),
        ("### One attestation in every state", scene_table(scenes)),
    ]
    return "\n".join("\n".join((title, "", *lines, "")) for title, lines in parts)


def with_section(page: str, section: str) -> str:
    """The page with its generated part replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{section}\n{END}{after}"
