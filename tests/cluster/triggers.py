"""Tekton Triggers in a cluster for tests: controller, admission and interceptors as programs.

    with listening(cluster, NAMESPACE) as listener:     # or make_listener in cluster.network()
        listener.url, listener.ca, listener.secret      # what a sender needs to know
        listener.runs()

The listener itself is the pod that Triggers' own controller makes of the EventListener, with the
service account and the RBAC of tekton/triggers. What a cluster has and this one has not:

* kube-proxy: the addresses of services are the node's, and the interceptors are asked at theirs
  by number instead of by name; their certificate is for that number, and the sink checks it;
* a door from outside with TLS: HAProxy, on an address of the node.
"""

from __future__ import annotations

import functools
import json
import secrets
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from cluster.api import Api, until
from cluster.credentials import Authority
from cluster.images import busybox_image
from cluster.kubernetes import Cluster
from cluster.modules import module_directory
from cluster.namespaces import NODE_ADDRESS
from cluster.objects import CORE, RBAC
from cluster.pipelines import overlay
from cluster.tekton import NAMESPACE as SYSTEM
from cluster.tekton import TEKTON
from fakes.workplace import ROOT
from secure_pipeline.wiring import locate_tool

TRIGGERS = "/apis/triggers.tekton.dev/v1beta1"
LISTENER = "secure-pipeline"
SECRET = "secure-pipeline-hand-over"
DOOR = f"{NODE_ADDRESS}:8444"
_MODULE = "github.com/tektoncd/triggers"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_INTERCEPTORS = "/apis/triggers.tekton.dev/v1alpha1/clusterinterceptors"
_CERTIFICATES = "tekton-triggers-core-interceptors-certs"
_WEBHOOK_ADDRESS, _WEBHOOK_PORT = "10.96.0.21", 9444
_INTERCEPTORS_ADDRESS, _INTERCEPTORS_PORT = "10.96.0.22", 8443
_SINK_IMAGE = "localhost/triggers-sink"
_CONFIGURATION = (
    *("config-defaults-triggers", "config-feature-flags", "config-info", "config-logging"),
    *("config-leader-election-controller", "config-leader-election-webhook"),
    "config-observability",
)


@dataclass(frozen=True)
class Listener:
    """A listener that waits for events, as long as its cluster does."""

    api: Api
    cluster: Cluster
    namespace: str
    secret: bytes
    """What events are signed with."""
    url: str
    """https, and the audience of events."""
    ca: Path
    """PEM of the authority of its certificate."""

    def runs(self) -> set[str]:
        """Names of the runs that it may have started."""
        path = f"{TEKTON}/namespaces/{self.namespace}/pipelineruns"
        query = f"?labelSelector=triggers.tekton.dev%2Feventlistener%3D{LISTENER}"
        return {item["metadata"]["name"] for item in self.api.get(path + query)["items"]}

    def log(self) -> str:
        """What the listener's pod said, a message a line."""
        pod = _pod(self.api, self.namespace)
        assert pod is not None
        path = f"{CORE}/namespaces/{self.namespace}/pods/{pod['metadata']['name']}/log"
        lines = self.api.call("GET", path).text.splitlines()
        return "\n".join(json.loads(line)["message"] for line in lines if line.startswith("{"))


@functools.cache
def running_triggers(cluster: Cluster) -> None:
    """Start Triggers beside a Tekton that runs; call inside the network."""
    api = cluster.api
    config = module_directory("triggers-controller", _MODULE) / "config"
    for path in sorted(config.glob("300-*.yaml")):
        for document in _documents(path):
            api.create(_DEFINITIONS, document)
    base = f"{CORE}/namespaces/{SYSTEM}"
    for name in _CONFIGURATION:
        for document in _documents(config / f"{name}.yaml"):
            api.create(f"{base}/configmaps", document)
    service = {"clusterIP": _WEBHOOK_ADDRESS, "ports": [{"port": 443}]}
    body = {"metadata": {"name": "tekton-triggers-webhook"}, "spec": service}
    api.create(f"{base}/services", body)
    for address in (_WEBHOOK_ADDRESS, _INTERCEPTORS_ADDRESS):
        cluster.run(["ip", "address", "add", f"{address}/32", "dev", "node0"])
    _redirect(cluster, _WEBHOOK_ADDRESS, 443, _WEBHOOK_PORT)
    _import_sink(cluster)
    _make_interceptors(cluster, config)
    _start(cluster)
    # Admission is asked only once somebody answers it: until then it would refuse everything.
    for document in _documents(config / "500-webhooks.yaml"):
        if document["kind"] == "Secret":
            api.create(f"{base}/secrets", document)
        else:
            api.create(f"{_ADMISSION}/{document['kind'].lower()}s", document)
    cluster.ready("Triggers' admission", lambda: _refuses_nonsense(api))
    cluster.ready("interceptors", lambda: _trusted_interceptors(api))


@functools.cache
def make_listener(cluster: Cluster, namespace: str) -> Listener:
    """The listener of tekton/triggers in a namespace that has the rest of tekton/, made once."""
    running_triggers(cluster)
    secret = secrets.token_hex(32).encode()
    url = f"https://{DOOR}/"
    ca = _certificate(cluster, "door", NODE_ADDRESS)
    values = {"secret": secret, "audience": url.encode()}
    cluster.api.create(
        f"{CORE}/namespaces/{namespace}/secrets",
        {"metadata": {"name": SECRET}, "data": _coded(values)},
    )
    for document in component():
        cluster.api.create(_path(document, namespace), document)
    made = Listener(cluster.api, cluster, namespace, secret, url, ca)
    pod = until("the listener's pod", lambda: _pod(cluster.api, namespace), 120)
    _open_door(cluster, pod["status"]["podIP"])
    cluster.ready("the listener", lambda: _answers(made))
    return made


@contextmanager
def listening(cluster: Cluster, namespace: str) -> Iterator[Listener]:
    """Inside, this thread is in the network of the listener; what it started is removed after."""
    with cluster.network():
        made = make_listener(cluster, namespace)
        before = made.runs()
        yield made
        for run in made.runs() - before:
            made.api.delete(f"{TEKTON}/namespaces/{namespace}/pipelineruns/{run}")


def component() -> Iterator[dict[str, Any]]:
    """The objects of tekton/triggers."""
    return overlay(ROOT / "tekton/triggers")


def _path(document: dict[str, Any], namespace: str) -> str:
    kind = document["kind"]
    if kind == "NetworkPolicy":
        return f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
    if kind.startswith("Cluster"):
        for subject in document.get("subjects", ()):
            subject["namespace"] = namespace
        return f"{RBAC}/{kind.lower()}s"
    group = RBAC if kind.startswith("Role") else TRIGGERS
    return f"{group}/namespaces/{namespace}/{kind.lower()}s"


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    found = yaml.load_all(path.read_bytes(), Loader=yaml.CSafeLoader)
    return (document for document in found if document)


def _redirect(cluster: Cluster, address: str, port: int, to: int) -> None:
    """What kube-proxy would do: a service has another port than its program."""
    rule = ["-d", address, "-p", "tcp", "--dport", str(port), "-j", "REDIRECT", "--to-ports"]
    cluster.run(["iptables", "-w", "-t", "nat", "-A", "OUTPUT", *rule, str(to)])


def _import_sink(cluster: Cluster) -> None:
    place, path = cluster.directory / "triggers-sink", "ko-app/eventlistenersink"
    program = locate_tool("triggers-sink").path
    busybox_image(place, "1", [f"/{path}"], {path: program.read_bytes()}, "Entrypoint")
    cluster.import_image(place, _SINK_IMAGE)


def _certificate(cluster: Cluster, name: str, address: str) -> Path:
    """Issue a certificate by an authority of its own; the path of that authority's."""
    authority = Authority(cluster.directory / name)
    authority.issue(name, name, hosts=(address,))
    return authority.certificate


def _make_interceptors(cluster: Cluster, config: Path) -> None:
    """They take the certificate that is there, and tell the sink whom to trust."""
    ca = _certificate(cluster, "interceptors", _INTERCEPTORS_ADDRESS)
    pem = {
        "ca-cert.pem": ca.read_bytes(),
        "server-cert.pem": (ca.parent / "interceptors.crt").read_bytes(),
        "server-key.pem": (ca.parent / "interceptors.key").read_bytes(),
    }
    cluster.api.create(
        f"{CORE}/namespaces/{SYSTEM}/secrets",
        {"metadata": {"name": _CERTIFICATES}, "data": _coded(pem)},
    )
    for document in _documents(config / "interceptors/core-interceptors.yaml"):
        if document["kind"] == "ClusterInterceptor":
            path = document["spec"]["clientConfig"]["service"]["path"]
            url = f"https://{_INTERCEPTORS_ADDRESS}:{_INTERCEPTORS_PORT}/{path}"
            document["spec"]["clientConfig"] = {"url": url}
            cluster.api.create(_INTERCEPTORS, document)


def _start(cluster: Cluster) -> None:
    shared = {
        "SYSTEM_NAMESPACE": SYSTEM,
        "KUBECONFIG": str(cluster.kubeconfig),
        "KUBERNETES_MIN_VERSION": "v1.28.0",
        "CONFIG_LOGGING_NAME": "config-logging-triggers",
        "CONFIG_OBSERVABILITY_NAME": "config-observability-triggers",
        "CONFIG_DEFAULTS_NAME": "config-defaults-triggers",
        "METRICS_DOMAIN": "tekton.dev/triggers",
    }
    controller = {
        "CONFIG_LEADERELECTION_NAME": "config-leader-election-triggers-controller",
        **{"PROBES_PORT": "18082", "METRICS_PROMETHEUS_PORT": "19092", "PROFILING_PORT": "18010"},
    }
    webhook = {
        "CONFIG_LEADERELECTION_NAME": "config-leader-election-triggers-webhook",
        "WEBHOOK_PORT": str(_WEBHOOK_PORT),
        "WEBHOOK_SERVICE_NAME": "tekton-triggers-webhook",
        "WEBHOOK_SECRET_NAME": "triggers-webhook-certs",
        **{"PROBES_PORT": "18083", "METRICS_PROMETHEUS_PORT": "19093", "PROFILING_PORT": "18011"},
    }
    interceptors = {
        "INTERCEPTOR_TLS_SVC_NAME": "tekton-triggers-core-interceptors",
        "INTERCEPTOR_TLS_SECRET_NAME": _CERTIFICATES,
    }
    for name, variables, arguments in (
        ("interceptors", interceptors, []),
        ("webhook", webhook, []),
        ("controller", controller, ["-el-image", f"{_SINK_IMAGE}:1"]),
    ):
        program = locate_tool(f"triggers-{name}").path
        settings = [f"{key}={value}" for key, value in {**shared, **variables}.items()]
        cluster.start(f"triggers-{name}", ["env", *settings, program, *arguments])


def _refuses_nonsense(api: Api) -> bool:
    """Whether admission answers, and as Triggers': a template of nothing is refused."""
    body = {
        "apiVersion": "triggers.tekton.dev/v1beta1",
        "kind": "TriggerTemplate",
        "metadata": {"name": "nonsense"},
        "spec": {"resourcetemplates": []},
    }
    path = f"{TRIGGERS}/namespaces/{SYSTEM}/triggertemplates?dryRun=All"
    answer = api.call("POST", path, body)
    return answer.status_code == 400 and "spec.resourcetemplates" in answer.text


def _trusted_interceptors(api: Api) -> bool:
    """Whether each says by whom it is certified; the sink waits for that, and minutes at a time."""
    items = api.get(_INTERCEPTORS)["items"]
    return all(item["spec"]["clientConfig"].get("caBundle") for item in items)


def _pod(api: Api, namespace: str) -> dict[str, Any] | None:
    query = f"?labelSelector=eventlistener%3D{LISTENER}"
    for pod in api.get(f"{CORE}/namespaces/{namespace}/pods{query}")["items"]:
        for item in pod["status"].get("conditions", ()):
            if (item["type"], item["status"]) == ("Ready", "True"):
                return dict(pod)
    return None


def _open_door(cluster: Cluster, address: str) -> None:
    place = cluster.directory / "door"
    both = b"".join((place / f"door.{kind}").read_bytes() for kind in ("crt", "key"))
    (place / "door.pem").write_bytes(both)
    config = place / "haproxy.cfg"
    config.write_text(
        "defaults\n  mode http\n"
        "  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
        f"listen door\n  bind {DOOR} ssl crt {place}/door.pem\n  server sink {address}:8080\n"
    )
    cluster.start("door", ["haproxy", "-db", "-f", config])


def _answers(listener: Listener) -> bool:
    try:
        return requests.get(f"{listener.url}live", verify=str(listener.ca), timeout=5).ok
    except requests.ConnectionError:
        return False


def _coded(values: dict[str, bytes]) -> dict[str, str]:
    return {name: b64encode(value).decode() for name, value in values.items()}
