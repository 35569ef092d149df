"""Whatever we accept, cosign accepts: thousands of changed envelopes and bundles, both judges.

What may differ is written, with its reason, in docs/reference/interop.md, and nowhere else.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes.cosign import AttJudge, Cosign
from fakes.evidence import evidence
from fakes.mutations import MUTATIONS, Case, FixedSigner, Origin, cases
from fakes.registry import build_referrers_registry, referrers_registry
from fakes.thorough import times
from secure_pipeline.attestations import bundle, dsse
from secure_pipeline.attestations.statement import parse_statement
from secure_pipeline.errors import PipelineError, VerificationFailed
from secure_pipeline.interop.traps import TRAPS, UNCERTAIN, bundle_traps, envelope_traps
from secure_pipeline.keys.verify import PublicKey
from secure_pipeline.oci.digest import Digest
from secure_pipeline.policy.document import Algorithm

pytestmark = [pytest.mark.integration, pytest.mark.thorough]

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/interop.md"
HEADING = "## Accepted here, rejected by cosign"
SEED = int(os.environ.get("DIFFERENTIAL_SEED", "20260301"))
COUNT = times(1500, 600)
"""Of each form."""
IMAGE = Digest.of(b"the image")
SIGNER = FixedSigner(1001)
ORIGIN = Origin(
    SIGNER, FixedSigner(2002), IMAGE, {k: dict(e.predicate) for k, e in evidence().items()}
)
PUBLIC = PublicKey("release", Algorithm.ECDSA_P256_SHA256, SIGNER.public_key_der)


def why_not(case: Case) -> str:
    """Our reason to refuse, or nothing: as verify judges one attachment."""
    parse = bundle.parse_bundle if case.form == "bundle" else dsse.parse_envelope
    try:
        envelope = parse(case.data)
        if not PUBLIC.signed(envelope):
            raise VerificationFailed("no signature of the key")
        statement = parse_statement(envelope.payload)
        statement.require_subject(IMAGE)
        statement.require_type(case.kind)
    except PipelineError as error:
        return error.message
    return ""


def differences(case: Case) -> tuple[str, ...]:
    """What we know cosign to refuse in a document that we accept."""
    if case.form == "bundle":
        return bundle_traps(case.data, SIGNER.public_key_der)
    return envelope_traps(case.data)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "release.pub"
    path.write_bytes(PUBLIC.pem)
    return path


@pytest.fixture(scope="module")
def cosign(tmp_path_factory: pytest.TempPathFactory) -> Cosign:
    return Cosign.located("cosign", tmp_path_factory.mktemp("cosign") / "home")


def judged_bundles(cosign: Cosign, key: Path, directory: Path) -> Iterator[tuple[Case, bool]]:
    """Each bundle with cosign's verdict, from a process of its own."""

    def judge(case: Case) -> tuple[Case, bool]:
        path = directory / f"{case.number}.json"
        path.write_bytes(case.data)
        return case, cosign.accepts_bundle(key, path, case.kind, IMAGE)

    with ThreadPoolExecutor(2) as workers:
        yield from workers.map(judge, cases(ORIGIN, "bundle", COUNT, SEED))


def judged_envelopes(cosign: Cosign, key: Path, directory: Path) -> Iterator[tuple[Case, bool]]:
    """Each envelope with cosign's verdict, as a layer of an ``.att`` manifest."""
    made = list(cases(ORIGIN, "envelope", COUNT, SEED))
    with referrers_registry(build_referrers_registry(directory)) as host:
        judge = AttJudge(cosign, key, host, IMAGE)
        for kind in ORIGIN.predicates:
            group = [case for case in made if case.kind == kind]
            accepted = judge.accepted(kind, [case.data for case in group])
            yield from ((case, at in accepted) for at, case in enumerate(group))


@pytest.mark.parametrize("judged", [judged_bundles, judged_envelopes])
def test_we_accept_nothing_that_cosign_rejects(
    judged: Callable[[Cosign, Path, Path], Iterator[tuple[Case, bool]]],
    cosign: Cosign,
    key: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Of 600 documents each way (thorough: 1,500) none passes only here, but for a written list."""
    counts: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    found: set[str] = set()
    wrong = []
    for case, theirs in judged(cosign, key, tmp_path):
        ours = not why_not(case)
        counts[f"ours {ours}, cosign {theirs}"] += 1
        steps.update(case.steps)
        assert theirs or not ours or case.steps, f"{case} is not changed at all (seed {SEED})"
        excuses = set(differences(case)) if ours else set()
        if not theirs:
            found |= excuses
        expected = {not excuses} if excuses - UNCERTAIN or not excuses else {True, False}
        if ours and theirs not in expected:
            wrong.append(f"{case}, cosign {theirs}, expected {excuses}\n{case.data[:2000]!r}")
    record_property("counts", f"seed {SEED}: {dict(counts)}")
    assert not wrong, f"seed {SEED}\n\n" + "\n\n".join(wrong)
    # the figures mean something: both verdicts are common, every change and excuse occurred
    assert counts["ours True, cosign True"] > COUNT // 5
    assert counts["ours False, cosign False"] > COUNT // 5
    assert set(MUTATIONS) == set(steps)
    form = "bundle" if judged is judged_bundles else "envelope"
    assert found == {name for name in TRAPS if form == "bundle" or not name.startswith("bundle")}


def test_the_excuses_are_the_written_ones() -> None:
    """Each difference that the tests forgive is in the page with a reason, and no other is."""
    section = PAGE.read_text().partition(f"{HEADING}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \| (.+) \|$", section, re.MULTILINE)
    assert {name for name, _, _ in rows} == set(TRAPS)
    assert all(len(reason.split()) > 5 for _, _, reason in rows)
