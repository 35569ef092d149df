"""Versions of the sample as pods behind a Gateway, with requests, and a Prometheus that sees them.

    with serving(place, directory, {"blue": Version(old), "green": Version(new)}) as shop:
        shop.make_route("web", "blue", "green")
        with shop.requests("web"): ...
        shop.share("web", "green")

The images are pulled from the registry by their digests. There is no DNS and no kube-proxy, so
pods are asked at their own addresses; Envoy knows them from their Services.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.api import until
from cluster.gateway import Gateway, route_path, rule, running_gateway
from cluster.namespaces import NODE_ADDRESS
from cluster.objects import (
    APPS,
    CORE,
    container,
    make_namespace,
    pod_spec,
    running_pods,
    workload,
)
from cluster.pipelines import NAMESPACE as RUNS
from cluster.pipelines import REGISTRY, PipelinePlace
from cluster.settings import plain_registry
from fakes.authority import Authority, make_authority
from fakes.livepromotion import ANALYSIS
from fakes.load import Load, load
from fakes.prometheus import RealPrometheus, prometheus

NAMESPACE = "serving"
TARGETS = "secure-pipeline-targets"
"""ConfigMap of the targets, in the namespace of the runs."""
_PORT = 8080
_AUTHORITY = "prometheus-ca.pem"


@dataclass(frozen=True)
class Version:
    """One version that runs."""

    image: str
    """HOST/NAME@sha256:…"""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables of its process."""


@dataclass(frozen=True)
class Shop:
    """Versions that run, by name; each is a Deployment and a Service of that name."""

    gateway: Gateway
    authority: Authority
    """Whom Prometheus is trusted by."""
    addresses: Mapping[str, str]
    """host:port of each version's pod."""
    prometheus: RealPrometheus

    def make_route(self, name: str, *versions: str) -> None:
        """A route whose first version has all requests."""
        weights = [(version, 0 if number else 100) for number, version in enumerate(versions)]
        self.gateway.make_route(NAMESPACE, name, [rule(*weights)])

    @contextmanager
    def requests(self, route: str) -> Iterator[Load]:
        """Requests through Envoy to a route until the end of the block; the first are answered."""
        host = f"{route}.example"
        with load(self.gateway.url, rate=60, tokens=4, threads=16, host=host) as sent:
            until("answers", lambda: sum(sent.counts[name] for name in self.addresses) >= 20)
            yield sent

    def share(self, route: str, version: str) -> float:
        """A version's share of a route, as its specification says."""
        (found,) = self.gateway.api.get(route_path(NAMESPACE, route))["spec"]["rules"]
        weights = {item["name"]: item["weight"] for item in found["backendRefs"]}
        return float(weights[version] / sum(weights.values()))

    def target(self, route: str, baseline: str, canary: str) -> dict[str, Any]:
        """The promotion target of a route, with the identity of what runs."""
        slots = {
            name: {
                "labels": {"version": name},
                "runtime": f"k8s://{NAMESPACE}/deployment/{name}",
                "health": f"http://{self.addresses[name]}/readyz",
            }
            for name in (baseline, canary)
        }
        services = {name: name for name in slots}
        router = {"namespace": NAMESPACE, "route": route, "services": services}
        return {
            "version": 1,
            "name": route,
            "slots": slots,
            "router": {"gateway-api": router},
            "prometheus": {
                "url": self.prometheus.url,
                "ca": f"/workspace/targets/{_AUTHORITY}",
                "timeout": "2s",
            },
            "rules": {"latency": {"share": "10%"}, "errors": {"share": "5%"}},
            "analysis": {**ANALYSIS, "interval": "1s"},
            "steps": [
                {"share": share, "minimum": "1s", "deadline": "60s"} for share in ("10%", "50%")
            ],
        }

    @contextmanager
    def targets(self, *documents: Mapping[str, Any]) -> Iterator[None]:
        """The ConfigMap of promotion targets until the end of the block."""
        data = {f"{document['name']}.yaml": json.dumps(document) for document in documents}
        data[_AUTHORITY] = self.authority.ca.read_text()
        base = f"{CORE}/namespaces/{RUNS}/configmaps"
        self.gateway.api.create(base, {"metadata": {"name": TARGETS}, "data": data})
        try:
            yield
        finally:
            self.gateway.api.delete(f"{base}/{TARGETS}")


@contextmanager
def serving(
    place: PipelinePlace, directory: Path, versions: Mapping[str, Version]
) -> Iterator[Shop]:
    """Run versions until the block ends; call inside the network."""
    api = place.tekton.api
    plain_registry(place.tekton.cluster.directory, REGISTRY)
    make_namespace(api, NAMESPACE)
    addresses = {}
    for name, version in versions.items():
        api.create(f"{APPS}/namespaces/{NAMESPACE}/deployments", _deployment(name, version))
        ports = [{"name": "http", "port": 80, "targetPort": _PORT}]
        service = {"selector": {"app": name}, "ports": ports}
        body = {"metadata": {"name": name}, "spec": service}
        api.create(f"{CORE}/namespaces/{NAMESPACE}/services", body)
    for name in versions:
        (pod,) = running_pods(api, NAMESPACE, name)
        addresses[name] = f"{pod['status']['podIP']}:{_PORT}"
    authority = make_authority(directory / "tls", NODE_ADDRESS)
    scraped = [(address, {"version": name}) for name, address in addresses.items()]
    gateway = running_gateway(place.tekton.cluster)
    with prometheus(
        directory / "prometheus",
        scraped,
        interval="500ms",
        authority=authority,
        host=NODE_ADDRESS,
    ) as metrics:
        try:
            yield Shop(gateway, authority, addresses, metrics)
        finally:
            api.delete(f"{CORE}/namespaces/{NAMESPACE}")


def _deployment(name: str, version: Version) -> dict[str, Any]:
    variables = {"VERSION": name, "TOKEN_DELAY_MS": "2", "MAX_GENERATIONS": "64"}
    variables |= version.settings
    ready = {"httpGet": {"path": "/readyz", "port": _PORT}, "periodSeconds": 1}
    main = container(
        "main",
        version.image,
        env=[{"name": key, "value": value} for key, value in variables.items()],
        ports=[{"containerPort": _PORT}],
        readinessProbe=ready,
    )
    return workload(name, pod_spec(main, enableServiceLinks=False))
