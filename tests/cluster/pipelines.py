"""The repository's own tekton/ in a cluster for tests, with what its runs need.

place = PipelinePlace.make(tekton, directory, shared, images)      # inside cluster.network()
source = place.source("one")                               # the source is there already
ended = place.finish(place.start("one"))
repository = place.repository("two")                       # the Pipeline fetches it
with place.served() as server:
    ended = place.finish(place.start("two", **repository.at(server)))
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from cluster.api import until
from cluster.kubernetes import Cluster
from cluster.namespaces import NODE_ADDRESS
from cluster.objects import CORE, RBAC, make_namespace
from cluster.stepimage import FOR_TESTS, OWN, USER
from cluster.tekton import TEKTON, Ended, Tekton
from fakes.gitserver import GitServer, git_server
from fakes.workplace import PASSWORD, ROOT, Workplace, make_workplace
from secure_pipeline.wiring import locate_tool

NAMESPACE = "pipelines"
REGISTRY = f"{NODE_ADDRESS}:5001"
"""Reached from pods too."""
OVERLAY = ROOT / "tekton/overlays/dev"
PROMOTIONS, REPOSITORIES = "promotions", "repositories"
"""Directories beside those of the runs."""
_TOUCH = "touch /workspace/state/pwned"
SHELL = f"$({_TOUCH})`{_TOUCH}`'\"; {_TOUCH}; $PATH"
"""As a title of a pull request may be."""
_NAME = "localhost/secure-pipeline"
IMAGE = f"{_NAME}:{OWN}"
"""Of the steps: the program's own."""
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
_PATHS = {
    "Task": f"{TEKTON}/namespaces/{NAMESPACE}/tasks",
    "Pipeline": f"{TEKTON}/namespaces/{NAMESPACE}/pipelines",
    "ServiceAccount": f"{CORE}/namespaces/{NAMESPACE}/serviceaccounts",
    "Role": f"{RBAC}/namespaces/{NAMESPACE}/roles",
    "RoleBinding": f"{RBAC}/namespaces/{NAMESPACE}/rolebindings",
    "ConfigMap": f"{CORE}/namespaces/{NAMESPACE}/configmaps",
    "PersistentVolumeClaim": f"{CORE}/namespaces/{NAMESPACE}/persistentvolumeclaims",
    "NetworkPolicy": f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies",
    "ValidatingAdmissionPolicy": f"{_ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{_ADMISSION}/validatingadmissionpolicybindings",
    "PipelineRun": f"{TEKTON}/namespaces/{NAMESPACE}/pipelineruns",
}


@dataclass(frozen=True)
class Repository:
    """A repository of the sample with its base, as a server has it."""

    workplace: Workplace
    commit: str

    def at(self, server: GitServer) -> dict[str, str]:
        """The parameters of a run that fetches it."""
        name = self.workplace.root.parent.name
        url = server.url(f"{name}/.git")
        return {"source-url": url, "commit": self.commit, "source-ref": "refs/heads/main"}


@dataclass(frozen=True)
class PipelinePlace:
    """A namespace in which the Pipeline runs."""

    tekton: Tekton
    directory: Path
    """Volumes of the runs, a directory each, and one of what promotions remember."""
    shared: Path
    """Key, policy and base, as the tests of the command line have them."""

    @classmethod
    def make(cls, tekton: Tekton, directory: Path, shared: Path, images: Path) -> PipelinePlace:
        """Make the namespace with everything but a run; call inside the network.

        ``images``: the layout that ``step_images`` wrote, which it cannot from in there.
        """
        place = cls(tekton, directory, shared)
        directory.chmod(0o755)
        _make_directory(directory / PROMOTIONS)
        _serve_images(tekton.cluster, images)
        make_namespace(tekton.api, NAMESPACE)
        place._make_volume(f"secure-pipeline-{PROMOTIONS}", directory / PROMOTIONS)
        place._make_secrets()
        for document in overlay(OVERLAY):
            place.apply(_for_tests(document) if document["kind"] == "Task" else document)
        return place

    def apply(self, document: dict[str, Any], query: str = "") -> dict[str, Any]:
        """Create an object of tekton/."""
        return self.tekton.api.create(_PATHS[document["kind"]] + query, document)

    def source(self, name: str, change: Callable[[Workplace], None] | None = None) -> Workplace:
        """A repository of the sample on the volume of the run ``name``, as if it was fetched."""
        directory = self.directory / name
        (directory / "source").mkdir(parents=True)
        workplace = self._workplace(directory / "source", change)
        (directory / "state").mkdir()
        for path in (directory / "state", workplace.root, *workplace.root.rglob("*")):
            os.chown(path, USER, USER, follow_symlinks=False)
        return workplace

    def repository(
        self, name: str, change: Callable[[Workplace], None] | None = None
    ) -> Repository:
        """The same where a server has it, its base in it; the volume of the run is empty."""
        _make_directory(self.directory / name)
        directory = self.directory / REPOSITORIES / name
        directory.mkdir(parents=True)
        workplace = self._workplace(directory, change)
        shutil.rmtree(workplace.root / ".git")
        whole = Workplace(directory)
        whole.git("-c", "init.defaultBranch=main", "init", "-q")
        whole.commit()
        head = (directory / ".git/refs/heads/main").read_text().strip()
        return Repository(workplace, head)

    def served(self) -> AbstractContextManager[GitServer]:
        """A server of the repositories that pods reach."""
        return git_server(self.directory / REPOSITORIES, NODE_ADDRESS)

    def _workplace(self, directory: Path, change: Callable[[Workplace], None] | None) -> Workplace:
        workplace = make_workplace(directory, self.shared)
        workplace.environment["SECURE_PIPELINE_POLICY"] = str(self.shared / "policy/tekton.yaml")
        if change:
            change(workplace)
            workplace.commit()
        bases = directory / "bases"
        base = (bases / "debian-base").resolve()
        bases.unlink()
        bases.mkdir()
        shutil.copytree(base, bases / "debian-base", copy_function=_link)
        return workplace

    def start(
        self, name: str, change: Callable[[dict[str, Any]], None] | None = None, **parameters: str
    ) -> str:
        """Start a run on the volume ``name``; return the run's name.

        ``change``: of the specification of the PipelineRun, at the last.
        """
        run = yaml.safe_load((ROOT / "tekton/runs/build.yaml").read_text())
        given = {
            "cli-image": IMAGE,
            "test-image": f"{_NAME}:{FOR_TESTS}",
            "config": "service/secure-pipeline.yaml",
            "policy": "/workspace/policy/release.yaml",
            "key": "file:/workspace/keys/release.key",
            "database": "demonstration",
            "push": f"{REGISTRY}/{name}",
            **parameters,
        }
        run["metadata"]["generateName"] = f"{name}-"
        run["spec"]["params"] = [{"name": n, "value": v} for n, v in given.items()]
        if change:
            change(run["spec"])
        made = self.apply(run)
        self._give_volume(made["metadata"]["uid"], self.directory / name)
        return str(made["metadata"]["name"])

    def finish(self, run: str, seconds: float = 400) -> Ended:
        """Wait for the end of a run."""
        return self.tekton.wait(NAMESPACE, run, seconds)

    def logs(self, ended: Ended) -> str:
        """What all steps of a run wrote."""
        said = []
        for name, status in ended.tasks.items():
            if "podName" in status:
                said.append(f"== {name}\n{self.tekton.log(NAMESPACE, status, name)}")
        return "\n".join(said)

    def _give_volume(self, uid: str, directory: Path) -> None:
        """What a cluster's provisioner does: a volume for the claim that is made for a run."""
        path = _PATHS["PersistentVolumeClaim"]

        def claim() -> str | None:
            for item in self.tekton.api.get(path)["items"]:
                owners = item["metadata"].get("ownerReferences", ())
                if any(owner["uid"] == uid for owner in owners):
                    return str(item["metadata"]["name"])
            return None

        self._make_volume(until("claim of the run", claim, 60), directory)

    def _make_volume(self, claim: str, directory: Path) -> None:
        volume = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "capacity": {"storage": "10Gi"},
            "hostPath": {"path": str(directory)},
            "claimRef": {"namespace": NAMESPACE, "name": claim},
        }
        body = {"metadata": {"name": f"{NAMESPACE}-{claim}"}, "spec": volume}
        self.tekton.api.create(f"{CORE}/persistentvolumes", body)

    def _make_secrets(self) -> None:
        policy = self.shared / "policy"
        files = {
            "release.yaml": (policy / "tekton.yaml").read_text(),
            "release.pub": (policy / "release.pub").read_text(),
        }
        base = f"{CORE}/namespaces/{NAMESPACE}"
        api = self.tekton.api
        body = {"metadata": {"name": "secure-pipeline-policy"}, "data": files}
        api.create(f"{base}/configmaps", body)
        key = (self.shared / "release.key").read_bytes()
        for name, data in (
            ("secure-pipeline-key", {"release.key": key}),
            ("secure-pipeline-secrets", {"key-password": PASSWORD.encode()}),
        ):
            coded = {item: b64encode(value).decode() for item, value in data.items()}
            api.create(f"{base}/secrets", {"metadata": {"name": name}, "data": coded})


def overlay(directory: Path) -> Iterator[dict[str, Any]]:
    """The objects of an overlay as kustomize gives them, which must have nothing to warn of."""
    command = [locate_tool("kustomize").path, "build", str(directory)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (made.returncode, made.stderr) == (0, ""), made.stderr
    yield from yaml.safe_load_all(made.stdout)


def _for_tests(task: dict[str, Any]) -> dict[str, Any]:
    """With servers of sources and images that have no encryption."""
    names = ["SECURE_PIPELINE_PLAIN_HTTP"]
    if task["metadata"]["name"] == "fetch":
        names.append("SECURE_PIPELINE_SOURCE_PLAIN_HTTP")
    for step in task["spec"]["steps"]:
        step["env"] += [{"name": name, "value": "1"} for name in names]
    return task


def _serve_images(cluster: Cluster, images: Path) -> None:
    """A registry that pods reach, and the images of the steps on the node."""
    config = cluster.directory / "registry-pods.yml"
    config.write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {cluster.directory / 'registry-pods'}}}}}\n"
        f"http: {{addr: '{REGISTRY}'}}\n"
        "log: {level: error}\n"
    )
    cluster.start("registry-pods", ["docker-registry", "serve", str(config)])
    cluster.import_image(images, _NAME)
    cluster.ready("registry", _answers)


def _answers() -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"http://{REGISTRY}/v2/", timeout=5).ok
    return False


def _make_directory(directory: Path) -> None:
    """A volume as its pods see it: theirs, as fsGroup makes others than those of a host."""
    directory.mkdir()
    os.chown(directory, USER, USER)
    directory.chmod(0o777)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target
