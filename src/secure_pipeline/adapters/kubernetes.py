"""Containers in a Kubernetes cluster, as the kubelets report them (CASES REG-05, REG-06).

Only ``status.…ContainerStatuses[].imageID`` says what a node runs; the image in the
specification, labels and annotations can say anything. Fields:
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from secure_pipeline import shape
from secure_pipeline.adapters.kubeapi import Forbidden, KubernetesApi, Resource
from secure_pipeline.adapters.kubeconfig import KubernetesConfig
from secure_pipeline.errors import Inconclusive, UsageError, VerificationFailed
from secure_pipeline.ports import ChangedFile, Clock, ContainerKind, RunningContainer

__all__ = ["KubernetesConfig", "KubernetesRuntime"]

MAX_CONTAINERS = 500
"""In one list of one pod."""
MAX_OWNERS = 50
_SHOWN = 10
_PODS = Resource("pods")
_NAMESPACES = Resource("namespaces", namespaced=False)
_NODES = Resource("nodes", namespaced=False)
_REPLICASETS = Resource("replicasets", "apps")
_JOBS = Resource("jobs", "batch")
_LISTS = (
    ("containers", "containerStatuses"),
    ("initContainers", "initContainerStatuses"),
    ("ephemeralContainers", "ephemeralContainerStatuses"),
)
"""Members of a pod's specification and of its status that belong together."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})\Z")
_NAMED = re.compile(r"([^@\s]{1,512})@(sha256:[0-9a-f]{64})\Z")
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?\Z")


@dataclass(frozen=True)
class _Workload:
    """A kind of thing that owns pods, itself or through others."""

    resource: Resource
    through: Resource | None = None
    """What it owns that owns the pods."""


_WORKLOADS = {
    "deployment": _Workload(Resource("deployments", "apps"), _REPLICASETS),
    "statefulset": _Workload(Resource("statefulsets", "apps")),
    "daemonset": _Workload(Resource("daemonsets", "apps")),
    "replicaset": _Workload(_REPLICASETS),
    "job": _Workload(_JOBS),
    "cronjob": _Workload(Resource("cronjobs", "batch"), _JOBS),
}
_KINDS = {
    **{name: name for name in ("pod", *_WORKLOADS)},
    **{f"{name}s": name for name in ("pod", *_WORKLOADS)},
    **{"po": "pod", "deploy": "deployment", "sts": "statefulset", "ds": "daemonset"},
    **{"rs": "replicaset", "cj": "cronjob"},
}


class KubernetesRuntime:
    """The pods of a namespace, or of one workload in it. Implements ports.Runtime."""

    def __init__(
        self,
        namespace: str,
        kind: str | None,
        name: str | None,
        *,
        config: KubernetesConfig,
        clock: Clock,
    ) -> None:
        """``kind`` as kubectl spells it (``deployment``, ``deploy``); None with None: all pods.

        Raises: UsageError for what cannot be a name or is no known kind.
        """
        self._namespace = _checked(namespace, _LABEL, "namespace")
        self._kind = None if kind is None else _known(kind)
        self._name = None if name is None else _checked(name, _SUBDOMAIN, "name")
        if (kind is None) != (name is None):
            raise UsageError(
                "a kind and a name go together", hint="k8s://NAMESPACE or k8s://NAMESPACE/KIND/NAME"
            )
        self._config = config
        self._clock = clock

    def containers(self) -> tuple[RunningContainer, ...]:
        """All containers of the pods, also of pods that start, end or are being deleted.

        Raises: UsageError with what exists; Unavailable with the permission that is missing;
        Inconclusive for an answer that cannot be understood or is over a limit.
        """
        with KubernetesApi.connected(self._config, self._clock) as api, self._understood():
            pods = self._pods(api)
            platforms = _Platforms(api)
            found = [each for pod in pods for each in _containers(pod, platforms)]
        if not found:
            raise Inconclusive("the pods have no containers", where=self._place)
        return tuple(found)

    def drift(self, container: RunningContainer) -> tuple[ChangedFile, ...] | None:
        """Nothing for a read-only root file system, else None.

        An API server does not show a container's writable layer.
        """
        return () if container.read_only else None

    @property
    def _place(self) -> str:
        workload = f"/{self._kind}/{self._name}" if self._kind else ""
        return f"k8s://{self._namespace}{workload}"

    @contextmanager
    def _understood(self) -> Iterator[None]:
        """An object of a shape that Kubernetes does not have says nothing about containers."""
        try:
            yield
        except VerificationFailed as error:
            raise Inconclusive(f"cannot understand {error}", where=self._config.server) from None

    def _pods(self, api: KubernetesApi) -> list[dict[str, Any]]:
        if self._kind == "pod":
            pod = api.get(_PODS, self._namespace, self._name or "")
            if pod is None:
                raise self._missing(api, _PODS)
            return [pod]
        workload = _WORKLOADS[self._kind] if self._kind else None
        root = None if workload is None else self._uid(api, workload)
        pods = api.read_all(_PODS, self._namespace)
        if workload is not None and root is not None:
            pods = self._owned(api, pods, workload, root)
        if not pods:
            raise self._empty(api)
        return pods

    def _uid(self, api: KubernetesApi, workload: _Workload) -> str:
        found = api.get(workload.resource, self._namespace, self._name or "")
        if found is None:
            raise self._missing(api, workload.resource)
        return _uid(found)

    def _owned(
        self, api: KubernetesApi, pods: list[dict[str, Any]], workload: _Workload, root: str
    ) -> list[dict[str, Any]]:
        """The pods whose controller is the workload, or is controlled by it.

        By uid: a label can be put on anything, and a name can be used again. What stands
        between is read after the pods, so that it is there for each of them.
        """
        owners = {root}
        if workload.through is not None:
            between = api.read_all(workload.through, self._namespace)
            owners = {_uid(item) for item in between if _controller(item) == root}
        return [pod for pod in pods if _controller(pod) in owners]

    def _missing(self, api: KubernetesApi, resource: Resource) -> UsageError:
        """What was named does not exist: say what does, if that may be read."""
        try:
            names = [_name(item) for item in api.read_all(resource, self._namespace)]
        except Forbidden:
            names = []
        if not names:
            return self._empty(api, f"no {self._kind} is called {self._name!r}")
        return UsageError(
            f"no {self._kind} is called {self._name!r}",
            where=f"k8s://{self._namespace}",
            hint=f"there is: {_some(names)}",
        )

    def _empty(self, api: KubernetesApi, message: str = "no pods") -> UsageError:
        """Nothing was found; the namespace itself may be missing."""
        try:
            exists = api.get(_NAMESPACES, "", self._namespace) is not None
            names = [] if exists else [_name(item) for item in api.read_all(_NAMESPACES, "")]
        except Forbidden:
            return UsageError(
                f"{message}, or no such namespace", where=self._place, hint=self._look()
            )
        if exists:
            return UsageError(message, where=self._place, hint=self._look())
        return UsageError(
            f"no namespace is called {self._namespace!r}",
            where=self._config.server,
            hint=f"there is: {_some(names)}",
        )

    def _look(self) -> str:
        return f"kubectl get pods -n {self._namespace} shows what there is"


class _Platforms:
    """os/architecture of nodes, each asked once; unknown where nodes may not be read."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api
        self._known: dict[str, str | None] = {}
        self._allowed = True

    def of(self, node: str) -> str | None:
        if node and self._allowed and node not in self._known:
            try:
                self._known[node] = _platform(self._api.get(_NODES, "", node))
            except Forbidden:
                self._allowed = False
        return self._known.get(node)


def _platform(node: Mapping[str, Any] | None) -> str | None:
    if node is None:
        return None
    where = f"node {_name(node)}"
    info = shape.member(shape.member(node, "status", dict, where), "nodeInfo", dict, where)
    parts = [shape.optional(info, key, str, where) for key in ("operatingSystem", "architecture")]
    return "/".join(parts) if all(parts) else None


def _containers(pod: Mapping[str, Any], platforms: _Platforms) -> Iterator[RunningContainer]:
    """Each container of the specification, with its status or without; each other status."""
    metadata = shape.member(pod, "metadata", dict, "a pod")
    place = f"k8s://{shape.member(metadata, 'namespace', str, 'a pod')}/{_name(pod)}"
    spec = shape.member(pod, "spec", dict, place)
    status = shape.optional(pod, "status", dict, place) or {}
    platform = platforms.of(shape.optional(spec, "nodeName", str, place) or "")
    for list_name, status_name in _LISTS:
        asked = _by_name(spec, list_name, place)
        known = _by_name(status, status_name, place)
        for name in [*asked, *(other for other in known if other not in asked)]:
            wanted, reported = asked.get(name, {}), known.get(name, {})
            where = f"{place}#{name}"
            yield _container(where, _kind(list_name, wanted, where), wanted, reported, platform)


def _container(
    where: str,
    kind: ContainerKind,
    wanted: Mapping[str, Any],
    reported: Mapping[str, Any],
    platform: str | None,
) -> RunningContainer:
    image = _image(shape.optional(reported, "imageID", str, where) or "")
    state = shape.optional(reported, "state", dict, where) or {}
    running = shape.optional(state, "running", dict, where)
    ended = shape.optional(state, "terminated", dict, where)
    security = shape.optional(wanted, "securityContext", dict, where) or {}
    return RunningContainer(
        place=where,
        id=_SCHEME.sub("", shape.optional(reported, "containerID", str, where) or "", count=1),
        kind=kind,
        running=running is not None,
        asked=shape.optional(wanted, "image", str, where) or "",
        image=image,
        names=(image,) if _NAMED.match(image) else (),
        platform=platform,
        read_only=shape.optional(security, "readOnlyRootFilesystem", bool, where) is True,
        started=shape.optional(running or ended or {}, "startedAt", str, where) or "",
    )


def _image(reported: str) -> str:
    """``sha256:<hex>`` or ``name@sha256:<hex>`` of a status' imageID; "" for anything else.

    dockershim: ``docker-pullable://name@sha256:…`` and ``docker://sha256:…``; containerd:
    ``name@sha256:…``, ``sha256:…`` for an image that was imported; CRI-O: bare hex too.
    """
    text = _SCHEME.sub("", reported, count=1)
    bare = _DIGEST.match(text)
    if bare:
        return f"sha256:{bare[1]}"
    return text if _NAMED.match(text) else ""


def _kind(list_name: str, wanted: Mapping[str, Any], where: str) -> ContainerKind:
    if list_name == "containers":
        return ContainerKind.MAIN
    if list_name == "ephemeralContainers":
        return ContainerKind.EPHEMERAL
    always = shape.optional(wanted, "restartPolicy", str, where) == "Always"
    return ContainerKind.SIDECAR if always else ContainerKind.INIT


def _by_name(parent: Mapping[str, Any], name: str, where: str) -> dict[str, dict[str, Any]]:
    items = shape.objects(parent, name, where, limit=MAX_CONTAINERS)
    found = {shape.member(item, "name", str, f"{where} {name}"): item for item in items}
    if len(found) != len(items):
        raise VerificationFailed(f"two {name} have one name", where=where)
    return found


def _controller(item: Mapping[str, Any]) -> str | None:
    """The uid of what manages an object, if anything does."""
    where = _name(item)
    metadata = shape.member(item, "metadata", dict, where)
    for owner in shape.objects(metadata, "ownerReferences", where, limit=MAX_OWNERS):
        if shape.optional(owner, "controller", bool, where) is True:
            return str(shape.member(owner, "uid", str, where))
    return None


def _uid(item: Mapping[str, Any]) -> str:
    return str(shape.member(shape.member(item, "metadata", dict, "an object"), "uid", str, "it"))


def _name(item: Mapping[str, Any]) -> str:
    return str(shape.member(shape.member(item, "metadata", dict, "an object"), "name", str, "it"))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(sorted(names)[:_SHOWN]) or "nothing") + more


def _checked(text: str, pattern: re.Pattern[str], what: str) -> str:
    if not pattern.match(text):
        raise UsageError(
            f"{text[:100]!r} is no {what} of Kubernetes",
            hint="lower-case letters, digits and '-': k8s://NAMESPACE/KIND/NAME",
        )
    return text


def _known(kind: str) -> str:
    try:
        return _KINDS[kind.lower()]
    except KeyError:
        raise UsageError(
            f"{kind[:100]!r} is no kind that runs pods",
            hint=f"one of: pod, {', '.join(_WORKLOADS)}",
        ) from None
