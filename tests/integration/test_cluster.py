"""The cluster for tests leaves nothing behind, however it ends, and nothing is on the host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cluster.api import until
from cluster.groups import make_group, remove_group
from cluster.kubernetes import Cluster, place, remove_leftovers
from cluster.namespaces import new_namespaces
from fakes.workplace import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("cluster")]
GROUPS = Path("/sys/fs/cgroup")
HOLDER = """
import sys, time
from cluster.groups import make_group
from cluster.kubernetes import place
from cluster.namespaces import new_namespaces
with place() as directory, new_namespaces() as namespaces:
    make_group(directory.name)
    namespaces.start(["sleep", "1000"], sys.stderr.buffer, {"PATH": "/usr/bin:/bin"})
    print(directory, namespaces.pid, flush=True)
    time.sleep(1000)
"""


@contextmanager
def held() -> Iterator[tuple[subprocess.Popen[str], Path, int]]:
    """Another process with namespaces of a cluster; yield it, their place and first process."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True, env=variables
    )
    try:
        assert process.stdout is not None
        directory, pid = process.stdout.readline().split()
        yield process, Path(directory), int(pid)
    finally:
        process.kill()
        process.wait(30)
        remove_leftovers()


def groups(name: str) -> list[Path]:
    return [path for path in (GROUPS / name, *GROUPS.glob(f"*/{name}")) if path.exists()]


def test_a_killed_run_leaves_nothing() -> None:
    """SIGKILL ends every process inside at once; the next start removes directory and groups."""
    with held() as (process, directory, pid):
        network = os.readlink(f"/proc/{pid}/ns/net")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        until("end of the namespaces", lambda: not Path(f"/proc/{pid}").exists())
        assert network not in networks()
        assert directory.exists()
        assert groups(directory.name)
        until("removal", lambda: remove_leftovers() or not directory.exists())
        assert not groups(directory.name)


def networks() -> set[str]:
    """The network namespaces that processes are in."""
    found = set()
    for process in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(os.readlink(process))
        except OSError:
            continue
    return found


def test_a_run_that_lives_is_left_alone() -> None:
    """Another run's cluster is no leftover."""
    with held() as (_, directory, pid):
        remove_leftovers()
        assert directory.exists()
        assert groups(directory.name)
        assert Path(f"/proc/{pid}").exists()


def test_a_failure_inside_ends_everything() -> None:
    """An exception undoes namespaces, groups and directory, and is not hidden."""
    seen: list[tuple[Path, int]] = []
    with pytest.raises(ZeroDivisionError):
        _fail(seen)
    ((directory, pid),) = seen
    assert not directory.exists()
    assert not groups(directory.name)
    assert not Path(f"/proc/{pid}").exists()


def _fail(seen: list[tuple[Path, int]]) -> None:
    with ExitStack() as stack:
        directory = stack.enter_context(place())
        stack.callback(remove_group, directory.name)
        make_group(directory.name)
        namespaces = stack.enter_context(new_namespaces())
        seen.append((directory, namespaces.pid))
        raise ZeroDivisionError


def test_the_host_keeps_its_network_and_settings(cluster: Cluster) -> None:
    """No listener, interface or setting of the kernel is the cluster's outside of it."""
    ours = os.readlink("/proc/self/ns/net")
    panic = Path("/proc/sys/kernel/panic").read_text()
    with cluster.network():
        inside = set(os.listdir("/proc/thread-self/net/dev_snmp6"))
        assert os.readlink("/proc/thread-self/ns/net") != ours
        assert "node0" in inside
    assert os.readlink("/proc/thread-self/ns/net") == ours
    assert "node0" not in os.listdir("/proc/self/net/dev_snmp6")
    assert cluster.run(["cat", "/proc/sys/kernel/panic"]) == "10\n"
    assert Path("/proc/sys/kernel/panic").read_text() == panic
