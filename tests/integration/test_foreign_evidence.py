"""What cosign 2 and 3 sign is read by us, and what we say of keyless evidence cosign says too."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fakes.cosign import PASSWORD, Cosign
from fakes.foreign import (
    SIGN,
    SLSA_V02,
    SLSA_V1,
    TEAM,
    Foreign,
    open_policy,
    provenance,
    requiring,
    simple_signing,
)
from fakes.registry import build_referrers_registry, push_layout, referrers_registry
from fakes.virtualsigstore import IDENTITY, ISSUER, Faults, VirtualSigstore
from fakes.workplace import Ended, Workplace, environment
from secure_pipeline.adapters.sigstore import SigstoreVerifier
from secure_pipeline.attestations.bundle import parse_bundle
from secure_pipeline.data import data_path
from secure_pipeline.errors import VerificationFailed
from secure_pipeline.events import ignore
from secure_pipeline.keys.local import LocalSigner, generate, load
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.policy.document import load as load_policy
from secure_pipeline.tools.golang import find_go
from secure_pipeline.wiring import tool_installer

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC).replace(microsecond=0)
BUNDLE, OLD = "--new-bundle-format=true", "--new-bundle-format=false"
NO_LOG = ("--use-signing-config=false", "--tlog-upload=false", "--yes")


@dataclass(frozen=True)
class Bench:
    """A registry, both cosigns, a key, and a Sigstore with a stranger's beside it."""

    directory: Path
    host: str
    cosigns: dict[str, Cosign]
    key: Path
    ours: VirtualSigstore
    stranger: VirtualSigstore

    @property
    def root(self) -> Path:
        """Our Sigstore's trusted_root.json."""
        return self.directory / "root.json"

    @property
    def signer(self) -> LocalSigner:
        return load(self.key.with_suffix(".key"), PASSWORD)

    @property
    def who(self) -> tuple[str, ...]:
        """Whom cosign shall accept."""
        identity = ("--certificate-identity", IDENTITY, "--certificate-oidc-issuer", ISSUER)
        return ("--trusted-root", str(self.root), *identity)

    def push(self, image: Foreign, repository: str) -> str:
        push_layout(image.layout, self.host, repository)
        return f"{self.host}/{repository}@{image.image.digest}"

    def verify(self, image: str, policy: LoadedPolicy, *more: str) -> Ended:
        """Verify as people do."""
        place = Workplace(self.directory, environment(self.directory))
        return place.run("verify", image, "--policy", str(policy.source), *more)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    directory = tmp_path_factory.mktemp("foreign")
    generate(directory / "release.key", PASSWORD)
    ours = VirtualSigstore(NOW)
    (directory / "root.json").write_bytes(ours.trusted_root())
    cosigns = {name: Cosign.located(name, directory / name) for name in ("cosign", "cosign2")}
    with referrers_registry(build_referrers_registry(directory)) as host:
        key = directory / "release.pub"
        yield Bench(directory, host, cosigns, key, ours, VirtualSigstore(NOW))


def trusting(bench: Bench, directory: Path, *kinds: str) -> LoadedPolicy:
    """A policy that trusts the bench's key and identity and requires these types."""
    identities = f"[{{id: ci, issuer: '{ISSUER}', identity: '{IDENTITY}'}}]"
    builders = f"['{TEAM}']" if {SLSA_V1, SLSA_V02} & {*kinds} else "[]"
    root = bench.root.read_bytes()
    made = requiring(directory, *kinds, identities=identities, root=root, builders=builders)
    shutil.copy(bench.key, directory / "release.pub")
    return load_policy(made.source)


# --- with keys -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [BUNDLE, OLD])
@pytest.mark.parametrize("name", ["cosign", "cosign2"])
def test_what_cosign_signs_with_a_key_verifies(
    bench: Bench, tmp_path: Path, name: str, form: str
) -> None:
    """Cosign sign and cosign attest of versions 2 and 3, in both forms, meet a policy of ours."""
    image = Foreign(tmp_path / "image")
    reference = bench.push(image, f"{name}-{'new' if form == BUNDLE else 'old'}")
    predicate = tmp_path / "provenance.json"
    predicate.write_text(f'{{"builder":{{"id":"{TEAM}"}},"buildType":"https://ci.invalid/x"}}')
    key = ("--key", bench.key.with_suffix(".key"))
    cosign = bench.cosigns[name]
    for arguments in (
        ("attest", *key, *NO_LOG, form, "--predicate", predicate, "--type", SLSA_V02, reference),
        ("sign", *key, *NO_LOG, form, reference),
    ):
        ended = cosign.run(*arguments)
        assert ended.returncode == 0, ended.stderr.decode()
    good = bench.verify(reference, trusting(bench, tmp_path / "p", SLSA_V02, SIGN))
    assert good.code == 0, good.text
    assert f"{SIGN} is there" in good.out
    stranger = bench.verify(reference, requiring(tmp_path / "q", SLSA_V02, SIGN))
    assert stranger.code == 11, stranger.text
    assert "no statement is signed by a trusted key" in stranger.out


# --- without keys ----------------------------------------------------------------------------

CASES: dict[str, Callable[[Bench], Faults]] = {
    "good": lambda bench: Faults(),
    "good and stamped": lambda bench: Faults(stamped=True),
    "sig-16 entry of another artifact": lambda b: Faults(entry_of=b"x", entry_signature=True),
    "sig-16 entry of another key": lambda bench: Faults(entry_key=True),
    "sig-16 entry of another signature": lambda bench: Faults(entry_signature=True),
    "sig-17 promise of another log": lambda bench: Faults(promise_key=True),
    "sig-18 expired": lambda bench: Faults(signed_after=timedelta(hours=1)),
    "sig-18 too early": lambda bench: Faults(signed_after=-timedelta(minutes=5)),
    "another signature": lambda bench: Faults(signature=True),
    "no certificate transparency": lambda bench: Faults(sct=False),
    "certificate transparency of another log": lambda bench: Faults(sct_key=True),
}
OF_BUNDLES: dict[str, Callable[[Bench], Faults]] = {
    "sig-17 no proof": lambda bench: Faults(proof=False),
    "sig-17 wrong root hash": lambda bench: Faults(hash=True),
    "sig-17 malformed checkpoint": lambda bench: Faults(checkpoint="x"),
    "sig-17 checkpoint of another log": lambda bench: Faults(checkpoint_key=True),
    "sig-20 stamp of another authority": lambda b: Faults(promise=False, stamp=b.stranger),
    "sig-20 stamp of something else": lambda bench: Faults(promise=False, stamp_of=b"x"),
}
STRICTER: dict[str, Callable[[Bench], Faults]] = {
    "payload hash of the entry": lambda bench: Faults(entry_of=b"x"),
    "bad stamp beside a good promise": lambda b: Faults(stamped=True, stamp=b.stranger),
}
"""What cosign lets pass and we do not; of the first the signature in the entry is right."""


def attested(bench: Bench, image: Foreign, faults: Faults) -> None:
    image.put_att(bench.ours.attested(image.statement(), faults=faults))


def signed(bench: Bench, image: Foreign, faults: Faults) -> None:
    payload = simple_signing(image.image.digest)
    image.put_sig((payload, bench.ours.signed_message(payload, faults=faults)))


def bundled(bench: Bench, image: Foreign, faults: Faults) -> None:
    image.put_bundle(bench.ours.bundle(image.statement(), faults=faults))


FORMS = {
    "bundle": (bundled, SLSA_V1, ("verify-attestation", BUNDLE, "--type", SLSA_V1)),
    "att": (attested, SLSA_V1, ("verify-attestation", OLD, "--type", SLSA_V1)),
    "sig": (signed, SIGN, ("verify", OLD)),
}


def judged(bench: Bench, directory: Path, form: str, faults: Faults) -> tuple[int, dict[str, bool]]:
    """Our exit code, and whether each cosign accepts."""
    put, kind, command = FORMS[form]
    image = Foreign(directory / "image")
    put(bench, image, faults)
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:16]
    reference = bench.push(image, f"{form}-{name}")
    ended = bench.verify(reference, trusting(bench, directory / "p", kind))
    # cosign 2 takes a trust root for bundles only
    judges = bench.cosigns if form == "bundle" else {"cosign": bench.cosigns["cosign"]}
    said = {
        name: cosign.run(*command, *bench.who, reference).returncode == 0
        for name, cosign in judges.items()
    }
    return ended.code, said


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", FORMS)
def test_keyless_evidence_is_judged_as_cosign_judges_it(
    bench: Bench, tmp_path: Path, form: str, case: str
) -> None:
    """For each form and each fault: we accept exactly what cosign accepts."""
    code, said = judged(bench, tmp_path, form, CASES[case](bench))
    accepted = case.startswith("good")
    assert set(said.values()) == {accepted}
    assert code == (0 if accepted else 11)


@pytest.mark.parametrize("case", OF_BUNDLES)
def test_faults_of_proof_and_stamp_are_judged_as_cosign_judges_them(
    bench: Bench, tmp_path: Path, case: str
) -> None:
    """What only bundles have: proof, checkpoint, a time-stamp as the only time."""
    code, said = judged(bench, tmp_path, "bundle", OF_BUNDLES[case](bench))
    assert said == {"cosign": False, "cosign2": False}
    assert code == 11


def test_a_stamp_as_the_only_time_is_enough(bench: Bench, tmp_path: Path) -> None:
    """Cosign 3 and we accept it; cosign 2 wants the log's promise."""
    code, said = judged(bench, tmp_path, "bundle", Faults(promise=False))
    assert said == {"cosign": True, "cosign2": False}
    assert code == 0


@pytest.mark.parametrize("case", STRICTER)
def test_where_we_are_stricter_than_cosign(bench: Bench, tmp_path: Path, case: str) -> None:
    """A written list, so that a change on either side is noticed."""
    code, said = judged(bench, tmp_path, "bundle", STRICTER[case](bench))
    assert said == {"cosign": True, "cosign2": True}
    assert code == 11


def test_another_identity_or_issuer_is_accepted_by_nobody(bench: Bench, tmp_path: Path) -> None:
    """Good bundles of others: cosign finds none that matches, we count them as unknown."""
    for number, (identity, issuer) in enumerate(
        [(IDENTITY + "x", ISSUER), (IDENTITY, ISSUER + ".evil.invalid")]
    ):
        image = Foreign(tmp_path / f"image-{number}")
        image.put_bundle(bench.ours.bundle(image.statement(), identity, issuer))
        reference = bench.push(image, f"others-{number}")
        ended = bench.verify(reference, trusting(bench, tmp_path / f"p{number}", SLSA_V1))
        assert ended.code == 11
        assert "1 attachments by unknown keys" in ended.out
        command = FORMS["bundle"][2]
        for cosign in bench.cosigns.values():
            assert cosign.run(*command, *bench.who, reference).returncode != 0


def test_the_operators_identity_on_the_command_line(bench: Bench, tmp_path: Path) -> None:
    """--certificate-identity, --certificate-oidc-issuer and --trust-root stand for a policy's."""
    image = Foreign(tmp_path / "image")
    image.put_bundle(bench.ours.bundle(image.statement(SLSA_V1, provenance())))
    reference = bench.push(image, "operator")
    policy = open_policy(tmp_path / "p")
    identity = ("--certificate-identity", IDENTITY)
    issuer = ("--certificate-oidc-issuer", ISSUER)
    root = ("--trust-root", str(bench.root))
    good = bench.verify(reference, policy, *identity, *issuer, *root)
    assert good.code == 0, good.text
    assert "trusted identities: operator" in good.out
    assert bench.verify(reference, policy, *identity, *issuer).code == 11
    assert bench.verify(reference, policy, *identity, *root).code == 2
    empty = bench.verify(reference, policy, "--certificate-identity", "", *issuer, *root)
    assert empty.code == 2
    wild = bench.verify(reference, policy, "--certificate-identity", ".*", *issuer, *root)
    assert wild.code == 3
    (tmp_path / "bad.json").write_text("{}")
    broken = bench.verify(
        reference, policy, *identity, *issuer, "--trust-root", str(tmp_path / "bad.json")
    )
    assert broken.code == 3
    assert "not a Sigstore trust root" in broken.text


def test_a_real_attestation_verifies_under_the_public_root() -> None:
    """A bundle of a person that cosign's own tests carry is proven by the built-in root."""
    installer = tool_installer(ignore)
    go = find_go(installer.pins, installer.steps)
    found = subprocess.run(
        [go, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "github.com/sigstore/cosign/v3"],
        cwd=data_path("tools") / "go" / "cosign",
        env={**os.environ, "GOTOOLCHAIN": installer.pins.go_toolchain},
        capture_output=True,
        text=True,
        check=True,
    )
    data = Path(found.stdout.strip(), "pkg/cosign/testdata/oci-attestation.sigstore.json")
    bundle = data.read_bytes()
    envelope = parse_bundle(bundle)
    public = SigstoreVerifier(None, "", NOW)
    certified = public.verify(bundle, envelope.payload)
    assert certified.issuer == "https://github.com/login/oauth"
    assert "@" in certified.identity
    assert certified.signed_at.year == 2025
    own = SigstoreVerifier(VirtualSigstore(NOW).trusted_root(), "", NOW)
    with pytest.raises(VerificationFailed):
        own.verify(bundle, envelope.payload)
