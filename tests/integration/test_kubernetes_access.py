"""Who may ask a real API server, and what is said to one who may not or who errs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from cluster.api import until
from cluster.asking import answer_or_none, pods, refused, runtime
from cluster.credentials import Authority, write_kubeconfig
from cluster.images import busybox_image
from cluster.kubernetes import Cluster
from cluster.namespaces import SERVICE_ADDRESS
from cluster.objects import (
    APPS,
    CORE,
    allow,
    container,
    make_namespace,
    pod_spec,
    running_pods,
    workload,
)
from fakes.workplace import ROOT
from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.adapters.kubeconfig import KubernetesConfig
from secure_pipeline.adapters.kubernetes import KubernetesRuntime
from secure_pipeline.errors import Unavailable, UsageError

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("cluster")]


@pytest.fixture(scope="module", autouse=True)
def _inside(cluster: Cluster) -> Iterator[None]:
    """Each test of this module talks in the cluster's network."""
    with cluster.network():
        yield


@pytest.fixture(scope="module")
def guarded(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, _inside: None) -> str:
    """A namespace with one pod, which serves the files that Kubernetes put into it."""
    layout = tmp_path_factory.mktemp("image") / "layout"
    mounted = "/var/run/secrets/kubernetes.io/serviceaccount"
    busybox_image(layout, "1", ["/bin/httpd", "-f", "-p", "8080", "-h", mounted])
    cluster.import_image(layout, "localhost/httpd")
    make_namespace(cluster.api, "guarded")
    body = {
        "metadata": {"name": "main", "labels": {"app": "main"}},
        "spec": pod_spec(container("main", "localhost/httpd:1")),
    }
    cluster.api.create(f"{CORE}/namespaces/guarded/pods", body)
    running_pods(cluster.api, "guarded", "main")
    return "guarded"


def test_nothing_there_is_a_usage_error(cluster: Cluster) -> None:
    """An empty namespace, a missing namespace and a workload of none are never an answer."""
    make_namespace(cluster.api, "empty")
    assert "no pods" in str(refused(runtime(cluster, "empty"), UsageError))
    missing = refused(runtime(cluster, "emtpy"), UsageError)
    assert "no namespace is called 'emtpy'" in str(missing)
    assert "empty" in str(missing.hint)
    spec = pod_spec(container("main", "none"))
    place = f"{APPS}/namespaces/empty/deployments"
    cluster.api.create(place, workload("idle", spec, replicas=0))
    assert "no pods" in str(refused(runtime(cluster, "empty", "deployment", "idle"), UsageError))


def test_permissions_decide_what_is_seen(cluster: Cluster, guarded: str) -> None:
    """One who may list pods sees them, without platforms; a refusal says what to allow."""
    reader = cluster.account(guarded, "reader")
    refusal = refused(runtime(cluster, guarded, kubeconfig=reader), Unavailable)
    assert str(refusal) == (
        f"{cluster.api.server}: system:serviceaccount:guarded:reader may not list pods in"
        " namespace guarded"
    )
    assert refusal.hint == (
        "kubectl create role secure-pipeline-list-pods --verb=list --resource=pods -n guarded"
        " && kubectl create rolebinding secure-pipeline-list-pods"
        " --role=secure-pipeline-list-pods --serviceaccount=guarded:reader -n guarded"
    )
    allow(
        cluster.api,
        guarded,
        "reader",
        [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
    )
    asked = runtime(cluster, guarded, kubeconfig=reader)
    found = until("permission", lambda: answer_or_none(asked))
    assert [(item.place, item.platform) for item in found] == [("k8s://guarded/main#main", None)]
    asked = runtime(cluster, guarded, "pod", "main", reader)
    assert "may not get pods in namespace guarded" in str(refused(asked, Unavailable))
    elsewhere = refused(runtime(cluster, "default", kubeconfig=reader), Unavailable)
    assert "may not list pods in namespace default" in str(elsewhere)


def test_the_documented_role_is_enough(cluster: Cluster) -> None:
    """With the rules of the how-to page every kind of target is answered."""
    make_namespace(cluster.api, "documented")
    spec = pod_spec(container("main", "none"))
    place = f"{APPS}/namespaces/documented/deployments"
    cluster.api.create(place, workload("service", spec))
    reader = cluster.account("documented", "reader")
    allow(cluster.api, "documented", "reader", documented_rules())
    asked = runtime(cluster, "documented", "deployment", "service", reader)
    (found,) = until("permission", lambda: answer_or_none(asked) or None)
    assert found.asked == "none"
    name = found.place.removeprefix("k8s://documented/").partition("#")[0]
    assert pods(runtime(cluster, "documented", "pod", name, reader).containers()) == {name}
    for kind in ("statefulset", "daemonset", "replicaset", "job", "cronjob"):
        asked = runtime(cluster, "documented", kind, "absent", reader)
        assert f"no {kind} is called 'absent'" in str(refused(asked, UsageError))


def documented_rules() -> list[dict[str, Any]]:
    """The rules of the one Role in the how-to page."""
    page = (ROOT / "docs/how-to/verify-kubernetes.md").read_text()
    blocks = [part.partition("```")[0] for part in page.split("```yaml")[1:]]
    documents = [document for block in blocks for document in yaml.safe_load_all(block)]
    (role,) = [document for document in documents if document["kind"] == "Role"]
    rules = role["rules"]
    assert isinstance(rules, list)
    return rules


def test_an_empty_namespace_of_one_who_may_not_look_further(cluster: Cluster) -> None:
    """Without a right to read namespaces, an empty answer may be a missing namespace."""
    make_namespace(cluster.api, "bare")
    reader = cluster.account("bare", "reader")
    allow(cluster.api, "bare", "reader", documented_rules())
    asked = runtime(cluster, "bare", kubeconfig=reader)

    def answered() -> bool:
        with pytest.raises((UsageError, Unavailable)) as caught:
            asked.containers()
        return "no pods, or no such namespace" in str(caught.value)

    until("permission", answered)


def test_a_pod_asks_about_its_own_namespace(cluster: Cluster, guarded: str, tmp_path: Path) -> None:
    """What Kubernetes puts into a pod is enough, at the address it tells the pod."""
    pod = cluster.api.get(f"{CORE}/namespaces/{guarded}/pods/main")
    for name in ("token", "ca.crt"):
        answer = requests.get(f"http://{pod['status']['podIP']}:8080/{name}", timeout=10)
        (tmp_path / name).write_bytes(answer.content)
    allow(cluster.api, guarded, "default", documented_rules())
    config = KubernetesConfig.from_service_account(SERVICE_ADDRESS, "443", tmp_path)
    asked = KubernetesRuntime(guarded, None, None, config=config, clock=SystemClock())
    assert pods(until("permission", lambda: answer_or_none(asked))) == {"main"}


def test_the_wrong_server_and_the_wrong_credential(cluster: Cluster, tmp_path: Path) -> None:
    """No server, another authority's and a refused token: Unavailable, the token never shown."""
    config = KubernetesConfig.from_kubeconfig(cluster.kubeconfig)
    token = "s3cret-token-value"
    other = Authority(tmp_path / "other")
    cases = {
        "does not accept the credential (401)": {"token": token, "certificate": None, "key": None},
        "SSLError": {"ca": other.certificate.read_bytes()},
        "ConnectionError": {"server": "https://10.200.0.1:1", "token": token},
    }
    for says, changes in cases.items():
        changed = dataclasses.replace(config, **changes)  # type: ignore[arg-type]
        asked = KubernetesRuntime("default", None, None, config=changed, clock=SystemClock())
        refusal = refused(asked, Unavailable)
        assert says in str(refusal)
        assert token not in f"{refusal!r} {refusal.hint} {changed!r}"


def test_a_name_of_the_certificate_can_be_given(cluster: Cluster, tmp_path: Path) -> None:
    """The certificate is checked for tls-server-name where there is one, and only for it."""
    config = KubernetesConfig.from_kubeconfig(cluster.kubeconfig)
    right = dataclasses.replace(config, tls_name="kubernetes.default.svc")
    asked = KubernetesRuntime("default", None, None, config=right, clock=SystemClock())
    assert "no pods" in str(refused(asked, UsageError))
    wrong = dataclasses.replace(config, tls_name="kubernetes.example")
    asked = KubernetesRuntime("default", None, None, config=wrong, clock=SystemClock())
    assert "SSLError" in str(refused(asked, Unavailable))


def test_a_kubeconfig_with_a_token(cluster: Cluster, guarded: str, tmp_path: Path) -> None:
    """A token in a file is read where the kubeconfig says."""
    text = KubernetesConfig.from_kubeconfig(cluster.account(guarded, "second")).token
    (tmp_path / "token").write_text(f"{text}\n")
    ca = (cluster.keys / "ca.crt").read_bytes()
    path = write_kubeconfig(tmp_path / "config", cluster.api.server, ca, {"tokenFile": "token"})
    refusal = refused(runtime(cluster, guarded, kubeconfig=path), Unavailable)
    assert "system:serviceaccount:guarded:second may not list pods" in str(refusal)
