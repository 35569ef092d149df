"""An HTTPRoute as router on a real Kubernetes, with Contour and Envoy as its Gateway."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.api import until
from cluster.gateway import (
    GATEWAY_API,
    NAME,
    NAMESPACE,
    Backend,
    Gateway,
    backend,
    controller_stopped,
    route_path,
    rule,
    running_gateway,
)
from cluster.kubernetes import Cluster
from cluster.objects import allow, make_namespace
from contracts.test_router_contract import Elsewhere, RouterContract
from fakes.workplace import ROOT
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.gateway_api import ATTEMPTS, GatewayApiRouter
from secure_pipeline.adapters.kubeapi import KubernetesApi
from secure_pipeline.adapters.kubeconfig import KubernetesConfig
from secure_pipeline.canary.target import GatewayRouter, RouterConfig
from secure_pipeline.documents import decode, parse_yaml
from secure_pipeline.errors import PipelineError, Unavailable
from secure_pipeline.ports import Router

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("cluster")]
SHOP = "inference"
SERVICES = {"blue": "inference-blue", "green": "inference-green"}
GREEN = Fraction(1, 20)
PAGE = ROOT / "docs/how-to/routers.md"
_numbers = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def gateway(cluster: Cluster) -> Iterator[Gateway]:
    """The Gateway; each test of this module talks in the cluster's network."""
    with cluster.network():
        made = running_gateway(cluster)
        make_namespace(cluster.api, SHOP)
        yield made


@pytest.fixture(scope="module")
def slots(gateway: Gateway) -> Iterator[tuple[Backend, Backend]]:
    """The two Services."""
    with (
        backend(gateway.api, SHOP, "inference-blue") as blue,
        backend(gateway.api, SHOP, "inference-green") as green,
    ):
        yield blue, green


@pytest.fixture
def route(gateway: Gateway, slots: tuple[Backend, Backend]) -> str:
    """A route of its own for a test: all requests to blue."""
    return make_route(gateway, rule(("inference-blue", 1), ("inference-green", 0)))


def make_route(gateway: Gateway, *rules: dict[str, Any], **spec: Any) -> str:
    name = f"web-{next(_numbers)}"
    gateway.make_route(SHOP, name, list(rules), **spec)
    return name


def router_of(
    cluster: Cluster, route: str, kubeconfig: Path | None = None, patience: float = 2.5
) -> GatewayApiRouter:
    """A router that waits longer for the controller than usual, or shorter."""
    config = KubernetesConfig.from_kubeconfig(kubeconfig or cluster.kubeconfig)
    target = GatewayRouter(SHOP, route, SERVICES)
    return GatewayApiRouter(target, config, SystemClock(), lambda s: time.sleep(s * patience))


@pytest.fixture
def router(cluster: Cluster, route: str) -> GatewayApiRouter:
    return router_of(cluster, route)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(Unavailable) as caught:
        call()
    return f"{caught.value} {caught.value.hint}"


class TestGatewayApiRouter(RouterContract):
    """A route that Contour has accepted keeps the contract."""

    @pytest.fixture
    def router(self, cluster: Cluster, route: str) -> Router:
        return router_of(cluster, route)

    @pytest.fixture
    def elsewhere(self, gateway: Gateway, route: str) -> Elsewhere:
        def change(one: str, weight: int, other: str, rest: int) -> None:
            wanted = {one: weight, other: rest}
            gateway.change_route(
                SHOP,
                route,
                [
                    {
                        "op": "replace",
                        "path": f"/spec/rules/0/backendRefs/{position}/weight",
                        "value": wanted[slot],
                    }
                    for position, slot in enumerate(("blue", "green"))
                ],
            )

        return change


def test_requests_follow_the_weights(
    gateway: Gateway, router: Router, route: str, slots: tuple[Backend, Backend]
) -> None:
    """What Envoy does with requests is what was set; at 0 no request arrives any more."""
    served(gateway, route)
    router.set("green", GREEN)
    assert router.read().shares["green"] == GREEN
    until("a request for green", lambda: gateway.send(route, 20)["inference-green"])
    answers = gateway.send(route, 400)
    assert answers.keys() == {"inference-blue", "inference-green"}
    assert 2 <= answers["inference-green"] <= 60  # 20 are to be expected
    router.set("green", Fraction(0))
    assert router.read().shares["green"] == 0
    until("no request for green", lambda: gateway.send(route, 40) == {"inference-blue": 40})
    green = slots[1]
    before = len(green.seen)
    router.set("green", Fraction(0))
    assert gateway.send(route, 200) == {"inference-blue": 200}
    assert len(green.seen) == before
    router.set("green", Fraction(1))
    assert router.read().shares == {"blue": 0, "green": 1}
    until("all requests for green", lambda: gateway.send(route, 40) == {"inference-green": 40})


def served(gateway: Gateway, route: str) -> None:
    """Wait for Envoy: it opens its port with the first route of all."""
    until("the route", lambda: gateway.answers(route))


def test_all_rules_are_split(cluster: Cluster, gateway: Gateway, slots: object) -> None:
    """Each rule with its own matches and filters gets the share; the greatest one is read."""
    api = rule(
        ("inference-green", None),
        ("inference-blue", None),
        matches=[{"path": {"type": "PathPrefix", "value": "/api"}}],
        filters=[
            {
                "type": "RequestHeaderModifier",
                "requestHeaderModifier": {"add": [{"name": "x", "value": "1"}]},
            }
        ],
    )
    name = make_route(gateway, api, rule(("inference-blue", 1), ("inference-green", 0)))
    router = router_of(cluster, name)
    assert router.read().shares == {"blue": 1, "green": Fraction(1, 2)}
    router.set("green", Fraction(1, 200))
    assert router.read().shares == {"blue": Fraction(199, 200), "green": Fraction(1, 200)}
    written = gateway.api.get(route_path(SHOP, name))["spec"]["rules"]
    assert [each["matches"][0]["path"]["value"] for each in written] == ["/api", "/"]
    assert written[0]["filters"] == api["filters"]
    change = {"op": "add", "path": "/spec/rules/0/backendRefs/0/weight", "value": 199}
    gateway.change_route(SHOP, name, [change])
    assert router.read().shares["green"] == Fraction(1, 2)


def test_a_change_by_others_is_kept(
    cluster: Cluster, gateway: Gateway, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody writes between our reading and our writing stays, and the share is set."""
    names = [f"{number}.example" for number in range(2 * ATTEMPTS)]
    left = names[:2]
    get = KubernetesApi.get

    def interrupted(self: KubernetesApi, *arguments: Any) -> dict[str, Any] | None:
        found = get(self, *arguments)
        if left:
            added = {"op": "add", "path": "/spec/hostnames/-", "value": left.pop()}
            gateway.change_route(SHOP, route, [added])
        return found

    router = router_of(cluster, route)
    with monkeypatch.context() as patched:
        patched.setattr(KubernetesApi, "get", interrupted)
        router.set("green", GREEN)
    spec = gateway.api.get(route_path(SHOP, route))["spec"]
    assert set(names[:2]) < set(spec["hostnames"])
    assert router.read().shares["green"] == GREEN
    left.extend(names[2:])
    with monkeypatch.context() as patched:
        patched.setattr(KubernetesApi, "get", interrupted)
        assert f"others changed it {ATTEMPTS} times" in refused(
            lambda: router.set("green", GREEN * 2)
        )
    assert router.read().shares["green"] == GREEN


def test_a_controller_that_does_not_follow(cluster: Cluster, gateway: Gateway, route: str) -> None:
    """While the controller stands still the old weights are in force, and nothing is read."""
    router = router_of(cluster, route)
    served(gateway, route)
    assert router.read().shares["green"] == 0
    with controller_stopped(cluster):
        router.set("green", Fraction(1))
        hasty = router_of(cluster, route, patience=0.1)
        assert "not accepted yet: Gateway main: " in refused(hasty.read)
        assert gateway.send(route, 40) == {"inference-blue": 40}
    assert router.read().shares["green"] == 1
    until("all requests for green", lambda: gateway.send(route, 40) == {"inference-green": 40})


def test_what_no_gateway_serves_is_not_read(
    cluster: Cluster, gateway: Gateway, slots: object
) -> None:
    """Routes of a missing Gateway, of a missing listener, and with a missing Service."""
    main = {"name": NAME, "namespace": NAMESPACE}
    split, half = (
        rule(("inference-blue", 1), (other, 0)) for other in ("inference-green", "inference-none")
    )
    cases: list[tuple[dict[str, Any], list[dict[str, Any]], str]] = [
        (split, [{"name": "none"}], "no controller has taken it up for Gateway none"),
        (split, [main, {**main, "name": "none"}], "taken it up for Gateway none"),
        (split, [{**main, "sectionName": "none"}], "Accepted is not True"),
        (half, [main], "ResolvedRefs is not True (BackendNotFound"),
    ]
    for one, parents, says in cases:
        router = router_of(cluster, make_route(gateway, one, parentRefs=parents), patience=0)
        until(says, lambda router=router, says=says: says in refused(router.read))  # type: ignore[misc]


def test_a_third_backend_is_refused(cluster: Cluster, gateway: Gateway, slots: object) -> None:
    """Nothing of such a route is written, and the message names the rule."""
    split, more = (("inference-blue", 1), ("inference-green", 0)), ("inference-other", 1)
    name = make_route(gateway, rule(*split, more), rule(*split))
    before = gateway.api.get(route_path(SHOP, name))["spec"]
    text = refused(lambda: router_of(cluster, name).set("green", GREEN))
    assert f"HTTPRoute {SHOP}/{name}: rule 1 cannot be split: it has a backend besides" in text
    assert gateway.api.get(route_path(SHOP, name))["spec"] == before


def test_permissions(cluster: Cluster, gateway: Gateway, route: str) -> None:
    """Without rights a refusal says what to allow; the Role of the how-to page is enough."""
    account = cluster.account(SHOP, "promoter")
    router = router_of(cluster, route, account)
    for verb, call in (("get", router.read), ("get", lambda: router.set("green", GREEN))):
        text = refused(call)
        assert f"promoter may not {verb} httproutes in namespace {SHOP}" in text
        assert (
            "kubectl create role secure-pipeline-get-patch-httproutes --verb=get,patch"
            f" --resource=httproutes.gateway.networking.k8s.io -n {SHOP}"
        ) in text
        assert f"--serviceaccount={SHOP}:promoter" in text
    (right,) = yaml.safe_load(documented()["Role"])["rules"]
    allow(cluster.api, SHOP, "promoter", [{**right, "verbs": ["get"]}])
    until("the right to read", lambda: answered(router.read))
    assert "promoter may not patch httproutes" in refused(lambda: router.set("green", GREEN))
    cluster.account(SHOP, "second")
    allow(cluster.api, SHOP, "second", [right])
    second = router_of(cluster, route, cluster.account(SHOP, "second"))
    until("the right to write", lambda: answered(lambda: second.set("green", GREEN)))
    assert second.read().shares["green"] == GREEN


def answered(call: Callable[[], object]) -> bool:
    try:
        call()
    except PipelineError:
        return False
    return True


def documented() -> dict[str, str]:
    """The fragments of the how-to page by their kind; '' is the target's."""
    section = PAGE.read_text().partition("## Kubernetes Gateway API\n")[2]
    blocks = [part.partition("```")[0] for part in section.split("```yaml\n")[1:]]
    return {yaml.safe_load(block).get("kind", ""): block for block in blocks}


def test_the_fragments_of_the_page(cluster: Cluster, gateway: Gateway, slots: object) -> None:
    """Route and target work together as they are shown."""
    shown = documented()
    body = yaml.safe_load(shown["HTTPRoute"])
    gateway.api.create(f"{GATEWAY_API}/namespaces/{SHOP}/httproutes", body)
    text = textwrap.dedent(shown[""].removeprefix("router:\n"))
    target = decode(RouterConfig, parse_yaml(text.encode(), "routers.md")).gateway_api
    assert target is not None
    config = KubernetesConfig.from_kubeconfig(cluster.kubeconfig)
    router = GatewayApiRouter(target, config, SystemClock())
    router.set("green", GREEN)
    until("the share", lambda: answered(router.read))
    assert router.read().shares == {"blue": 1 - GREEN, "green": GREEN}


def test_no_server_and_no_route(cluster: Cluster, gateway: Gateway) -> None:
    """A server that is not there and a route that is not there are Unavailable."""
    config = KubernetesConfig.from_kubeconfig(cluster.kubeconfig)
    away = dataclasses.replace(config, server="https://10.200.0.1:1")
    gone = GatewayApiRouter(GatewayRouter(SHOP, "web", SERVICES), away, SystemClock())
    none = router_of(cluster, "none")
    for each, says in ((gone, "no answer: ConnectionError"), (none, "there is no such route")):
        assert says in refused(each.read)
        assert says in refused(lambda each=each: each.set("green", Fraction(0)))  # type: ignore[misc]
