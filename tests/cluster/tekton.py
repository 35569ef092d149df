"""Tekton Pipelines in a cluster for tests: its own controller and admission, as programs.

    tekton = running_tekton(cluster)      # inside cluster.network()
    tekton.apply(task); tekton.run("shop", pipeline_run)

Programs: the pinned ``tekton-…``, in the cluster's network. Definitions and configuration come
from the module that they were built from. There is no kube-proxy: the address of the webhook's
service is one of the node's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from cluster.api import Api, until
from cluster.images import busybox_image
from cluster.kubernetes import Cluster
from cluster.modules import module_directory
from cluster.objects import CORE, make_namespace
from secure_pipeline.wiring import locate_tool

TEKTON = "/apis/tekton.dev/v1"
NAMESPACE = "tekton-pipelines"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_MODULE = "github.com/tektoncd/pipeline"
_WEBHOOK_SERVICE = "tekton-pipelines-webhook"
_WEBHOOK_ADDRESS = "10.96.0.20"
_WEBHOOK_PORT = 9443
_CONFIGURATION = (
    *("config-defaults", "config-events", "config-feature-flags", "config-info"),
    *("config-leader-election-controller", "config-leader-election-webhook", "config-logging"),
    *("config-observability", "config-registry-cert", "config-spire", "config-tracing"),
)
_IMAGES = ("entrypoint", "nop")
_ENDED = ("True", "False")


@dataclass(frozen=True)
class Ended:
    """How a PipelineRun ended."""

    passed: bool
    reason: str
    message: str
    results: Mapping[str, str]
    tasks: Mapping[str, Mapping[str, Any]]
    """Name of each task of the pipeline to the status of its TaskRun."""

    @property
    def failed_tasks(self) -> set[str]:
        return {name for name, status in self.tasks.items() if _condition(status)[0] == "False"}

    def results_of(self, task: str) -> dict[str, str]:
        return {item["name"]: item["value"] for item in self.tasks[task].get("results", [])}


@dataclass(frozen=True)
class Tekton:
    """Tekton that runs, as long as its cluster does."""

    api: Api
    cluster: Cluster

    def start(self, namespace: str, run: Mapping[str, Any]) -> str:
        """Make a PipelineRun; return its name."""
        path = f"{TEKTON}/namespaces/{namespace}/pipelineruns"
        return str(self.api.create(path, run)["metadata"]["name"])

    def wait(self, namespace: str, name: str, seconds: float = 300) -> Ended:
        """Wait for the end of a PipelineRun."""
        path = f"{TEKTON}/namespaces/{namespace}/pipelineruns/{name}"

        def ended() -> dict[str, Any] | None:
            run = self.api.get(path)
            return run if _condition(run.get("status", {}))[0] in _ENDED else None

        run = until(f"end of {name}", ended, seconds)
        status, reason, message = _condition(run["status"])
        results = {item["name"]: item["value"] for item in run["status"].get("results", [])}
        return Ended(status == "True", reason, message, results, self.tasks(namespace, name))

    def tasks(self, namespace: str, run: str) -> dict[str, Mapping[str, Any]]:
        """Name of each task of a run so far to the status of its TaskRun."""
        query = f"?labelSelector=tekton.dev%2FpipelineRun%3D{run}"
        items = self.api.get(f"{TEKTON}/namespaces/{namespace}/taskruns{query}")["items"]
        return {
            item["metadata"]["labels"]["tekton.dev/pipelineTask"]: item.get("status", {})
            for item in items
        }

    def again(
        self,
        namespace: str,
        status: Mapping[str, Any],
        name: str,
        change: Callable[[dict[str, Any]], None] = lambda spec: None,
    ) -> Mapping[str, Any]:
        """Run the Task of a TaskRun once more under ``name``, with what Tekton told it; its status.

        ``change``: of the TaskRun's specification.
        """
        path = f"{TEKTON}/namespaces/{namespace}/taskruns"
        (old,) = (
            item
            for item in self.api.get(path)["items"]
            if item.get("status", {}).get("podName") == status["podName"]
        )
        spec = {key: old["spec"][key] for key in old["spec"] if key not in ("timeout", "retries")}
        change(spec)
        kind = {"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": {"name": name}}
        self.api.create(path, {**kind, "spec": spec})

        def done() -> dict[str, Any] | None:
            found: dict[str, Any] = self.api.get(f"{path}/{name}").get("status", {})
            return found if found.get("completionTime") else None

        return until(f"end of {name}", done, 120)

    def kill(self, namespace: str, status: Mapping[str, Any]) -> None:
        """SIGKILL to the one step of a TaskRun."""
        pod = self.api.get(f"{CORE}/namespaces/{namespace}/pods/{status['podName']}")
        (container,) = pod["status"]["containerStatuses"]
        identity = container["containerID"].removeprefix("containerd://")
        socket = self.cluster.directory / "containerd.sock"
        command = ["ctr", "-a", socket, "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL"]
        self.cluster.run([*command, identity])

    def log(self, namespace: str, status: Mapping[str, Any], step: str) -> str:
        """What a step of a TaskRun wrote."""
        path = f"{CORE}/namespaces/{namespace}/pods/{status['podName']}/log"
        return self.api.call("GET", f"{path}?container=step-{step}").text


def _condition(status: Mapping[str, Any]) -> tuple[str, str, str]:
    for item in status.get("conditions", []):
        if item["type"] == "Succeeded":
            return item["status"], item.get("reason", ""), item.get("message", "")
    return "Unknown", "", ""


@functools.cache
def running_tekton(cluster: Cluster) -> Tekton:
    """Tekton of a cluster, started when it is first asked for; call inside the network."""
    config = module_directory("tekton-controller", _MODULE) / "config"
    api = cluster.api
    for path in sorted((config / "300-crds").glob("*.yaml")):
        for document in _documents(path):
            api.create(_DEFINITIONS, document)
    make_namespace(api, NAMESPACE)
    base = f"{CORE}/namespaces/{NAMESPACE}"
    for name in _CONFIGURATION:
        for document in _documents(config / f"{name}.yaml"):
            api.create(f"{base}/configmaps", document)
    service = {"clusterIP": _WEBHOOK_ADDRESS, "ports": [{"port": _WEBHOOK_PORT}]}
    api.create(f"{base}/services", {"metadata": {"name": _WEBHOOK_SERVICE}, "spec": service})
    for name in _IMAGES:
        _import(cluster, name)
    _start(cluster)
    # Admission is asked only once somebody answers it: until then it would refuse everything.
    for document in _documents(config / "500-webhooks.yaml"):
        if document["kind"] == "Secret":
            api.create(f"{base}/secrets", document)
        else:
            plural = document["kind"].lower() + "s"
            api.create(f"{_ADMISSION}/{plural}", document)
    tekton = Tekton(api, cluster)
    cluster.ready("Tekton's admission", lambda: _refuses_nonsense(api))
    return tekton


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file; the webhook's service is asked on the port that it has here."""
    for document in yaml.load_all(path.read_bytes(), Loader=yaml.CSafeLoader):
        if document:
            _set_port(document)
            yield document


def _set_port(value: Any) -> None:
    if isinstance(value, dict):
        if value.get("name") == _WEBHOOK_SERVICE and "namespace" in value and len(value) == 2:
            value["port"] = _WEBHOOK_PORT
        for item in value.values():
            _set_port(item)
    elif isinstance(value, list):
        for item in value:
            _set_port(item)


def _import(cluster: Cluster, name: str) -> None:
    program = locate_tool(f"tekton-{name}").path
    place = cluster.directory / f"tekton-{name}"
    path = f"ko-app/{name}"
    busybox_image(place, "1", [f"/{path}"], {path: program.read_bytes()})
    cluster.import_image(place, _image(name).partition(":")[0])


def _image(name: str) -> str:
    return f"localhost/tekton-{name}:1"


def _start(cluster: Cluster) -> None:
    cluster.run(["ip", "address", "add", f"{_WEBHOOK_ADDRESS}/32", "dev", "node0"])
    shared = {
        "SYSTEM_NAMESPACE": NAMESPACE,
        "KUBECONFIG": str(cluster.kubeconfig),
        "KUBERNETES_MIN_VERSION": "v1.28.0",
        "CONFIG_LOGGING_NAME": "config-logging",
        "CONFIG_OBSERVABILITY_NAME": "config-observability",
        "CONFIG_FEATURE_FLAGS_NAME": "feature-flags",
        "METRICS_DOMAIN": "tekton.dev/pipeline",
    }
    controller = {
        "CONFIG_DEFAULTS_NAME": "config-defaults",
        "CONFIG_LEADERELECTION_NAME": "config-leader-election-controller",
        "CONFIG_SPIRE": "config-spire",
        **{"PROBES_PORT": "18080", "METRICS_PROMETHEUS_PORT": "19090", "PROFILING_PORT": "18008"},
    }
    webhook = {
        "CONFIG_LEADERELECTION_NAME": "config-leader-election-webhook",
        "WEBHOOK_PORT": str(_WEBHOOK_PORT),
        "WEBHOOK_ADMISSION_CONTROLLER_NAME": "webhook.pipeline.tekton.dev",
        "WEBHOOK_SERVICE_NAME": _WEBHOOK_SERVICE,
        "WEBHOOK_SECRET_NAME": "webhook-certs",
        **{"PROBES_PORT": "18081", "METRICS_PROMETHEUS_PORT": "19091", "PROFILING_PORT": "18009"},
    }
    images = [
        *("-entrypoint-image", _image("entrypoint"), "-nop-image", _image("nop")),
        # Of what no Task here has or is off: the flags must only be there.
        *("-workingdirinit-image", _image("nop")),
        *("-sidecarlogresults-image", _image("nop"), "-shell-image", _image("nop")),
        *("-shell-image-win", _image("nop")),
    ]
    for name, variables, arguments in (
        ("webhook", webhook, []),
        ("controller", controller, [*images, "-disable-ha"]),
    ):
        program = locate_tool(f"tekton-{name}").path
        settings = [f"{key}={value}" for key, value in {**shared, **variables}.items()]
        cluster.start(f"tekton-{name}", ["env", *settings, program, *arguments])


def _refuses_nonsense(api: Api) -> bool:
    """Whether admission answers, and as Tekton's: a Task without steps is refused."""
    body = {
        "apiVersion": "tekton.dev/v1",
        "kind": "Task",
        "metadata": {"name": "nonsense"},
        "spec": {"steps": []},
    }
    path = f"{TEKTON}/namespaces/{NAMESPACE}/tasks?dryRun=All"
    try:
        answer = api.call("POST", path, body)
    except requests.ConnectionError:
        return False
    return answer.status_code == 400 and "spec.steps" in answer.text
