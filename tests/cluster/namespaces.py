"""Linux namespaces for a cluster: network, mounts and processes of its own.

The first process of the process namespace dies with this one, however it ends, and with it the
kernel ends every process and undoes every mount inside. No listener is ever on the host.
"""

from __future__ import annotations

import ctypes
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from secure_pipeline.tools.locate import SYSTEM_PATH

NODE_ADDRESS = "10.200.0.1"
SERVICE_ADDRESS = "10.96.0.1"
"""Of the service ``kubernetes``: the first of the service range."""
SERVICE_RANGE = "10.96.0.0/16"
_NEWNET = 0x40000000
_SECONDS = 20
_SETTINGS = (
    "vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1"
    " kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000"
)
"""What the kubelet wants: https://pkg.go.dev/k8s.io/component-helpers/node/util/sysctl."""
_FIRST = """
set -eu
# The kubelet insists on some settings of the machine: it finds them set, and the machine keeps
# its own. Only the network's settings, which are of this namespace, can be written.
mount --bind /proc/sys /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,ro,bind /proc/sys
mount -t tmpfs tmpfs /run
for setting in $SETTINGS; do
    echo ${setting#*=} >/run/setting
    mv /run/setting /run/setting-$(basename ${setting%=*})
    mount --bind /run/setting-$(basename ${setting%=*}) /proc/sys/${setting%=*}
done
for place in /var/log /var/lib; do mount -t tmpfs tmpfs $place; done
mkdir -p /run/netns /run/lock
ip link set lo up
ip link add node0 type veth peer name node1
ip address add $NODE_ADDRESS/24 dev node0
ip address add $SERVICE_ADDRESS/32 dev node0
ip link set node0 up
ip link set node1 up
echo ready
sleep infinity &
wait
"""


class Namespaces:
    """Where the processes of one cluster live; ``pid`` is the first of them."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def start(
        self, command: Sequence[str | Path], log: IO[bytes], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a program inside. It ends with the namespaces at the latest."""
        inside = ["nsenter", "-t", str(self.pid), "--net", "--mount", "--pid", "--"]
        return subprocess.Popen(
            [*inside, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=dict(environment),
            start_new_session=True,
        )

    @contextmanager
    def network(self) -> Iterator[None]:
        """Inside, this thread and what it starts talk in the cluster's network."""
        with (
            open(f"/proc/self/task/{threading.get_native_id()}/ns/net", "rb") as home,
            open(f"/proc/{self.pid}/ns/net", "rb") as inside,
        ):
            _enter(inside.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())


@contextmanager
def new_namespaces() -> Iterator[Namespaces]:
    """Make namespaces; end everything in them afterwards."""
    process = subprocess.Popen(
        # Dies with this process; what it started dies with it.
        ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork",
         "--kill-child", "--mount-proc", "--propagation", "private", "bash", "-c", _FIRST],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            "PATH": SYSTEM_PATH,
            "NODE_ADDRESS": NODE_ADDRESS,
            "SERVICE_ADDRESS": SERVICE_ADDRESS,
            "SETTINGS": _SETTINGS,
        },
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == "ready\n", f"no namespaces: {said}{process.stdout.read()}"
        first = _child(process.pid)
        try:
            yield Namespaces(first)
        finally:
            process.kill()
            _ended(first)
    finally:
        process.kill()
        process.wait(_SECONDS)


def _child(pid: int) -> int:
    """The one child of a process, which is the first of the new process namespace."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)
    raise AssertionError("unshare has no child")


def _ended(pid: int) -> None:
    """Wait until a process that was killed is gone, and the namespaces with it."""
    deadline = time.monotonic() + _SECONDS
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} does not end"
        time.sleep(0.01)


def _enter(descriptor: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, _NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
