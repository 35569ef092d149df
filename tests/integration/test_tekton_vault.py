"""The Pipeline on a real Tekton with its key in a real Vault, where the pod of ``sign`` logs in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.pipelines import NAMESPACE, REGISTRY, PipelinePlace
from cluster.tekton import Ended
from cluster.vault import PodVault, Watch, pod_vault
from fakes.cosign import Cosign
from fakes.workplace import Workplace
from secure_pipeline.attestations.predicates import COSIGN_VULN, PROVENANCE

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(1200),  # whichever is first makes cluster, images and a sound run
]
NAME = "vault"
PLAIN = {"SECURE_PIPELINE_PLAIN_HTTP": "1"}
ROLE = "pipeline"
SIGNING = "kubernetes-pipelines-secure-pipeline-sign"
"""What Vault calls a token of the account of ``sign``."""


@pytest.fixture(scope="module")
def place(pipelines: PipelinePlace) -> Iterator[PipelinePlace]:
    """Each test of this module talks in the cluster's network."""
    with pipelines.tekton.cluster.network():
        yield pipelines


@pytest.fixture(scope="module")
def vault(place: PipelinePlace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodVault]:
    """A Vault that trusts the cluster."""
    with pod_vault(place, tmp_path_factory.mktemp("vault")) as made:
        yield made


@dataclass(frozen=True)
class Run:
    """A run that has ended."""

    workplace: Workplace
    ended: Ended
    vault: Watch

    @property
    def image(self) -> str:
        return f"{REGISTRY}/{NAME}@{self.ended.results['IMAGE_DIGEST']}"


@pytest.fixture(scope="module")
def run(place: PipelinePlace, vault: PodVault) -> Run:
    """The whole Pipeline, to which no Secret is bound: the key is in Vault alone."""
    workplace = place.source(NAME)
    with vault.watched() as watch:
        started = place.start(NAME, vault.use, **vault.parameters(ROLE, "release"))
        ended = place.finish(started)
    assert ended.passed, f"{ended.message}\n{place.logs(ended)}"
    return Run(workplace, ended, watch)


def test_the_image_verifies_by_vaults_public_key(
    place: PipelinePlace, vault: PodVault, run: Run, tmp_path: Path
) -> None:
    """Our own command and cosign verify it by the transit key's public half, and by no other."""
    for policy, code in ((vault.policy, 0), (place.shared / "policy/tekton.yaml", 11)):
        ended = run.workplace.run("verify", run.image, SECURE_PIPELINE_POLICY=str(policy), **PLAIN)
        assert ended.code == code, ended.text
    public = tmp_path / "vault.pub"
    public.write_text(vault.public("release"))
    cosign = Cosign.located("cosign", tmp_path / "home")
    for key, good in ((public, True), (place.shared / "release.pub", False)):
        for kind in (COSIGN_VULN, PROVENANCE):
            said = cosign.verify_attestation(key, kind, run.image, "--allow-http-registry")
            assert (said.returncode == 0) is good, said.stderr


def test_the_token_is_revoked_by_the_pod(run: Run) -> None:
    """The pod of ``sign`` alone logs in, signs, and ends its token: no accessor is left."""
    assert {who for _, who in run.vault.asked} == {SIGNING}
    paths = [path for path, _ in run.vault.asked]
    assert paths[0] == "auth/kubernetes/login"
    assert paths[-1] == "auth/token/revoke-self"
    assert "transit/sign/release" in paths
    assert not run.vault.accessors


def test_the_ledger_of_the_run_has_the_use(place: PipelinePlace, vault: PodVault, run: Run) -> None:
    """Login, signatures and push; the signatures in the name that Vault has verified."""
    path = place.directory / NAME / "state/ledger.jsonl"
    checked = run.workplace.run("audit", "verify", "--ledger", str(path))
    assert checked.code == 0, checked.text
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    ended = [line for line in lines if line["kind"] == "conclusion"]
    assert {line["outcome"] for line in ended} == {"done"}
    assert {line["action"] for line in ended} == {"login", "sign", "push"}
    (who,) = {
        (line["actor"]["kind"], line["actor"]["id"], line["actor"]["verified"])
        for line in ended
        if line["subject"] == "vault-transit://transit/release"
    }
    assert who[::2] == ("vault", True)
    (alias,) = vault.vault.api("GET", f"identity/entity/id/{who[1]}")["data"]["aliases"]
    assert alias["metadata"]["service_account_name"] == "secure-pipeline-sign"


@pytest.mark.parametrize(
    ("account", "key", "asked"),
    [
        # A genuine token of the account that the tests run with: no token of Vault for it.
        ("secure-pipeline", "release", ["auth/kubernetes/login"]),
        # The right account with the key of promotions: its role is for releases.
        ("secure-pipeline-sign", "promotion", ["auth/kubernetes/login", "transit/keys/promotion",
                                               "auth/token/revoke-self"]),
    ],
)  # fmt: skip
def test_another_account_or_key_is_refused(
    place: PipelinePlace, vault: PodVault, run: Run, account: str, key: str, asked: list[str]
) -> None:
    """Vault refuses it (exit 12): nothing is signed, and no token is left."""

    def change(spec: dict[str, Any]) -> None:
        spec["serviceAccountName"] = account
        for parameter in spec["params"]:
            if parameter["name"] == "key":
                parameter["value"] = f"vault-transit://transit/{key}"

    with vault.watched() as watch:
        status = place.tekton.again(NAMESPACE, run.ended.tasks["sign"], f"sign-{key}", change)
    said = place.tekton.log(NAMESPACE, status, "sign")
    assert status["steps"][0]["terminated"]["exitCode"] == 12, said
    assert [path for path, _ in watch.asked] == asked, said
    assert not watch.accessors
