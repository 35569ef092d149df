"""Signing without a key: a private Sigstore of real parts, our verify and cosign as judges."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.cosign import Cosign
from fakes.faultproxy import answer, fault_proxy
from fakes.keylessplace import KeylessPlace, keyless_place
from fakes.privatesigstore import IDENTITY, POD, PrivateSigstore, private_sigstore
from fakes.prometheus import free_port
from fakes.registry import build_referrers_registry, referrers_registry
from fakes.workplace import Ended, Workplace
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.attestations import predicates
from secure_pipeline.attestations.bundle import MEDIA_TYPE, read_entry
from secure_pipeline.attestations.publishing import Published
from secure_pipeline.attestations.statement import parse_statement
from secure_pipeline.errors import ExitCode
from secure_pipeline.files import sha256_bytes
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import MANIFEST_TYPE
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.policy.document import load
from secure_pipeline.stages.quarantine import signed_statements
from secure_pipeline.stages.result import Evidence
from secure_pipeline.stages.sign import NEEDED
from secure_pipeline.tools.locate import ToolStore
from secure_pipeline.tools.process import Processes
from secure_pipeline.wiring.options import Options, RegistryOptions, World
from secure_pipeline.wiring.signing import opened_signer, publish_statements
from secure_pipeline.wiring.stores import Stores

_LIMIT = 64 << 20
pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("keyless")]


@pytest.fixture(scope="module")
def sigstore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateSigstore]:
    """The instance that everything here trusts."""
    with private_sigstore(tmp_path_factory.mktemp("sigstore")) as made:
        yield made


@pytest.fixture(scope="module")
def ready(
    tmp_path_factory: pytest.TempPathFactory, released: Workplace, sigstore: PrivateSigstore
) -> KeylessPlace:
    """A place whose sign stage is still to come; tests never change it."""
    place = keyless_place(released, sigstore, tmp_path_factory.mktemp("ready"))
    for stage in NEEDED:
        ended = place.run(stage)
        assert ended.code == 0, ended.text
    return place


@pytest.fixture(scope="module")
def signed(
    tmp_path_factory: pytest.TempPathFactory, ready: KeylessPlace
) -> tuple[KeylessPlace, Ended]:
    """A run that an identity signed; tests never change it."""
    place = ready.copied(tmp_path_factory.mktemp("signed"))
    ended = place.run("run", "--json")
    assert ended.code == 0, ended.text
    return place, ended


@pytest.fixture
def place(ready: KeylessPlace, tmp_path: Path) -> KeylessPlace:
    """A copy that a test may sign."""
    return ready.copied(tmp_path)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with the referrers API."""
    program = build_referrers_registry(tmp_path_factory.mktemp("registry"))
    with referrers_registry(program) as host:
        yield host


def figures(ended: Ended) -> dict[str, Any]:
    """What the sign stage says."""
    (stage,) = [item for item in ended.document["stages"] if item["stage"] == "sign"]
    return dict(stage["figures"])


def test_a_run_signed_by_an_identity_verifies(signed: tuple[KeylessPlace, Ended]) -> None:
    """`run` signs, logs and verifies; the result names identity, certificate and log entries."""
    place, ended = signed
    said = figures(ended)
    assert (said["identity"], said["issuer"]) == (IDENTITY, place.sigstore.issuer.url)
    assert "key" not in said
    entries = [read_entry(item.bundle or b"") for item in place.evidence()]
    assert said["certificate"] == f"sha256:{sha256_bytes(entries[0].certificate)}"
    own = {str(entry.index) for entry in entries}
    assert set(said["logIndex"].split(",")) < own  # besides the head of the ledger
    kinds = {parse_statement(item.envelope.payload).predicate_type for item in place.evidence()}
    assert {predicates.SEAL, predicates.LEDGER_HEAD, predicates.PROVENANCE} < kinds
    assert {item.source for item in place.evidence()} == {"bundle"}
    assert place.run("verify").code == 0


def test_the_ledger_names_the_certificate_instead_of_a_key(
    signed: tuple[KeylessPlace, Ended],
) -> None:
    """The conclusion of a signing has identity, certificate and log entries, and no key id."""
    place, ended = signed
    lines = (place.workplace.state / "ledger.jsonl").read_text().splitlines()
    details = next(
        item["details"]
        for item in map(json.loads, lines)
        if item["subject"].endswith(str(place.image)) and "certificate" in item["details"]
    )
    names = ("identity", "issuer", "certificate", "logIndex")
    assert {name: details[name] for name in names} == {name: figures(ended)[name] for name in names}
    assert "keyId" not in details


def test_the_ledger_is_anchored_in_the_evidence_of_an_identity(
    signed: tuple[KeylessPlace, Ended], tmp_path: Path
) -> None:
    """`audit verify` takes the head that the identity signed, and sees what was cut off."""
    place = signed[0].copied(tmp_path)
    anchor = ("audit", "verify", "--anchor", f"layout:{place.layout.path}@{place.image}")
    ended = place.run(*anchor)
    assert ended.code == 0, ended.text
    ledger = place.workplace.state / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:4]))
    assert place.run(*anchor).code == ExitCode.VERIFICATION
    strange = place.policy("strange.yaml", place.trusting(identity=f"{IDENTITY}-fork"))
    ended = place.run(*anchor, SECURE_PIPELINE_POLICY=strange)
    assert ended.code == ExitCode.INCONCLUSIVE, ended.text


def test_the_identity_token_is_nowhere(signed: tuple[KeylessPlace, Ended]) -> None:
    """No output, report, ledger or evidence holds the token, nor its signature alone."""
    place, ended = signed
    files = [path for path in place.workplace.state.rglob("*") if path.is_file()]
    assert files
    for token in place.tokens:
        for part in (token, token.rpartition(".")[2]):
            assert part not in ended.text
            assert not [path for path in files if part.encode() in path.read_bytes()]


def test_only_the_named_identity_of_the_named_instance_counts(
    signed: tuple[KeylessPlace, Ended], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Another identity, another issuer, or another instance's trust root: refused."""
    place, _ = signed
    with private_sigstore(tmp_path_factory.mktemp("stranger")) as stranger:
        (place.directory / "strange.json").write_text(json.dumps(stranger.trusted_root()))
    policies = {
        "identity.yaml": place.trusting(identity=f"{IDENTITY}-fork"),
        "issuer.yaml": place.trusting(issuer="https://token.actions.githubusercontent.com"),
        "instance.yaml": place.trusting(root="strange.json"),
    }
    for name, text in policies.items():
        ended = place.run("verify", SECURE_PIPELINE_POLICY=place.policy(name, text))
        assert ended.code == ExitCode.VERIFICATION, f"{name}: {ended.text}"


def push(place: KeylessPlace, registry: str, name: str) -> str:
    """Copy the image with its evidence into the registry."""
    source = f"layout:{place.layout.path}@{place.image}"
    ended = place.run("copy", source, f"{registry}/{name}:v1")
    assert ended.code == 0, ended.text
    return f"{registry}/{name}@{place.image}"


def judge(place: KeylessPlace, home: Path, image: str, kind: str, identity: str) -> bool:
    """Whether cosign accepts the attestation of an identity under the instance's root."""
    ended = Cosign.located("cosign", home).run(
        *("verify-attestation", "--trusted-root", place.directory / "root.json"),
        *("--certificate-identity", identity, "--use-signed-timestamps"),
        *("--certificate-oidc-issuer", place.sigstore.issuer.url),
        *("--type", kind, "--new-bundle-format=true", image),
    )
    return ended.returncode == 0


def test_cosign_accepts_what_an_identity_signed(
    signed: tuple[KeylessPlace, Ended], registry: str, tmp_path: Path
) -> None:
    """By certificate, log entry and time-stamp cosign 3 accepts each statement, no other's."""
    place, _ = signed
    image = push(place, registry, "accepted")
    assert place.run("verify", image).code == 0
    for item in place.evidence():
        kind = parse_statement(item.envelope.payload).predicate_type
        assert judge(place, tmp_path / "cosign", image, kind, IDENTITY), kind
    assert not judge(place, tmp_path / "cosign", image, predicates.SEAL, f"{IDENTITY}-fork")


def test_cosign_and_we_accept_a_file_that_an_identity_signed(
    signed: tuple[KeylessPlace, Ended], tmp_path: Path
) -> None:
    """Its bundle has certificate, log entry and time-stamp; an altered file is refused by both."""
    place, _ = signed
    (file,) = (place.workplace.state / "files").glob("*.py")
    bundle = Path(f"{file}.sigstore.json")
    cosign = Cosign.located("cosign", tmp_path / "cosign")
    words = (
        *("verify-blob-attestation", "--trusted-root", place.directory / "root.json"),
        *("--certificate-identity", IDENTITY, "--use-signed-timestamps"),
        *("--certificate-oidc-issuer", place.sigstore.issuer.url),
        *("--type", "slsaprovenance1", "--bundle", bundle),
    )
    altered = tmp_path / file.name
    altered.write_bytes(file.read_bytes() + b"#")
    for path, refused_by_both in ((file, False), (altered, True)):
        judged = place.run("verify", "file", str(path), "--bundle", str(bundle))
        assert judged.code == (11 if refused_by_both else 0), judged.text
        assert bool(cosign.run(*words, path).returncode) == refused_by_both


def test_another_proof_of_inclusion_is_refused(
    signed: tuple[KeylessPlace, Ended], tmp_path: Path, registry: str
) -> None:
    """A bundle whose log proof was altered counts neither for verify nor for cosign."""
    place = signed[0].copied(tmp_path)
    alter_proofs(place.layout)
    ended = place.run("verify")
    assert ended.code == ExitCode.VERIFICATION, ended.text
    assert "does not prove it" in ended.text
    image = push(place, registry, "altered")
    assert not judge(place, tmp_path / "cosign", image, predicates.SEAL, IDENTITY)


def test_signing_again_logs_nothing_new(signed: tuple[KeylessPlace, Ended], tmp_path: Path) -> None:
    """What the identity has signed already is used: one more log entry, the ledger's head."""
    place = signed[0].copied(tmp_path)
    before = size(place.sigstore)
    ended = place.run("sign", "--run", run_of(place), "--json")
    assert ended.code == 0, ended.text
    assert figures(ended) == figures(signed[1])
    assert size(place.sigstore) == before + 1


def test_a_verdict_of_an_identity_is_published_like_a_keys(
    signed: tuple[KeylessPlace, Ended], registry: str
) -> None:
    """What is signed later goes to the image in the registry, once, and is of the identity."""
    place, _ = signed
    image = ImageReference.parse(push(place, registry, "promoted"))
    stores = Stores(place.variables(), RegistryOptions(), Processes(threading.Event()))
    world = World(place.variables(), "/usr/bin", ToolStore(place.directory), place.directory)
    policy = load(place.directory / "policy.yaml")
    (place.directory / "token").write_text(place.sigstore.token())
    ref = KeyRef.parse(place.variables()["SECURE_PIPELINE_KEY"])
    with opened_signer("promote", ref, policy, Options(), world, print) as signer:
        evidence = Evidence("https://example.com/verdict/v1", {"verdict": "promoted"})
        envelopes = signed_statements(image, [evidence], None, signer)
        source = stores.source(image.name, None)
        for added in (1, 0):
            made = publish_statements(source, image, envelopes, signer, SystemClock())
            assert made == Published(added, 0)
    assert place.run("verify", str(image)).code == 0


@pytest.mark.parametrize("kind", ["caUrls", "rekorTlogUrls", "tsaUrls"])
def test_a_dead_service_stops_before_anything_is_attached(place: KeylessPlace, kind: str) -> None:
    """Fulcio, Rekor or the time-stamp authority gone: exit code 4, the image as it was."""
    config = place.sigstore.trust_config()
    config["signingConfig"][kind][0]["url"] = f"http://127.0.0.1:{free_port()}"
    path = place.directory / "dead.json"
    path.write_text(json.dumps(config))
    refused(place, "no answer", SECURE_PIPELINE_KEY=f"keyless:{path}")


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": 1}, "expired"),
        ({"aud": "vault"}, "Audience"),
        ({"iss": "https://issuer.invalid"}, "refused: answer 400"),
        ({"job_workflow_ref": ""}, "refused: answer 400"),
    ],
    ids=["expired", "audience", "issuer", "no workflow"],
)
def test_a_token_that_is_not_good_gets_no_certificate(
    place: KeylessPlace, claims: dict[str, object], why: str
) -> None:
    """An expired token, one for others, of an unknown issuer or of no workflow: exit code 4."""
    refused(place, why, token=place.sigstore.token(**claims))


def test_a_certificate_that_the_policy_does_not_count_signs_nothing(place: KeylessPlace) -> None:
    """The identity is none of the policy's: denied with its name, and nothing is logged."""
    before = size(place.sigstore)
    other = "team/fork/.github/workflows/release.yml@refs/heads/main"
    refused(place, other, ExitCode.DENIED, token=place.sigstore.token(job_workflow_ref=other))
    assert size(place.sigstore) == before


def test_services_of_another_instance_than_the_policy_trusts_sign_nothing(
    place: KeylessPlace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A certificate of an instance outside the policy's trust root is not used."""
    with private_sigstore(tmp_path_factory.mktemp("stranger")) as stranger:
        path = place.directory / "stranger.json"
        path.write_text(json.dumps(stranger.trust_config()))
        key = f"keyless:{path}"
        refused(
            place, "SCT", ExitCode.VERIFICATION, SECURE_PIPELINE_KEY=key, token=stranger.token()
        )


def test_without_an_identity_nothing_begins(place: KeylessPlace) -> None:
    """No token file, no variable and no job: said at once, with what to set."""
    ended = place.run("sign", "--run", run_of(place), SECURE_PIPELINE_IDENTITY_TOKEN_FILE="")
    assert ended.code == ExitCode.USAGE
    assert "id-token: write" in ended.err


def test_a_repository_cannot_name_who_gets_the_token(place: KeylessPlace) -> None:
    """Services come from the operator; a configuration with a file of its own is refused."""
    path = place.root / "secure-pipeline.yaml"
    path.write_text(f"{path.read_text()}\nsign:\n  key: keyless:evil.json\n")
    ended = place.run("sign", SECURE_PIPELINE_KEY="")
    assert ended.code == ExitCode.CONFIG, ended.text
    assert "repository" in ended.err


def refused(
    place: KeylessPlace,
    why: str,
    code: ExitCode = ExitCode.UNAVAILABLE,
    *,
    token: str | None = None,
    **changes: str,
) -> None:
    """Sign, which ends with this code and reason, and changes nothing about the image."""
    index = place.layout.path / "index.json"
    before = index.read_bytes()
    ended = place.run("sign", "--run", run_of(place), token=token, **changes)
    assert ended.code == code, ended.text
    assert why in ended.err
    assert place.tokens[-1] not in ended.text
    assert index.read_bytes() == before


def alter_proofs(layout: Layout) -> None:
    """Give the checkpoint of each certificate's bundle another root hash."""
    index = json.loads((layout.path / "index.json").read_bytes())
    for entry in index["manifests"]:
        manifest = json.loads(layout.read_blob(Digest.parse(entry["digest"]), _LIMIT))
        if manifest.get("artifactType") != MEDIA_TYPE:
            continue
        layer = manifest["layers"][0]
        document = json.loads(layout.read_blob(Digest.parse(layer["digest"]), _LIMIT))
        for logged in document["verificationMaterial"].get("tlogEntries", []):
            checkpoint = logged["inclusionProof"]["checkpoint"]
            lines = checkpoint["envelope"].split("\n")
            lines[2] = base64.b64encode(bytes(32)).decode()
            checkpoint["envelope"] = "\n".join(lines)
        layer |= layout.write_blob(json.dumps(document).encode(), MEDIA_TYPE).to_json()
        entry |= layout.write_blob(json.dumps(manifest).encode(), MANIFEST_TYPE).to_json()
    (layout.path / "index.json").write_text(json.dumps(index))


def run_of(place: KeylessPlace) -> str:
    """Id of the newest run."""
    return max(path.name for path in (place.workplace.state / "runs").iterdir())


def size(sigstore: PrivateSigstore) -> int:
    """How many entries the log has, by its newest checkpoint."""
    path = sigstore.directory / "log/checkpoint"
    return int(path.read_text().splitlines()[1])


def test_a_job_of_github_signs_with_the_token_that_it_may_ask_for(place: KeylessPlace) -> None:
    """Without a file or variable the job's own token is asked for, for Sigstore and nobody else."""
    with fault_proxy() as github:
        token = place.sigstore.token()
        github.on("GET", "/token", answer(200, json.dumps({"value": token}).encode()))
        ended = place.run(
            *("sign", "--run", run_of(place), "--json"),
            SECURE_PIPELINE_IDENTITY_TOKEN_FILE="",
            ACTIONS_ID_TOKEN_REQUEST_URL=f"http://{github.host}/token?api-version=2.0",
            ACTIONS_ID_TOKEN_REQUEST_TOKEN="request-token",
        )
        assert ended.code == 0, ended.text
        assert figures(ended)["identity"] == IDENTITY
        assert token not in ended.text
        assert [seen.path for seen in github.seen] == ["/token?api-version=2.0&audience=sigstore"]


def test_a_pod_signs_with_its_service_account(place: KeylessPlace) -> None:
    """A projected token signs as the service account, if the policy names that one."""
    other = place.sigstore.pod_token("default")
    refused(place, "serviceaccounts/default", ExitCode.DENIED, token=other)
    token = place.sigstore.pod_token()
    ended = place.run("sign", "--run", run_of(place), "--json", token=token)
    assert ended.code == 0, ended.text
    assert figures(ended)["identity"] == POD
    assert place.run("verify").code == 0


def test_a_token_in_a_variable_signs(place: KeylessPlace) -> None:
    """The variable serves where there is no file; it is not passed on to what is started."""
    token = place.sigstore.token()
    ended = place.run(
        *("sign", "--run", run_of(place)),
        SECURE_PIPELINE_IDENTITY_TOKEN_FILE="",
        SECURE_PIPELINE_IDENTITY_TOKEN=token,
    )
    assert ended.code == 0, ended.text
    assert token not in ended.text


def test_an_anchor_takes_no_signature_without_a_key(place: KeylessPlace) -> None:
    """A file of heads is checked with keys: refused before anything begins."""
    ended = place.run("sign", "--run", run_of(place), "--ledger-anchor", "heads.jsonl")
    assert ended.code == ExitCode.USAGE
    assert "heads" in ended.err
