"""Who may start runs from outside, and what they choose: the API server and its admission.

No run begins here: they are pending, or refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import yaml

from cluster.api import until
from cluster.objects import CORE
from cluster.pipelines import NAMESPACE, PipelinePlace
from cluster.tekton import TEKTON
from fakes.workplace import ROOT

pytestmark = [
    pytest.mark.integration,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(1200),  # whichever is first makes cluster, images and a sound run
]
START = "secure-pipeline-start"
SOURCE = "https://git.example/team/service.git"


@pytest.fixture(scope="module")
def place(pipelines: PipelinePlace) -> Iterator[PipelinePlace]:
    """tekton/overlays/dev in a cluster, which lists one source."""
    with pipelines.tekton.cluster.network():
        path = f"{CORE}/namespaces/{NAMESPACE}/configmaps/{START}"
        sources = f"https://git.example/other.git\n{SOURCE}\n"
        change = {"data": {"source-url": sources, "source-ref": "refs/heads/main"}}
        kind = "application/merge-patch+json"
        assert pipelines.tekton.api.call("PATCH", path, change, kind=kind).ok
        yield pipelines


@dataclass(frozen=True)
class Starter:
    """Who may start runs, with a token of the API server."""

    place: PipelinePlace
    token: str

    def ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        return requests.request(
            method,
            self.place.tekton.api.server + path,
            json=body,
            headers={"Authorization": f"Bearer {self.token}"},
            verify=str(self.place.tekton.cluster.keys / "ca.crt"),
            timeout=10,
        )

    def start(self, body: Any) -> requests.Response:
        return self.ask("POST", f"{TEKTON}/namespaces/{NAMESPACE}/pipelineruns", body)


@pytest.fixture(scope="module")
def starter(place: PipelinePlace) -> Starter:
    config = json.loads(place.tekton.cluster.account(NAMESPACE, START).read_bytes())
    made = Starter(place, config["users"][0]["user"]["token"])

    def policy_is_there() -> bool:
        """It refuses what is wrong, and has read the ConfigMap."""
        path = f"{TEKTON}/namespaces/{NAMESPACE}/pipelineruns?dryRun=All"
        good, bad = (handed_over("build-1-1") for _ in range(2))
        bad["spec"]["pipelineRef"]["name"] = "other"
        codes = [made.ask("POST", path, body).status_code for body in (good, bad)]
        return codes == [201, 422]

    until("admission policy", policy_is_there, 60)
    return made


def handed_over(name: str) -> dict[str, Any]:
    """A run as it is handed over; it waits instead of running."""
    pipeline = name.partition("-")[0]
    run: dict[str, Any] = yaml.safe_load((ROOT / f"tekton/runs/{pipeline}.yaml").read_text())
    del run["metadata"]["generateName"]
    run["metadata"]["name"] = name
    run["spec"]["status"] = "PipelineRunPending"
    return run


@pytest.mark.parametrize("name", ["build-9000000001-1", "promote-9000000001-1"])
def test_a_run_is_handed_over_once(starter: Starter, name: str) -> None:
    """The first of its name is made; the same again, as a replay is, is refused."""
    run = handed_over(name)
    first = starter.start(run)
    assert first.status_code == 201, first.text
    again = starter.start(run)
    assert again.status_code == 409
    assert again.json()["reason"] == "AlreadyExists"


@pytest.mark.parametrize("token", ["", "other", "cut", "changed"])
def test_a_hand_over_without_a_valid_signature_is_refused(starter: Starter, token: str) -> None:
    """No token, none of this cluster, and one of which the signature or the claims were altered."""
    head, claims, signature = starter.token.split(".")
    tokens = {
        "": "",
        "other": "a.b.c",
        "cut": f"{head}.{claims}.",
        "changed": f"{head}.{claims}.{signature[::-1]}",
    }
    answer = Starter(starter.place, tokens[token]).start(handed_over("build-9000000002-1"))
    assert answer.status_code in (401, 403), answer.text


Change = Callable[[dict[str, Any]], None]


def _value(name: str, value: str | None) -> Change:
    """Give a parameter another value, or take it away."""

    def change(run: dict[str, Any]) -> None:
        kept = [p for p in run["spec"]["params"] if p["name"] != name]
        given = [] if value is None else [{"name": name, "value": value}]
        run["spec"]["params"] = [*kept, *given]

    return change


def _bound(name: str, **binding: Any) -> Change:
    """Bind a workspace to something else."""

    def change(run: dict[str, Any]) -> None:
        kept = [w for w in run["spec"]["workspaces"] if w["name"] != name]
        run["spec"]["workspaces"] = [*kept, {"name": name, **binding}]

    return change


def _set(path: str, value: Any) -> Change:
    """Set a field of the run, by its path."""

    def change(run: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        place = run
        for part in parents:
            place = place[part]
        place[last] = value

    return change


def _inline(run: dict[str, Any]) -> None:
    run["spec"].pop("pipelineRef")
    step = {"name": "a", "image": "localhost/secure-pipeline:1", "command": ["id"]}
    run["spec"]["pipelineSpec"] = {"tasks": [{"name": "a", "taskSpec": {"steps": [step]}}]}


def _volume(**more: Any) -> Change:
    size = {"requests": {"storage": "1Gi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": size, **more}
    return _bound("work", volumeClaimTemplate={"spec": spec})


_CLAIM = {"claimName": "pvc-of-another-run"}
_OTHER = [{"pipelineTaskName": "test", "serviceAccountName": "secure-pipeline-sign"}]
_MAP = {"name": "secure-pipeline-policy", "items": [{"key": "old.yaml", "path": "release.yaml"}]}
_ACCOUNT = "spec.taskRunTemplate.serviceAccountName"
CHANGES = {
    "a name of the server's": _set("metadata", {"generateName": "build-"}),
    "a name of the other pipeline": _set("metadata.name", "promote-9000000003-1"),
    "an inline pipeline": _inline,
    "a pipeline from elsewhere": _set("spec.pipelineRef.resolver", "git"),
    "another account": _set(_ACCOUNT, "secure-pipeline-sign"),
    "another account of a stage": _set("spec.taskRunSpecs", _OTHER),
    "another pod": _set("spec.taskRunTemplate.podTemplate.hostNetwork", True),
    "another image of the steps": _value("cli-image", "evil.example/cli:1"),
    "a database": _value("database", "evil.example/db"),
    "another policy": _value("policy", "/workspace/source/policy.yaml"),
    "an empty policy": _value("policy", ""),
    "no policy": _value("policy", None),
    "another key": _value("key", "file:/workspace/source/release.key"),
    "a source that is not listed": _value("source-url", "https://git.example/team/other.git"),
    "a source in part": _value("source-url", "https://git.example"),
    "no source": _value("source-url", ""),
    "two sources": _value("source-url", f"https://git.example/other.git\n{SOURCE}"),
    "another branch": _value("source-ref", "refs/heads/of-my-own"),
    "no branch": _value("source-ref", None),
    "another policy's files": _bound("policy", configMap={"name": "of-my-own"}),
    "another file as the policy": _bound("policy", configMap=_MAP),
    "another key's file": _bound("keys", secret={"secretName": "of-my-own"}),
    "another login": _bound("registry", secret={"secretName": "secure-pipeline-key"}),
    "the volume of another run": _bound("work", persistentVolumeClaim=_CLAIM),
    "other promotions": _bound("promotions", persistentVolumeClaim=_CLAIM),
    "a copy of another run's volume": _volume(
        dataSource={"kind": "PersistentVolumeClaim", "name": "pvc-of-another-run"}
    ),
    "a volume by its name": _volume(volumeName="another"),
    "a place that no pipeline has": _bound("more", emptyDir={}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_hand_over_chooses_nothing_that_is_trusted(starter: Starter, change: str) -> None:
    """Pipeline, accounts, pods, images, sources, policy, key and places are the cluster's."""
    run = handed_over("build-9000000003-1")
    CHANGES[change](run)
    answer = starter.start(run)
    assert answer.status_code == 422, answer.text
    assert f"ValidatingAdmissionPolicy '{START}'" in answer.text


def test_what_is_not_trusted_is_chosen(starter: Starter) -> None:
    """Commit, configuration, where to push, and a volume of one's own size are free."""
    run = handed_over("build-9000000005-1")
    for name, value in {"commit": "1" * 40, "config": "a/b.yaml", "push": "r.example/a"}.items():
        _value(name, value)(run)
    _value("source-url", "https://git.example/other.git")(run)
    _volume()(run)
    answer = starter.start(run)
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{CORE}/namespaces/{NAMESPACE}/secrets"),
        ("GET", f"{CORE}/namespaces/{NAMESPACE}/configmaps"),
        ("POST", f"{TEKTON}/namespaces/{NAMESPACE}/taskruns"),
        ("POST", f"{TEKTON}/namespaces/{NAMESPACE}/pipelines"),
        ("DELETE", f"{TEKTON}/namespaces/{NAMESPACE}/pipelineruns/build-9000000001-1"),
        ("POST", f"{TEKTON}/namespaces/default/pipelineruns"),
    ],
)
def test_who_hands_over_may_do_nothing_else(starter: Starter, method: str, path: str) -> None:
    """No secret, no other kind, no other namespace, and no run is removed to be started again."""
    body = handed_over("build-9000000004-1") if method == "POST" else None
    assert starter.ask(method, path, body).status_code == 403
