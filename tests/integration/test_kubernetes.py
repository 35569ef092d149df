"""The Kubernetes runtime against a real API server, kubelet and containerd."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.api import until
from cluster.asking import by_container, pods, refused, runtime
from cluster.images import busybox_image
from cluster.kubernetes import Cluster
from cluster.objects import (
    APPS,
    BATCH,
    CORE,
    container,
    make_namespace,
    pod_spec,
    running_pods,
    workload,
)
from fakes.registry import push_layout
from secure_pipeline.errors import UsageError
from secure_pipeline.oci.layout import Layout
from secure_pipeline.ports import ContainerKind
from secure_pipeline.tools.pins import this_platform

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("cluster")]
SLEEP = ["/bin/sleep", "1000000"]


@dataclass(frozen=True)
class Images:
    """What the cluster can run, by its names, and the digests behind them."""

    pulled: str
    pulled_digest: str
    """Of the manifest in the registry."""
    imported: str
    imported_config: str
    """Of the config of an image that no registry has."""


@pytest.fixture(scope="module", autouse=True)
def _inside(cluster: Cluster) -> Iterator[None]:
    """Each test of this module talks in the cluster's network."""
    with cluster.network():
        yield


@pytest.fixture(scope="module")
def images(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, _inside: None) -> Images:
    directory = tmp_path_factory.mktemp("images")
    pulled = busybox_image(directory / "a", "1", SLEEP, {"made": b"a"})
    push_layout(Layout.open(directory / "a"), cluster.registry, "shop/service")
    imported = busybox_image(directory / "b", "1", SLEEP, {"made": b"b"})
    cluster.import_image(directory / "b", "localhost/imported")
    config = Layout.open(directory / "b").read_manifest(imported).config
    return Images(
        f"{cluster.registry}/shop/service:1",
        str(pulled.digest),
        "localhost/imported:1",
        str(config.digest),
    )


@pytest.fixture(scope="module")
def shop(cluster: Cluster, images: Images) -> str:
    """A namespace with a Deployment of every kind of container."""
    make_namespace(cluster.api, "shop")
    spec = pod_spec(
        container("web", images.pulled, securityContext={"readOnlyRootFilesystem": True}),
        container("worker", images.imported),
        initContainers=[
            container("migrate", images.pulled, command=["/bin/sh", "-c", "exit 0"]),
            container("proxy", images.imported, restartPolicy="Always"),
        ],
    )
    place = f"{APPS}/namespaces/shop/deployments"
    cluster.api.create(place, workload("service", spec, replicas=2))
    pods = running_pods(cluster.api, "shop", "service", 2)
    _attach(cluster, "shop", pods[0]["metadata"]["name"], images.imported)
    return "shop"


def _attach(cluster: Cluster, namespace: str, pod: str, image: str) -> None:
    path = f"{CORE}/namespaces/{namespace}/pods/{pod}"
    shell = container("debug", image, command=SLEEP)
    cluster.api.patch(f"{path}/ephemeralcontainers", {"spec": {"ephemeralContainers": [shell]}})

    def started() -> bool:
        known = cluster.api.get(path)["status"].get("ephemeralContainerStatuses", [])
        return any("running" in item["state"] for item in known)

    until("ephemeral container", started)


def test_every_kind_of_container_is_reported(cluster: Cluster, shop: str) -> None:
    """Main, init, sidecar and ephemeral containers are all there, with what became of them."""
    found = by_container(runtime(cluster, shop, "deployment", "service").containers())
    kinds = {name: {(item.kind, item.running) for item in items} for name, items in found.items()}
    assert kinds == {
        "web": {(ContainerKind.MAIN, True)},
        "worker": {(ContainerKind.MAIN, True)},
        "migrate": {(ContainerKind.INIT, False)},
        "proxy": {(ContainerKind.SIDECAR, True)},
        "debug": {(ContainerKind.EPHEMERAL, True)},
    }
    assert {name: len(items) for name, items in found.items()} == {
        "web": 2, "worker": 2, "migrate": 2, "proxy": 2, "debug": 1,
    }  # fmt: skip
    for item in (item for items in found.values() for item in items):
        assert item.platform == this_platform()
        assert item.place.startswith("k8s://shop/service-")
        assert len(item.id) == 64
        assert item.started.endswith("Z")


def test_two_listings_agree(cluster: Cluster, shop: str) -> None:
    """What did not change is equal when it is listed again."""
    asked = runtime(cluster, shop)
    assert set(asked.containers()) == set(asked.containers())


def test_reg_05_each_form_of_an_image_id(cluster: Cluster, shop: str, images: Images) -> None:
    """A pulled image is its manifest under its name; an imported one is its bare config."""
    found = by_container(runtime(cluster, shop, "deployment", "service").containers())
    name = f"{cluster.registry}/shop/service@{images.pulled_digest}"
    for item in found["web"] + found["migrate"]:
        assert (item.image, item.names, item.asked) == (name, (name,), images.pulled)
    for item in found["worker"] + found["proxy"] + found["debug"]:
        assert (item.image, item.names) == (images.imported_config, ())


def test_reg_06_what_runs_and_not_what_was_asked_for(
    cluster: Cluster, images: Images, tmp_path: Path
) -> None:
    """A tag that was poisoned on the node: the specification is the same, the answer is not."""
    make_namespace(cluster.api, "poisoned")
    for content in (b"good", b"bad"):
        layout = tmp_path / content.decode()
        manifest = busybox_image(layout, "1", SLEEP, {"made": content})
        cluster.import_image(layout, "localhost/poisoned")
        body = {
            "metadata": {"name": content.decode(), "labels": {"app": content.decode()}},
            "spec": pod_spec(container("main", "localhost/poisoned:1")),
        }
        cluster.api.create(f"{CORE}/namespaces/poisoned/pods", body)
        running_pods(cluster.api, "poisoned", content.decode())
        (item,) = runtime(cluster, "poisoned", "pod", content.decode()).containers()
        assert item.asked == "localhost/poisoned:1"
        assert item.image == str(Layout.open(layout).read_manifest(manifest).config.digest)


def test_a_restart_is_seen(cluster: Cluster, images: Images) -> None:
    """A container that was restarted has another id."""
    make_namespace(cluster.api, "restarts")
    spec = pod_spec(container("main", images.pulled, command=["/bin/sleep", "1"]))
    body = {"metadata": {"name": "short"}, "spec": spec}
    cluster.api.create(f"{CORE}/namespaces/restarts/pods", body)
    seen: set[str] = set()

    def twice() -> bool:
        (item,) = runtime(cluster, "restarts").containers()
        seen.add(item.id)
        return len(seen - {""}) > 1

    until("restart", twice)


def test_only_a_read_only_container_is_known_not_to_drift(cluster: Cluster, shop: str) -> None:
    """An API server does not show writable layers: None, unless there is none to write to."""
    asked = runtime(cluster, shop, "deployment", "service")
    drifts = {(item.read_only, asked.drift(item)) for item in asked.containers()}
    assert drifts == {(True, ()), (False, None)}


@pytest.mark.parametrize(
    ("kind", "place", "more"),
    [
        ("statefulset", f"{APPS}/namespaces/NS/statefulsets", {"serviceName": "none"}),
        ("daemonset", f"{APPS}/namespaces/NS/daemonsets", {}),
        ("replicaset", f"{APPS}/namespaces/NS/replicasets", {}),
        ("deployment", f"{APPS}/namespaces/NS/deployments", {}),
    ],
)
def test_a_workload_is_its_own_pods(
    cluster: Cluster, images: Images, kind: str, place: str, more: dict[str, str]
) -> None:
    """Ownership decides: not a label, which another pod has as well, nor a like name."""
    namespace = f"own-{kind}"
    make_namespace(cluster.api, namespace)
    spec = pod_spec(container("main", images.pulled))
    place = place.replace("NS", namespace)
    cluster.api.create(place, workload("one", spec, **more))
    cluster.api.create(place, workload("one-more", spec, **more))
    (mine,) = running_pods(cluster.api, namespace, "one")
    running_pods(cluster.api, namespace, "one-more")
    stranger = {
        "metadata": {
            "name": "one-stranger",
            "labels": {"app": "one"},
            # Named like a controller's, so that nothing adopts it, but by nothing that exists.
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Thing", "name": "one", "controller": True,
                 "uid": "00000000-0000-0000-0000-000000000000"},
            ],
        },
        "spec": {**spec, "nodeName": "none"},
    }  # fmt: skip
    cluster.api.create(f"{CORE}/namespaces/{namespace}/pods", stranger)
    assert pods(runtime(cluster, namespace, kind, "one").containers()) == {mine["metadata"]["name"]}
    refusal = refused(runtime(cluster, namespace, kind, "two"), UsageError)
    assert f"no {kind} is called 'two'" in str(refusal)
    assert "one, one-more" in str(refusal.hint)


def test_jobs_and_cron_jobs(cluster: Cluster, images: Images) -> None:
    """The pods of a Job, and of all Jobs of a CronJob, are found."""
    make_namespace(cluster.api, "jobs")
    spec = pod_spec(container("main", images.pulled), restartPolicy="Never")
    job = {"template": {"spec": spec}}
    place = f"{BATCH}/namespaces/jobs"
    cluster.api.create(f"{place}/jobs", {"metadata": {"name": "once"}, "spec": job})
    cron = {"schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": {"spec": job}}
    body = {"metadata": {"name": "nightly"}, "spec": cron}
    uid = cluster.api.create(f"{place}/cronjobs", body)["metadata"]["uid"]
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": uid}
    metadata = {"name": "nightly-1", "ownerReferences": [{**owner, "controller": True}]}
    cluster.api.create(f"{place}/jobs", {"metadata": metadata, "spec": job})

    def found(kind: str, name: str) -> bool:
        try:
            names = pods(runtime(cluster, "jobs", kind, name).containers())
        except UsageError:
            return False
        prefix = {"cronjob": "nightly-1-", "job": "once-"}[kind]
        return len(names) == 1 and all(item.startswith(prefix) for item in names)

    until("pod of the job", lambda: found("job", "once"))
    until("pod of the cron job", lambda: found("cronjob", "nightly"))


def test_namespaces_are_apart(cluster: Cluster, shop: str, images: Images) -> None:
    """A namespace is all its pods and no other's."""
    make_namespace(cluster.api, "office")
    body = {
        "metadata": {"name": "desk", "labels": {"app": "desk"}},
        "spec": pod_spec(container("main", images.pulled)),
    }
    cluster.api.create(f"{CORE}/namespaces/office/pods", body)
    running_pods(cluster.api, "office", "desk")
    assert pods(runtime(cluster, "office").containers()) == {"desk"}
    assert len(pods(runtime(cluster, shop).containers())) == 2
    assert "no pod is called" in str(refused(runtime(cluster, shop, "pod", "desk"), UsageError))


def test_pods_that_wait_or_go_are_listed(cluster: Cluster, images: Images) -> None:
    """A pod without a node and one that is being deleted are there; more than one page is read."""
    make_namespace(cluster.api, "many")
    place = f"{CORE}/namespaces/many/pods"
    going = {
        "metadata": {"name": "going", "labels": {"app": "going"}, "finalizers": ["tests/keep"]},
        "spec": pod_spec(container("main", images.pulled)),
    }
    cluster.api.create(place, going)
    running_pods(cluster.api, "many", "going")
    cluster.api.delete(f"{place}/going")
    waiting = pod_spec(container("main", images.pulled), nodeSelector={"on": "nothing"})
    for number in range(120):
        body = {"metadata": {"name": f"waiting-{number}"}, "spec": waiting}
        cluster.api.create(place, body)
    found = runtime(cluster, "many").containers()
    assert len(pods(found)) == 121
    for item in found:
        if "waiting" in item.place:
            assert (item.image, item.running, item.id) == ("", False, "")
            assert item.platform is None
    cluster.api.patch(f"{place}/going", {"metadata": {"finalizers": None}})
