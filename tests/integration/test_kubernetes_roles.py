"""Exported roles on a real API server: each can do its part, and nothing of the others'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.api import Api, until
from cluster.asking import answer_or_none, refused, runtime
from cluster.gateway import GATEWAY_API, rule, running_gateway
from cluster.kubernetes import Cluster
from cluster.objects import APPS, CORE, RBAC, container, make_namespace, pod_spec, workload
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.gateway_api import GatewayApiRouter
from secure_pipeline.adapters.kubeconfig import KubernetesConfig
from secure_pipeline.canary.target import GatewayRouter
from secure_pipeline.errors import Unavailable
from secure_pipeline.policy.export.kubernetes import FILE, PROMOTER, ROLES, KubernetesRoles, files

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("cluster")]

APP, RUNS = "roles-shop", "roles-runs"
ALL = (*ROLES, PROMOTER)
SERVICES = {"blue": "web-blue", "green": "web-green"}
TEKTON = "/apis/tekton.dev/v1/namespaces"
Asked = tuple[str, str]

SEE_WHAT_RUNS: list[Asked] = [
    ("GET", f"{CORE}/namespaces/{APP}/pods"),
    ("GET", f"{APPS}/namespaces/{APP}/deployments/service"),
]
FOLLOW_RUNS: list[Asked] = [
    ("GET", f"{TEKTON}/{RUNS}/pipelineruns"),
    ("GET", f"{TEKTON}/{RUNS}/taskruns"),
    ("GET", f"{CORE}/namespaces/{RUNS}/pods"),
    ("GET", f"{CORE}/namespaces/{RUNS}/pods/none/log"),
]
START_RUNS: list[Asked] = [("POST", f"{TEKTON}/{RUNS}/pipelineruns")]
SEE_ACCESS: list[Asked] = [
    ("GET", f"{RBAC}/namespaces/{place}/{kind}")
    for place in (APP, RUNS)
    for kind in ("roles", "rolebindings")
]
PROMOTE: list[Asked] = [
    (verb, f"{GATEWAY_API}/namespaces/{APP}/httproutes/web") for verb in ("GET", "PATCH")
]
MAY = {
    "engineer": [*SEE_WHAT_RUNS, *FOLLOW_RUNS, *START_RUNS],
    "reviewer": [*SEE_WHAT_RUNS, *FOLLOW_RUNS, *SEE_ACCESS],
    "operator": [*SEE_WHAT_RUNS, *FOLLOW_RUNS, *PROMOTE],
    "promoter": [*SEE_WHAT_RUNS, *PROMOTE],
}
NOBODY: list[Asked] = [
    ("POST", f"{TEKTON}/{APP}/pipelineruns"),
    ("DELETE", f"{TEKTON}/{RUNS}/pipelineruns/none"),
    ("PATCH", f"{TEKTON}/{RUNS}/pipelineruns/none"),
    ("POST", f"{TEKTON}/{RUNS}/taskruns"),
    ("GET", f"{GATEWAY_API}/namespaces/{APP}/httproutes/other"),
    ("PATCH", f"{GATEWAY_API}/namespaces/{APP}/httproutes/other"),
    ("GET", f"{GATEWAY_API}/namespaces/{APP}/httproutes"),
    ("DELETE", f"{GATEWAY_API}/namespaces/{APP}/httproutes/web"),
    ("GET", "/api/v1/nodes"),
    ("GET", "/api/v1/pods"),
    ("GET", f"{RBAC}/clusterroles"),
    *(
        asked
        for place in (APP, RUNS)
        for asked in (
            ("POST", f"{CORE}/namespaces/{place}/pods"),
            ("DELETE", f"{CORE}/namespaces/{place}/pods/none"),
            ("POST", f"{CORE}/namespaces/{place}/pods/none/exec"),
            ("GET", f"{CORE}/namespaces/{place}/secrets"),
            ("GET", f"{CORE}/namespaces/{place}/configmaps"),
            ("POST", f"{CORE}/namespaces/{place}/serviceaccounts/default/token"),
            ("PATCH", f"{APPS}/namespaces/{place}/deployments/service"),
            ("POST", f"{RBAC}/namespaces/{place}/roles"),
            ("POST", f"{RBAC}/namespaces/{place}/rolebindings"),
            ("PATCH", f"{RBAC}/namespaces/{place}/roles/secure-pipeline-engineer"),
        )
    ),
]
EVERYTHING = sorted({asked for allowed in MAY.values() for asked in allowed} | {*NOBODY})


@dataclass(frozen=True)
class Person:
    """A service account that has one role."""

    kubeconfig: Path
    api: Api

    def status(self, verb: str, path: str) -> int:
        """What the API server answers."""
        token = KubernetesConfig.from_kubeconfig(self.kubeconfig).token
        return self.api.status(verb, path, str(token))


@pytest.fixture(scope="module")
def people(cluster: Cluster) -> Iterator[dict[str, Person]]:
    """Both namespaces, a workload and a route in one, and who has which role by the export."""
    with cluster.network():
        gateway = running_gateway(cluster)
        for name in (APP, RUNS):
            make_namespace(cluster.api, name)
        spec = pod_spec(container("main", "none"))
        cluster.api.create(f"{APPS}/namespaces/{APP}/deployments", workload("service", spec))
        gateway.make_route(APP, "web", [rule(("web-blue", 1), ("web-green", 0))])
        subjects = {role: (f"serviceaccount:{RUNS}:{role}",) for role in ALL}
        exported = files(KubernetesRoles(APP, RUNS, ("web",), subjects))[FILE]
        for document in yaml.safe_load_all(exported):
            place = document["metadata"]["namespace"]
            kind = document["kind"].lower()
            cluster.api.create(f"{RBAC}/namespaces/{place}/{kind}s", document)
        made = {role: Person(cluster.account(RUNS, role), cluster.api) for role in ALL}
        for role, person in made.items():
            verb, path = MAY[role][-1]
            until(f"the rights of {role}", lambda p=person, v=verb, w=path: p.status(v, w) != 403)  # type: ignore[misc]
        yield made


@pytest.mark.parametrize("role", ALL)
def test_every_request_is_answered_as_the_role_says(people: dict[str, Person], role: str) -> None:
    """What a role may do is not refused, and all else that anybody here does is: 403."""
    wrong = [
        (verb, path, status)
        for verb, path in EVERYTHING
        if ((status := people[role].status(verb, path)) != 403) != ((verb, path) in MAY[role])
    ]
    assert not wrong


@pytest.mark.parametrize("role", ALL)
def test_everyone_verifies_what_runs(
    cluster: Cluster, people: dict[str, Person], role: str
) -> None:
    """The adapter behind verify running has enough, for a workload and for the namespace."""
    with_rights = people[role].kubeconfig
    asked = runtime(cluster, APP, "deployment", "service", with_rights)
    found = until("the pod", lambda: answer_or_none(asked))
    assert {item.asked for item in found} == {"none"}
    assert runtime(cluster, APP, kubeconfig=with_rights).containers()
    elsewhere = runtime(cluster, "default", kubeconfig=with_rights)
    assert "may not list pods" in str(refused(elsewhere, Unavailable))


def test_operators_and_promoters_promote_and_nobody_else_does(people: dict[str, Person]) -> None:
    """The adapter behind promote changes the named route as those; all others are refused."""

    def router(role: str, route: str = "web") -> GatewayApiRouter:
        config = KubernetesConfig.from_kubeconfig(people[role].kubeconfig)
        return GatewayApiRouter(GatewayRouter(APP, route, SERVICES), config, SystemClock())

    for role in ("engineer", "reviewer"):
        says = _refusal(lambda role=role: router(role).set("green", Fraction(1, 10)))  # type: ignore[misc]
        assert f"{role} may not get httproutes" in says
    for role in ("operator", PROMOTER):
        says = _refusal(lambda role=role: router(role, "other").set("green", Fraction(1, 10)))  # type: ignore[misc]
        assert f"{role} may not get httproutes" in says
        router(role).set("green", Fraction(1, 10))


def _refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(Unavailable) as caught:
        call()
    return str(caught.value)
