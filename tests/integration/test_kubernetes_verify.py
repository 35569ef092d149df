"""``verify running k8s://…`` as people start it: what a cluster runs, against its evidence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.images import busybox_image
from cluster.kubernetes import Cluster
from cluster.objects import (
    APPS,
    container,
    make_namespace,
    pod_spec,
    running_pods,
    workload,
)
from fakes.registry import push_layout
from fakes.release import REQUIRE, Release, policy
from fakes.workplace import Ended
from secure_pipeline.errors import ExitCode
from secure_pipeline.oci.layout import Layout

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("cluster")]
SLEEP = ["/bin/sleep", "1000000"]
READ_ONLY = {"readOnlyRootFilesystem": True}


@pytest.fixture(scope="module", autouse=True)
def _inside(cluster: Cluster) -> Iterator[None]:
    """Each test of this module talks in the cluster's network."""
    with cluster.network():
        yield


@dataclass(frozen=True)
class Operator:
    """Who asks: with a policy, a kubeconfig and a build that has evidence in the registry."""

    environment: dict[str, str]
    layout: Path
    build: str
    """host/name@sha256:…"""
    tag: str
    """host/name:tag."""

    def run(self, *arguments: str) -> Ended:
        """Run the program in the cluster's network."""
        command = [sys.executable, "-m", "secure_pipeline", *arguments]
        ended = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert "Traceback" not in ended.stderr, ended.stderr
        return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture(scope="module")
def operator(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory, _inside: None) -> Operator:
    directory = tmp_path_factory.mktemp("operator")
    release = Release(directory / "layout")
    release.image = busybox_image(release.path, "latest", SLEEP, {"made": b"released"})
    release.run(time=datetime.now(UTC))
    loaded = policy(directory / "policy", require=REQUIRE.replace(", max-age: 7d", ""))
    kept = ("PATH", "LANG", "TMPDIR")
    environment = {name: os.environ[name] for name in kept if name in os.environ} | {
        "HOME": str(directory),
        "KUBECONFIG": str(cluster.kubeconfig),
        "SECURE_PIPELINE_POLICY": str(loaded.source),
    }
    name = f"{cluster.registry}/shop/released"
    build = f"{name}@{release.image.digest}"
    operator = Operator(environment, release.path, build, f"{name}:1")
    copied = operator.run("copy", f"layout:{release.path}@{release.image.digest}", operator.tag)
    assert copied.code == ExitCode.PASS, copied.text
    return operator


def deploy(cluster: Cluster, namespace: str, image: str, **more: object) -> None:
    """Run two pods of an image, pulled anew each time unless told otherwise."""
    make_namespace(cluster.api, namespace)
    spec = pod_spec(container("main", image, **{"imagePullPolicy": "Always", **more}))
    place = f"{APPS}/namespaces/{namespace}/deployments"
    cluster.api.create(place, workload("service", spec, replicas=2))
    running_pods(cluster.api, namespace, "service", 2)


def test_what_was_released_runs(cluster: Cluster, operator: Operator) -> None:
    """Pods of a tag are the build with the evidence, and cannot have changed: exit 0."""
    deploy(cluster, "released", operator.tag, securityContext=READ_ONLY)
    ended = operator.run("verify", "running", "k8s://released/deployment/service", "--json")
    assert ended.code == ExitCode.PASS, ended.text
    assert json.dumps(ended.document).count("MATCH") >= 2
    named = operator.run("verify", "running", "k8s://released", "--image", operator.build)
    assert named.code == ExitCode.PASS, named.text


def test_what_cannot_be_seen_is_no_pass(cluster: Cluster, operator: Operator) -> None:
    """Executables of a writable container cannot be compared: 14, unless that is left out."""
    deploy(cluster, "writable", operator.tag)
    ended = operator.run("verify", "running", "k8s://writable")
    assert ended.code == ExitCode.INCONCLUSIVE, ended.text
    assert "--no-drift" in ended.text
    ended = operator.run("verify", "running", "k8s://writable", "--no-drift")
    assert ended.code == ExitCode.PASS, ended.text


def test_an_imported_image_is_its_config(cluster: Cluster, operator: Operator) -> None:
    """The node knows only the config of an image that was imported: found in the layout."""
    layout = operator.layout.parent / "imported"
    release = Release(layout)
    release.image = busybox_image(layout, "latest", SLEEP, {"made": b"imported"})
    release.run(time=datetime.now(UTC))
    only = operator.layout.parent / "only-the-image"
    busybox_image(only, "1", SLEEP, {"made": b"imported"})
    cluster.import_image(only, "localhost/released")
    deploy(cluster, "imported", "localhost/released:1", imagePullPolicy="Never")
    target = ("verify", "running", "k8s://imported", "--no-drift")
    ended = operator.run(*target, "--layout", str(layout))
    assert ended.code == ExitCode.PASS, ended.text
    assert "runs config" in operator.run(*target, "--layout", str(layout), "--json").out
    unnamed = operator.run(*target)
    assert unnamed.code == ExitCode.INCONCLUSIVE, unnamed.text


def test_reg_01_another_image_under_the_same_tag(cluster: Cluster, operator: Operator) -> None:
    """The tag was moved before the pods started: it is not the build, and has no evidence."""
    other = operator.layout.parent / "other"
    busybox_image(other, "2", SLEEP, {"made": b"other"})
    tag = operator.tag.rpartition(":")[0] + ":2"
    released = operator.run(
        "copy", f"layout:{operator.layout}@{operator.build.partition('@')[2]}", tag
    )
    assert released.code == ExitCode.PASS, released.text
    push_layout(Layout.open(other), cluster.registry, "shop/released")
    deploy(cluster, "moved", tag, securityContext=READ_ONLY)
    ended = operator.run(
        "verify", "running", "k8s://moved/deployment/service", "--image", operator.build
    )
    assert ended.code == ExitCode.VERIFICATION, ended.text
    assert "MISMATCH" in ended.text
    unnamed = operator.run("verify", "running", "k8s://moved/deployment/service")
    assert unnamed.code == ExitCode.VERIFICATION, unnamed.text


def test_a_pod_that_does_not_start_is_no_pass(cluster: Cluster, operator: Operator) -> None:
    """A pod whose image cannot be pulled says nothing about what it will be: 14."""
    make_namespace(cluster.api, "waiting")
    spec = pod_spec(container("main", f"{cluster.registry}/shop/absent:1"))
    cluster.api.create(f"{APPS}/namespaces/waiting/deployments", workload("service", spec))
    for _ in range(2):
        ended = operator.run("verify", "running", "k8s://waiting", "--image", operator.build)
        if ended.code != ExitCode.USAGE:  # no pod yet
            break
    assert ended.code == ExitCode.INCONCLUSIVE, ended.text


def test_errors_are_a_line_and_a_hint(cluster: Cluster, operator: Operator) -> None:
    """A namespace that is not there and a server that is not: exit 2 and exit 4."""
    ended = operator.run("verify", "running", "k8s://relaesed", "--image", operator.build)
    assert (ended.code, "hint: " in ended.err) == (ExitCode.USAGE, True), ended.text
    text = cluster.kubeconfig.read_text().replace(":443", ":1")
    path = operator.layout.parent / "wrong.json"
    path.write_text(text)
    elsewhere = Operator(
        operator.environment | {"KUBECONFIG": str(path)}, operator.layout, operator.build, ""
    )
    ended = elsewhere.run("verify", "running", "k8s://released", "--image", operator.build)
    assert (ended.code, "hint: " in ended.err) == (ExitCode.UNAVAILABLE, True), ended.text
