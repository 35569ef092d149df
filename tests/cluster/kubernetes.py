"""A real Kubernetes of one node, for tests: made, used by many, ended without a trace.

    with kubernetes_cluster() as cluster, cluster.network():
        cluster.api.create("/api/v1/namespaces", {"metadata": {"name": "shop"}})
        KubernetesConfig.from_kubeconfig(cluster.kubeconfig)

Programs: the pinned ``kubernetes`` (tools/go/kubernetes), and etcd, containerd, runc, CNI
plugins and a registry from Debian. Needs root. Pods have addresses of their own and reach the
API server at the address of its service; there is neither kube-proxy nor DNS.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import requests
from cryptography.hazmat.primitives.asymmetric import ec

from cluster import settings
from cluster.api import Api, until
from cluster.credentials import Authority, write_key, write_kubeconfig
from cluster.groups import make_group, remove_group
from cluster.images import archive, busybox_image
from cluster.namespaces import NODE_ADDRESS, SERVICE_ADDRESS, Namespaces, new_namespaces
from secure_pipeline.tools.locate import SYSTEM_PATH
from secure_pipeline.wiring import locate_tool

_PLACES = "secure-pipeline-cluster-"
_USERS = {
    "admin": ("admin", "system:masters"),
    "api-server": ("kube-apiserver", "system:masters"),
    "controllers": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "kubelet": ("system:node:node", "system:nodes"),
}
"""Certificate to its user and group, as RBAC's own roles name them."""


class Cluster:
    """A cluster that runs."""

    def __init__(self, directory: Path, namespaces: Namespaces, program: Path) -> None:
        self.directory = directory
        self.keys = directory / "keys"
        self.kubeconfig = self.keys / "admin.json"
        """Of a user who may do everything."""
        self.registry = settings.REGISTRY
        """host:port of a registry without encryption, inside ``network()``."""
        self.api = Api(settings.SERVER, self.keys)
        self._namespaces = namespaces
        self._program = program
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def network(self) -> AbstractContextManager[None]:
        """Inside, this thread, its new threads and its programs are in the cluster's network."""
        return self._namespaces.network()

    def start(self, name: str, command: Sequence[str | Path]) -> None:
        """Start a program inside; it ends with the cluster. Its output goes to logs/NAME."""
        log = self.directory / "logs" / name
        environment = {"PATH": SYSTEM_PATH, "HOME": "/var/lib", "LANG": "C.UTF-8"}
        with log.open("ab") as stream:
            self._processes[name] = self._namespaces.start(command, stream, environment)

    def run(self, command: Sequence[str | Path]) -> str:
        """Run a program inside to its end, which must be good; return what it said."""
        log = self.directory / "logs" / "run"
        environment = {"PATH": SYSTEM_PATH, "HOME": "/var/lib", "LANG": "C.UTF-8"}
        with log.open("w+b") as stream:
            ended = self._namespaces.start(command, stream, environment).wait(120)
            stream.seek(0)
            said = stream.read().decode("utf-8", "replace")
        assert ended == 0, f"{command}: {said}"
        return said

    def import_image(self, layout: Path, name: str) -> None:
        """Give the node an image under ``name:TAG``, with the tag of the layout."""
        packed = archive(layout, self.directory / "image.tar")
        socket = self.directory / "containerd.sock"
        self.run(
            ["ctr", "-a", socket, "-n", "k8s.io", "images", "import", "--base-name", name, packed]
        )
        packed.unlink()

    def account(self, namespace: str, name: str) -> Path:
        """A kubeconfig of a service account, which is made if it is missing."""
        base = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self.api.call("POST", base, {"metadata": {"name": name}})
        answer = self.api.create(f"{base}/{name}/token", {"spec": {"expirationSeconds": 3600}})
        path = self.keys / f"{namespace}-{name}.json"
        path.unlink(missing_ok=True)
        user = {"token": answer["status"]["token"]}
        return write_kubeconfig(path, settings.SERVER, (self.keys / "ca.crt").read_bytes(), user)

    def ready(self, what: str, ask: Callable[[], object]) -> None:
        """Wait until ``ask`` is true; a program that ended meanwhile fails with its log."""

        def watched() -> bool:
            for name, process in self._processes.items():
                log = self.directory / "logs" / name
                assert process.poll() is None, f"{name} ended: {log.read_text()[-3000:]}"
            return bool(ask())

        until(what, watched, 120)

    def kubernetes(self, arguments: Sequence[str]) -> None:
        """Start one of the four servers."""
        self.start(arguments[0], [self._program, *arguments])


@contextmanager
def kubernetes_cluster() -> Iterator[Cluster]:
    """Start a cluster, yield it when its node is ready, end it with all that it left."""
    program = locate_tool("kubernetes").path
    remove_leftovers()
    with ExitStack() as stack:
        directory = stack.enter_context(place())
        group = directory.name
        stack.callback(remove_group, group)
        make_group(group)
        cluster = Cluster(directory, stack.enter_context(new_namespaces()), program)
        (directory / "logs").mkdir()
        _write_credentials(cluster.keys)
        with cluster.network():
            _start(cluster, group)
        yield cluster


def _start(cluster: Cluster, group: str) -> None:
    directory, keys = cluster.directory, cluster.keys
    cluster.start("etcd", settings.etcd(directory))
    cluster.start("containerd", settings.containerd(directory))
    cluster.start("registry", settings.registry(directory))
    cluster.kubernetes(settings.api_server(keys))
    busybox_image(directory / "pause", "1", ["/bin/sleep", "2147483647"])
    cluster.ready("containerd", (directory / "containerd.sock").exists)
    cluster.import_image(directory / "pause", settings.PAUSE.partition(":")[0])
    cluster.ready("API server", lambda: _ready(cluster.api))
    cluster.kubernetes(settings.controllers(keys))
    cluster.kubernetes(settings.scheduler(keys))
    cluster.kubernetes(settings.kubelet(directory, keys, group))
    cluster.ready("node", lambda: _node_is_ready(cluster.api))
    accounts = "/api/v1/namespaces/default/serviceaccounts/default"
    cluster.ready("controllers", lambda: cluster.api.call("GET", accounts).ok)


def _ready(api: Api) -> bool:
    try:
        return api.call("GET", "/readyz").ok
    except requests.ConnectionError:
        return False


def _node_is_ready(api: Api) -> bool:
    """Ready, and nothing keeps pods away from it."""
    answer = api.call("GET", "/api/v1/nodes/node")
    if not answer.ok:
        return False
    node = answer.json()
    ready = [item["status"] for item in node["status"]["conditions"] if item["type"] == "Ready"]
    return ready == ["True"] and not node["spec"].get("taints")


def _write_credentials(keys: Path) -> None:
    authority = Authority(keys)
    write_key(keys / "accounts.key", ec.generate_private_key(ec.SECP256R1()))
    names = ("kubernetes.default.svc", "127.0.0.1", NODE_ADDRESS, SERVICE_ADDRESS)
    authority.issue("server", "kube-apiserver", hosts=names)
    for name, (user, group) in _USERS.items():
        certificate, key = authority.issue(name, user, group)
        write_kubeconfig(
            keys / f"{name}.json",
            settings.SERVER,
            authority.certificate.read_bytes(),
            {"client-certificate": str(certificate), "client-key": str(key)},
        )


@contextmanager
def place() -> Iterator[Path]:
    """A directory that is locked as long as its cluster is used."""
    directory = Path(tempfile.mkdtemp(prefix=_PLACES))
    with (directory / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield directory
        finally:
            shutil.rmtree(directory)


def remove_leftovers() -> None:
    """Remove what runs left that were killed; the kernel ended their processes."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PLACES}*"):
        try:
            with (directory / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_group(directory.name)
                shutil.rmtree(directory)
        except (BlockingIOError, FileNotFoundError):
            continue  # used by another run, or just being made
