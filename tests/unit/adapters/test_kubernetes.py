"""The Kubernetes runtime against answers that a good server never gives.

The good ones are shown on a real cluster (tests/integration/test_kubernetes.py).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.kubernetesapi import FakeApi, fake_api
from secure_pipeline.adapters import kubeapi
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.kubernetes import KubernetesRuntime
from secure_pipeline.errors import Inconclusive, PipelineError, Unavailable, UsageError
from secure_pipeline.ports import ContainerKind, RunningContainer

PODS = "/api/v1/namespaces/shop/pods"
NODE = "/api/v1/nodes/node"
HEX = "0123456789abcdef" * 4
OTHER = "f" * 64


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeApi]:
    with fake_api(tmp_path_factory.mktemp("api")) as api:
        yield api


@pytest.fixture
def api(server: FakeApi) -> FakeApi:
    """The server without anything."""
    for kept in (server.objects, server.replies, server.seen):
        kept.clear()
    return server


def runtime(api: FakeApi, kind: str | None = None, name: str | None = None) -> KubernetesRuntime:
    return KubernetesRuntime("shop", kind, name, config=api.config, clock=SystemClock())


def pod(name: str, /, *, owner: str | None = None, **status: Any) -> dict[str, Any]:
    """A pod of one container, whose status has these members."""
    owners = [{"uid": owner, "controller": True}] if owner else []
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "ownerReferences": owners}
    spec = {"containers": [{"name": "main", "image": "asked:1"}], "nodeName": "node"}
    reported = {"name": "main", "state": {"running": {"startedAt": "T"}}, **status}
    return {"metadata": metadata, "spec": spec, "status": {"containerStatuses": [reported]}}


def found(api: FakeApi, **status: Any) -> RunningContainer:
    api.objects[PODS] = [pod("one", **status)]
    (container,) = runtime(api).containers()
    return container


def refusal(asked: KubernetesRuntime, kind: type[PipelineError]) -> str:
    with pytest.raises(kind) as caught:
        asked.containers()
    text = f"{caught.value} {caught.value.hint}"
    assert "s3cret" not in text
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("reported", "image"),
    [
        (f"docker-pullable://registry.example/a@sha256:{HEX}", f"registry.example/a@sha256:{HEX}"),
        (f"docker://sha256:{HEX}", f"sha256:{HEX}"),
        (f"registry.example:5000/a/b@sha256:{HEX}", f"registry.example:5000/a/b@sha256:{HEX}"),
        (f"sha256:{HEX}", f"sha256:{HEX}"),
        (HEX, f"sha256:{HEX}"),
        ("", ""),
        ("registry.example/a:1", ""),
        (f"sha512:{HEX}{HEX}", ""),
        (f"sha256:{HEX.upper()}", ""),
        (f"sha256:{HEX}\n", ""),
        (f"a@b@sha256:{HEX}", ""),
        (f"a@sha256:{HEX[:-1]}", ""),
        (f"@sha256:{HEX}", ""),
    ],
)
def test_reg_05_forms_of_an_image_id(api: FakeApi, reported: str, image: str) -> None:
    """What each runtime reports becomes a digest; every other form becomes nothing."""
    container = found(api, imageID=reported)
    assert container.image == image
    assert container.names == ((image,) if "@" in image else ())


def test_reg_06_the_specification_is_not_believed(api: FakeApi) -> None:
    """A digest in the specification, an annotation or the status' own name counts for nothing."""
    listed = pod("one", image=f"good@sha256:{HEX}", imageID=f"bad@sha256:{OTHER}")
    listed["spec"]["containers"][0]["image"] = f"good@sha256:{HEX}"
    listed["metadata"]["annotations"] = {"image": f"good@sha256:{HEX}"}
    unknown = pod("two", image=f"good@sha256:{HEX}")
    unknown["spec"]["containers"][0]["image"] = f"good@sha256:{HEX}"
    api.objects[PODS] = [listed, unknown]
    assert [item.image for item in runtime(api).containers()] == [f"bad@sha256:{OTHER}", ""]


def test_every_list_of_containers_is_read(api: FakeApi) -> None:
    """Containers without a status and a status without a container are reported as well."""
    listed = pod("one", imageID=f"a@sha256:{HEX}", containerID="containerd://abc")
    listed["spec"]["initContainers"] = [
        {"name": "init", "image": "i"},
        {"name": "side", "image": "s", "restartPolicy": "Always"},
    ]
    ended = {"terminated": {"startedAt": "T0", "exitCode": 0}}
    listed["status"]["initContainerStatuses"] = [
        {"name": "init", "imageID": HEX, "state": ended},
        {"name": "side", "imageID": HEX, "state": {"running": {}}},
    ]
    listed["status"]["ephemeralContainerStatuses"] = [{"name": "debug", "imageID": OTHER}]
    listed["spec"]["containers"].append({"name": "late", "image": "l"})
    api.objects[PODS] = [listed]
    containers = {item.place.partition("#")[2]: item for item in runtime(api).containers()}
    assert {name: (item.kind, item.running) for name, item in containers.items()} == {
        "main": (ContainerKind.MAIN, True),
        "late": (ContainerKind.MAIN, False),
        "init": (ContainerKind.INIT, False),
        "side": (ContainerKind.SIDECAR, True),
        "debug": (ContainerKind.EPHEMERAL, False),
    }
    assert containers["main"].id == "abc"
    assert containers["late"].image == ""
    assert (containers["init"].started, containers["late"].started) == ("T0", "")
    assert containers["debug"].image == f"sha256:{OTHER}"


def test_platforms_are_asked_once_a_node(api: FakeApi) -> None:
    """Two pods of one node cost one question; a refusal ends the asking and harms nothing."""
    info = {"operatingSystem": "linux", "architecture": "arm64"}
    api.objects[NODE] = {"metadata": {"name": "node"}, "status": {"nodeInfo": info}}
    api.objects[PODS] = [pod("one"), pod("two")]
    assert {item.platform for item in runtime(api).containers()} == {"linux/arm64"}
    assert [path for path, _ in api.seen].count(NODE) == 1
    for refused in (b"{}", b"", b"<html>", b'{"message": 5}'):
        api.replies[NODE] = (403, refused)
        api.seen.clear()
        assert {item.platform for item in runtime(api).containers()} == {None}
        assert [path for path, _ in api.seen].count(NODE) == 1


def test_ownership_is_by_uid(api: FakeApi) -> None:
    """Of a Deployment are the pods of its own ReplicaSets, whatever others are called."""
    deployment = {"metadata": {"name": "web", "uid": "d"}}
    api.objects["/apis/apps/v1/namespaces/shop/deployments/web"] = deployment
    sets = [("new", "d"), ("old", "d"), ("strange", "x")]
    api.objects["/apis/apps/v1/namespaces/shop/replicasets"] = [
        {"metadata": {"name": name, "uid": name,
                      "ownerReferences": [{"uid": owner, "controller": True}]}}
        for name, owner in sets
    ]  # fmt: skip
    mentioned = pod("mentioned")
    mentioned["metadata"]["ownerReferences"] = [{"uid": "new"}, {"uid": "d", "controller": False}]
    owners = {"a": "new", "b": "old", "c": "strange", "d": None, "e": "d"}
    api.objects[PODS] = [*(pod(name, owner=owner) for name, owner in owners.items()), mentioned]
    names = [item.place for item in runtime(api, "deploy", "web").containers()]
    assert names == ["k8s://shop/a#main", "k8s://shop/b#main"]


def test_all_pages_are_read(api: FakeApi) -> None:
    """A list that comes in chunks is read to its end."""
    api.objects[PODS] = [pod(f"pod-{number}") for number in range(250)]
    assert len(runtime(api).containers()) == 250
    assert [path for path, _ in api.seen if PODS in path][-1] == f"{PODS}?limit=100&continue=200"


@pytest.mark.parametrize("count", [0, 100])
def test_a_list_without_an_end_is_inconclusive(
    api: FakeApi, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many pods, and pages that never end, are no answer."""
    monkeypatch.setattr(kubeapi, "MAX_ITEMS", 300)
    monkeypatch.setattr(kubeapi, "MAX_PAGES", 6)
    page = {"metadata": {"continue": "more"}, "items": [pod(f"p{n}") for n in range(count)]}
    api.replies[PODS] = (200, json.dumps(page).encode())
    assert "more than 300 pods" in refusal(runtime(api), Inconclusive)
    assert len(api.seen) <= 6


def test_nothing_is_followed(api: FakeApi) -> None:
    """A redirect is no answer, and the credential is sent once, to the server alone (REG-10)."""

    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(307)
        handler.send_header("Location", f"{api.server}/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    api.replies[PODS] = redirect
    assert "answered 307 to list pods" in refusal(runtime(api), Unavailable)
    assert [path for path, _ in api.seen] == [f"{PODS}?limit=100"]
    assert api.seen[0][1]["Authorization"] == "Bearer s3cret.token"


def test_a_slow_answer_ends_with_the_deadline(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then does not keep anyone waiting longer than the deadline."""
    monkeypatch.setattr(kubeapi, "TOTAL_SECONDS", 0.5)
    over = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not over.wait(0.05):
            handler.wfile.write(b" ")

    api.replies[PODS] = drip
    try:
        assert "no whole answer within" in refusal(runtime(api), Unavailable)
    finally:
        over.set()


def test_a_large_answer_is_refused(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the limit is not read to its end."""
    monkeypatch.setattr(kubeapi, "MAX_ANSWER_BYTES", 1000)
    api.replies[PODS] = (200, b" " * 100_000)
    assert "larger than 1000 bytes" in refusal(runtime(api), Unavailable)


@pytest.mark.parametrize(
    ("code", "body", "says"),
    [
        (200, b"", "not JSON"),
        (200, b"[]", "not a JSON object"),
        (200, b"{}", "no list of pods"),
        (200, b'{"items": []}', "next page"),
        (200, b'{"items": [1], "metadata": {}}', "no list of pods"),
        (200, b'{"items": [], "items": [], "metadata": {}}', "duplicate member"),
        (200, b'{"items": [], "metadata": {"continue": 5}}', "next page"),
        (404, b"{}", "knows no pods"),
        (401, b"", "does not accept the credential"),
        (403, b"<html>", "this credential may not list pods in namespace shop"),
        (403, b'{"message": "User \\"a\\u0007\\" cannot"}', "this credential may not"),
        (403, b'{"message": "pods is forbidden: User \\"it\'s me\\" cannot"}', "it's me may not"),
        (410, b"{}", "try again"),
        (429, b"", "answered 429 to list pods"),
        (500, b"\xff", "answered 500 to list pods"),
    ],
)
def test_other_answers_are_unavailable(api: FakeApi, code: int, body: bytes, says: str) -> None:
    """Nothing but a whole list counts; the error says what came, never what was sent."""
    api.replies[PODS] = (code, body)
    text = refusal(runtime(api), Unavailable)
    assert says in text
    assert api.server in text


def test_a_cut_answer_is_unavailable(api: FakeApi) -> None:
    """A connection that ends early gave no answer."""

    def cut(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b'{"items": [], "metadata": {}}')

    api.replies[PODS] = cut
    assert "no answer" in refusal(runtime(api), Unavailable)


@pytest.mark.parametrize(
    "change",
    [
        {"imageID": 5},
        {"state": []},
        {"state": {"running": "yes"}},
        {"name": None},
        {"containerID": {}},
    ],
)
def test_a_status_of_another_shape_is_inconclusive(api: FakeApi, change: dict[str, Any]) -> None:
    """What Kubernetes cannot have said tells nothing about what runs."""
    api.objects[PODS] = [pod("one", **change)]
    assert "cannot understand" in refusal(runtime(api), Inconclusive)


def test_two_containers_of_one_name_are_inconclusive(api: FakeApi) -> None:
    """One of them would be hidden by the other."""
    listed = pod("one", imageID=HEX)
    listed["status"]["containerStatuses"].append({"name": "main", "imageID": OTHER})
    api.objects[PODS] = [listed]
    assert "have one name" in refusal(runtime(api), Inconclusive)


def test_pods_without_containers_are_inconclusive(api: FakeApi) -> None:
    """A pod has containers, so a list of none is not believed."""
    api.objects[PODS] = [{"metadata": {"name": "one", "namespace": "shop"}, "spec": {}}]
    assert "no containers" in refusal(runtime(api), Inconclusive)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(
        st.sampled_from(
            ["name", "image", "imageID", "state", "running", "startedAt", "containers", "metadata",
             "containerStatuses", "initContainers", "ownerReferences", "uid", "securityContext"]
        ),
        inner,
        max_size=3,
    ),
    max_leaves=8,
)  # fmt: skip


@given(spec=_VALUES, status=_VALUES, metadata=_VALUES)
def test_any_pod_is_understood_or_refused(
    server: FakeApi, spec: Any, status: Any, metadata: Any
) -> None:
    """No pod makes anything but containers or one of our errors."""
    server.replies.clear()
    described = {"name": "one", "namespace": "shop"}
    if isinstance(metadata, dict):
        described |= metadata
    page = {"metadata": {}, "items": [{"metadata": described, "spec": spec, "status": status}]}
    server.replies[PODS] = (200, json.dumps(page).encode())
    with suppress(Inconclusive, Unavailable):
        assert runtime(server).containers()


@pytest.mark.parametrize(
    ("namespace", "kind", "name"),
    [
        ("../x", None, None),
        ("Shop", None, None),
        ("", None, None),
        ("a" * 64, None, None),
        ("shop", "service", "a"),
        ("shop", "deployment/../pod", "a"),
        ("shop", "pod", "a/b"),
        ("shop", "pod", "a%2fb"),
        ("shop", "pod", "a?b"),
        ("shop", "pod", None),
        ("shop", None, "a"),
    ],
)
def test_vlt_13_names_never_reach_a_path(
    api: FakeApi, namespace: str, kind: str | None, name: str | None
) -> None:
    """What cannot be a name is refused before anything is sent."""
    with pytest.raises(UsageError) as caught:
        KubernetesRuntime(namespace, kind, name, config=api.config, clock=SystemClock())
    assert caught.value.hint
    assert api.seen == []
