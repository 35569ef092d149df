"""Configuration files and command lines of the programs of a cluster."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.namespaces import NODE_ADDRESS, SERVICE_RANGE

REGISTRY = "127.0.0.1:5000"
"""Inside the cluster's network."""
SERVER = f"https://{NODE_ADDRESS}:443"
PAUSE = "localhost/pause:1"
PODS = "10.201.0.0/16"
"""Addresses of pods."""


def containerd(directory: Path) -> list[str]:
    """A containerd with its own root, the CNI of ``cni`` and the registry over plain http."""
    plain_registry(directory, REGISTRY)
    config = directory / "containerd.toml"
    config.write_text(f"""version = 2
root = "{directory}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing"]
[grpc]
address = "{directory}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{_cni(directory)}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "runc"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{directory}/hosts"
""")
    return ["containerd", "--config", str(config)]


def plain_registry(directory: Path, registry: str) -> None:
    """Let containerd pull from a registry over plain http; it looks at each pull."""
    hosts = directory / "hosts" / registry / "hosts.toml"
    hosts.parent.mkdir(parents=True, exist_ok=True)
    hosts.write_text(f'[host."http://{registry}"]\ncapabilities = ["pull", "resolve"]\n')


def _cni(directory: Path) -> Path:
    """A pair of interfaces for each pod, routed by the node."""
    addresses = {
        "type": "host-local",
        "dataDir": "/run/cni",
        "ranges": [[{"subnet": PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    network = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [{"type": "ptp", "ipam": addresses}],
    }
    path = directory / "cni" / "pods.conflist"
    path.parent.mkdir()
    path.write_text(json.dumps(network))
    return path.parent


def etcd(directory: Path) -> list[str]:
    """An etcd on the loopback of the cluster's network."""
    clients, peers = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    return [
        *("etcd", "--data-dir", str(directory / "etcd"), "--log-level", "warn"),
        *("--listen-client-urls", clients, "--advertise-client-urls", clients),
        *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
        *("--initial-cluster", f"default={peers}"),
    ]


def api_server(keys: Path) -> list[str]:
    """The API server on all addresses of the cluster's network, with RBAC."""
    return [
        "kube-apiserver",
        *("--etcd-servers", "http://127.0.0.1:2379"),
        *("--advertise-address", NODE_ADDRESS, "--secure-port", "443"),
        *("--service-cluster-ip-range", SERVICE_RANGE),
        *("--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction"),
        *("--client-ca-file", f"{keys}/ca.crt"),
        *("--tls-cert-file", f"{keys}/server.crt", "--tls-private-key-file", f"{keys}/server.key"),
        *("--kubelet-client-certificate", f"{keys}/api-server.crt"),
        *("--kubelet-client-key", f"{keys}/api-server.key"),
        *("--kubelet-preferred-address-types", "InternalIP"),
        *("--service-account-issuer", "https://kubernetes.default.svc"),
        *("--service-account-key-file", f"{keys}/accounts.key"),
        *("--service-account-signing-key-file", f"{keys}/accounts.key"),
        "--allow-privileged",
    ]


def controllers(keys: Path) -> list[str]:
    """The controllers, alone and therefore without an election."""
    return [
        "kube-controller-manager",
        *("--kubeconfig", f"{keys}/controllers.json", "--leader-elect=false"),
        *("--bind-address", "127.0.0.1", "--use-service-account-credentials"),
        *("--service-account-private-key-file", f"{keys}/accounts.key"),
        *("--root-ca-file", f"{keys}/ca.crt"),
    ]


def scheduler(keys: Path) -> list[str]:
    """The scheduler, alone."""
    return [
        "kube-scheduler",
        *("--kubeconfig", f"{keys}/scheduler.json", "--leader-elect=false"),
        *("--bind-address", "127.0.0.1"),
    ]


def kubelet(directory: Path, keys: Path, group: str) -> list[str]:
    """The kubelet of the one node; its pods are in the control group ``group``."""
    resolver = directory / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\n")
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": f"{keys}/ca.crt"},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": group,
        "containerRuntimeEndpoint": f"unix://{directory}/containerd.sock",
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "1Mi"},
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "readOnlyPort": 0,
        "resolvConf": str(resolver),
        "volumePluginDir": f"{directory}/volume-plugins",
    }
    path = directory / "kubelet.json"
    path.write_text(json.dumps(config))
    return [
        *("kubelet", "--config", str(path), "--kubeconfig", f"{keys}/kubelet.json"),
        *("--root-dir", "/var/lib/kubelet", "--cert-dir", str(keys / "kubelet")),
        *("--hostname-override", "node", "--node-ip", NODE_ADDRESS),
    ]


def registry(directory: Path) -> list[str]:
    """Debian's registry on the loopback of the cluster's network."""
    config = directory / "registry.yml"
    config.write_text(
        "version: 0.1\n"
        f"storage: {{filesystem: {{rootdirectory: {directory / 'registry'}}}}}\n"
        f"http: {{addr: '{REGISTRY}'}}\n"
        "log: {level: error}\n"
    )
    return ["docker-registry", "serve", str(config)]
