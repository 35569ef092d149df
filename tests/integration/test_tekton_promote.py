"""The Pipeline ``promote`` on a real Tekton: real pods behind Envoy, Prometheus, and requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.api import until
from cluster.gateway import GATEWAY_API
from cluster.objects import APPS, CORE, RBAC
from cluster.pipelines import IMAGE, REGISTRY, PipelinePlace
from cluster.pipelines import NAMESPACE as RUNS
from cluster.serving import NAMESPACE, Shop, Version, serving
from cluster.tekton import TEKTON, Ended
from cluster.triggers import make_listener
from cluster.vault import PodVault, pod_vault
from fakes.cosign import Cosign
from fakes.workplace import ROOT, Workplace, environment
from secure_pipeline.attestations.predicates import PROMOTION
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.manifest import CONFIG_TYPE, MANIFEST_TYPE

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(1200),  # whichever is first makes cluster, images and a sound run
]
PLAIN = {"SECURE_PIPELINE_PLAIN_HTTP": "1"}
_PATCH = "application/json-patch+json"
ACCOUNT = "secure-pipeline-promote"
HEALTHY, SLOW, HANDED, KILLED = "healthy", "slow", "handed", "killed"
"""Routes, each with a target of its name."""


@pytest.fixture(scope="module")
def place(pipelines: PipelinePlace) -> Iterator[PipelinePlace]:
    """Each test of this module talks in the cluster's network."""
    with pipelines.tekton.cluster.network():
        yield pipelines


@dataclass(frozen=True)
class Images:
    """In the registry, by digest."""

    signed: str
    unsigned: str
    """The same with another label."""


@pytest.fixture(scope="module")
def images(
    place: PipelinePlace, sound: tuple[Workplace, Ended], tmp_path_factory: pytest.TempPathFactory
) -> Images:
    workplace, ended = sound
    signed = f"{REGISTRY}/sound@{ended.results['IMAGE_DIGEST']}"
    path = tmp_path_factory.mktemp("images") / "image"
    copied = workplace.run("copy", signed, f"layout:{path}", **PLAIN)
    assert copied.code == 0, copied.text
    layout = Layout.open(path)
    listed = layout.find(Digest.parse(ended.results["IMAGE_DIGEST"]))
    manifest = json.loads(layout.read_blob(listed.digest, 1 << 20))
    config = layout.read_manifest(listed).config
    settings = json.loads(layout.read_blob(config.digest, 1 << 20))
    settings["config"]["Labels"] = {"version": "before"}
    written = layout.write_blob(json.dumps(settings).encode(), CONFIG_TYPE)
    manifest["config"] = written.to_json()
    other = layout.write_blob(json.dumps(manifest).encode(), MANIFEST_TYPE)
    layout.replace("before", other)
    pushed = workplace.run(
        "copy", f"layout:{path}@{other.digest}", f"{REGISTRY}/sound:before", **PLAIN
    )
    assert pushed.code == 0, pushed.text
    return Images(signed, f"{REGISTRY}/sound@{other.digest}")


@pytest.fixture(scope="module")
def vault(place: PipelinePlace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodVault]:
    """A Vault with the key of promotions; the policy trusts the image's own key too."""
    keys = {"image": (place.shared / "release.pub").read_text()}
    with pod_vault(place, tmp_path_factory.mktemp("vault"), keys) as made:
        yield made


@pytest.fixture(scope="module")
def shop(
    place: PipelinePlace, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """The old version with all requests, the new one, and the new one where it is slow."""
    versions = {
        "blue": Version(images.unsigned),
        "green": Version(images.signed),
        "snail": Version(images.signed, {"FAULT_LATENCY_MS": "400"}),
    }
    with serving(place, tmp_path_factory.mktemp("shop"), versions) as made:
        canaries = {HEALTHY: "green", SLOW: "snail", HANDED: "green", KILLED: "green"}
        for route, canary in canaries.items():
            made.make_route(route, "blue", canary)
        allow(place, *canaries)
        documents = [made.target(route, "blue", canary) for route, canary in canaries.items()]
        with made.targets(*documents):
            yield made


def allow(place: PipelinePlace, *routes: str) -> None:
    """Apply what ``policy export kubernetes`` gives for the pod that promotes."""
    command = ["policy", "export", "kubernetes", "--namespace", NAMESPACE, "--print"]
    command += ["--runs-namespace", RUNS, "--promoter", f"serviceaccount:{RUNS}:{ACCOUNT}"]
    for route in routes:
        command += ["--route", route]
    printed = Workplace(place.directory, environment(place.shared)).run(*command)
    assert printed.code == 0, printed.text
    for document in yaml.safe_load_all(printed.out):
        where = document["metadata"]["namespace"]
        path = f"{RBAC}/namespaces/{where}/{document['kind'].lower()}s"
        place.tekton.api.create(path, document)


def start(place: PipelinePlace, target: str, image: str, vault: PodVault | None = None) -> str:
    """Start a run of the Pipeline ``promote``, with the key of the file or with Vault's."""
    run: dict[str, Any] = yaml.safe_load((ROOT / "tekton/runs/promote.yaml").read_text())
    given = {
        **{item["name"]: item["value"] for item in run["spec"]["params"]},
        **(vault.parameters("promoter", "promotion") if vault else {}),
        **{"cli-image": IMAGE, "image": image, "target": target},
    }
    run["spec"]["params"] = [{"name": n, "value": v} for n, v in given.items()]
    if vault:
        vault.use(run["spec"])
    run["metadata"]["generateName"] = f"promote-{target}-"
    return str(place.apply(run)["metadata"]["name"])


def promote(place: PipelinePlace, vault: PodVault, target: str, image: str) -> Ended:
    """Run it to its end."""
    return place.finish(start(place, target, image, vault), 200)


def code(ended: Ended, task: str) -> int:
    """Exit code of the step of a task."""
    return int(ended.tasks[task]["steps"][0]["terminated"]["exitCode"])


@pytest.fixture(scope="module")
def promoted(place: PipelinePlace, vault: PodVault, shop: Shop, images: Images) -> Ended:
    """The healthy version, under requests."""
    with shop.requests(HEALTHY):
        return promote(place, vault, HEALTHY, images.signed)


@pytest.fixture(scope="module")
def aborted(
    place: PipelinePlace, vault: PodVault, shop: Shop, images: Images, promoted: Ended
) -> Ended:
    """The slow version of the same image, which is in quarantine after it."""
    with shop.requests(SLOW):
        return promote(place, vault, SLOW, images.signed)


@pytest.fixture(scope="module")
def handed(
    place: PipelinePlace, shop: Shop, images: Images, sound: tuple[Workplace, Ended]
) -> dict[str, Any]:
    """What ``hand-over`` says in the end: an event to the listener, and a pod that promotes."""
    listener = make_listener(place.tekton.cluster, RUNS)
    variables = {
        "SECURE_PIPELINE_HAND_OVER": listener.url,
        "SECURE_PIPELINE_HAND_OVER_SECRET": listener.secret.decode(),
        "SECURE_PIPELINE_HAND_OVER_CA": str(listener.ca),
        "SECURE_PIPELINE_HAND_OVER_WAIT": "200s",
        **PLAIN,
    }
    command = ["hand-over", images.signed, "--target", HANDED, "--json"]
    with steps_of_tests(place), shop.requests(HANDED):
        said = sound[0].run(*command, timeout=240, **variables)
    assert said.code == 0, said.text
    assert said.document["run"] in listener.runs()
    return said.document


@contextmanager
def steps_of_tests(place: PipelinePlace) -> Iterator[None]:
    """The image that an operator says with ``plan --image``: who hands over cannot choose one."""
    path = f"{TEKTON}/namespaces/{RUNS}/pipelines/promote"
    parameters = place.tekton.api.get(path)["spec"]["params"]
    (number,) = (n for n, item in enumerate(parameters) if item["name"] == "cli-image")

    def choose(image: str) -> None:
        operation = {"op": "replace", "path": f"/spec/params/{number}/default", "value": image}
        answer = place.tekton.api.call("PATCH", path, [operation], kind=_PATCH)
        assert answer.ok, answer.text

    choose(IMAGE)
    try:
        yield
    finally:
        choose(parameters[number]["default"])


def test_a_healthy_image_gets_all_traffic(
    place: PipelinePlace, shop: Shop, promoted: Ended
) -> None:
    """Step by step to 100 %, which is what the route says and what Envoy does."""
    assert promoted.passed, place.logs(promoted)
    assert shop.share(HEALTHY, "green") == 1.0
    with shop.requests(HEALTHY) as sent:
        sent.wait(20)
    assert "green" in sent.counts
    assert "blue" not in sent.counts


def test_its_verdict_is_signed_by_the_pods_identity(
    place: PipelinePlace,
    vault: PodVault,
    images: Images,
    sound: tuple[Workplace, Ended],
    promoted: Ended,
    tmp_path: Path,
) -> None:
    """The promotion's statement beside the image is signed by Vault's key for it: cosign agrees."""
    assert promoted.passed
    public = tmp_path / "promotion.pub"
    public.write_text(vault.public("promotion"))
    cosign = Cosign.located("cosign", tmp_path / "home")
    said = cosign.verify_attestation(public, PROMOTION, images.signed, "--allow-http-registry")
    assert said.returncode == 0, said.stderr
    verified = sound[0].run(
        "verify", images.signed, SECURE_PIPELINE_POLICY=str(vault.policy), **PLAIN
    )
    assert verified.code == 0, verified.text


def test_a_slow_image_is_aborted(place: PipelinePlace, shop: Shop, aborted: Ended) -> None:
    """400 ms a token: exit 13, the run fails, and the route says 0 % again."""
    assert not aborted.passed
    assert aborted.failed_tasks == {"promote"}
    assert code(aborted, "promote") == 13, place.logs(aborted)
    assert "latency" in place.logs(aborted)
    assert shop.share(SLOW, "snail") == 0.0
    with shop.requests(SLOW) as sent:
        sent.wait(20)
    assert set(sent.counts) == {"blue"}


def test_a_quarantined_image_moves_nothing(
    place: PipelinePlace, vault: PodVault, shop: Shop, images: Images, aborted: Ended
) -> None:
    """What was rolled back once does not verify any more, in a run that knows nothing of it."""
    before = shop.share(SLOW, "snail")
    ended = promote(place, vault, SLOW, images.signed)
    assert ended.failed_tasks == {"verify"}, place.logs(ended)
    assert "promote" not in ended.tasks
    assert shop.share(SLOW, "snail") == before


def test_an_image_without_evidence_moves_nothing(
    place: PipelinePlace, vault: PodVault, shop: Shop, images: Images
) -> None:
    """It does not verify: exit 11, ``promote`` does not start, and no weight was ever changed."""
    path = f"{GATEWAY_API}/namespaces/{NAMESPACE}/httproutes/{SLOW}"
    before = place.tekton.api.get(path)["metadata"]["generation"]
    ended = promote(place, vault, SLOW, images.unsigned)
    assert ended.failed_tasks == {"verify"}, place.logs(ended)
    assert code(ended, "verify") == 11
    assert "promote" not in ended.tasks
    assert place.tekton.api.get(path)["metadata"]["generation"] == before


DENIED = [
    ("GET", f"{GATEWAY_API}/namespaces/{NAMESPACE}/httproutes"),
    ("GET", f"{GATEWAY_API}/namespaces/{NAMESPACE}/httproutes/other"),
    ("PATCH", f"{GATEWAY_API}/namespaces/{NAMESPACE}/httproutes/other"),
    ("PATCH", f"{GATEWAY_API}/namespaces/gateway/gateways/main"),
    ("DELETE", f"{GATEWAY_API}/namespaces/{NAMESPACE}/httproutes/{HEALTHY}"),
    ("PATCH", f"{APPS}/namespaces/{NAMESPACE}/deployments/green"),
    ("PATCH", f"{CORE}/namespaces/{NAMESPACE}/services/green"),
    ("POST", f"{CORE}/namespaces/{NAMESPACE}/pods"),
    ("GET", f"{CORE}/namespaces/{NAMESPACE}/secrets"),
    ("GET", f"{CORE}/namespaces/{RUNS}/secrets"),
    ("GET", f"{CORE}/namespaces/{RUNS}/configmaps"),
    ("GET", f"{CORE}/namespaces/{RUNS}/pods"),
    ("GET", f"{TEKTON}/namespaces/{RUNS}/pipelineruns"),
    ("POST", f"{TEKTON}/namespaces/{RUNS}/pipelineruns"),
    ("POST", f"{CORE}/namespaces/{RUNS}/serviceaccounts/secure-pipeline-sign/token"),
    ("GET", "/api/v1/nodes"),
    ("GET", "/api/v1/namespaces"),
]


def test_the_pods_account_may_do_nothing_else(
    place: PipelinePlace, shop: Shop, promoted: Ended
) -> None:
    """All that is not the two routes and what runs behind them is refused: 403."""
    config = json.loads(place.tekton.cluster.account(RUNS, ACCOUNT).read_bytes())
    token = config["users"][0]["user"]["token"]
    answers = {asked: place.tekton.api.status(*asked, token) for asked in DENIED}
    assert {asked: status for asked, status in answers.items() if status != 403} == {}
    own = ("GET", f"{GATEWAY_API}/namespaces/{NAMESPACE}/httproutes/{HEALTHY}")
    assert place.tekton.api.status(*own, token) == 200


def test_a_hand_over_from_elsewhere_moves_all_traffic(shop: Shop, handed: dict[str, Any]) -> None:
    """The command ends well with the verdict of its own run, which a pod has signed."""
    assert handed["verdict"]["result"] == "PROMOTED"
    assert shop.share(HANDED, "green") == 1.0


def test_a_killed_promotion_is_rolled_back(
    place: PipelinePlace, shop: Shop, images: Images, handed: dict[str, Any], aborted: Ended
) -> None:
    """SIGKILL while traffic is split: the run fails, and its last task takes the traffic back.

    The last test of all, because it puts the image in quarantine by the other key, too.
    """
    with shop.requests(KILLED):
        run = start(place, KILLED, images.signed)
        until("split traffic", lambda: shop.share(KILLED, "green") > 0, 120)
        place.tekton.kill(RUNS, place.tekton.tasks(RUNS, run)["promote"])
        ended = place.finish(run, 120)
    assert not ended.passed
    assert code(ended, "promote") == 137
    assert code(ended, "roll-back") == 13, place.logs(ended)
    assert shop.share(KILLED, "green") == 0.0
