"""Debian's rsyslog, unpacked and not installed, receiving on loopback over TLS or plain TCP."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fakes.authority import Authority
from secure_pipeline.files import locked
from secure_pipeline.tools.locate import default_store

_PACKAGES = ("rsyslog", "rsyslog-openssl", "libestr0", "libfastjson4")
_SECONDS = 60
_ROOT = default_store(os.environ).parent / "rsyslog"
"""Kept between test runs, like the tools."""


@dataclass(frozen=True)
class Rsyslog:
    """Where it listens and what it writes: the message, its structured data, its priority."""

    port: int
    output: Path

    def lines(self) -> list[list[str]]:
        """What it has written, in order: [text, structured data, host, priority]."""
        return [line.split("\t") for line in self.output.read_text().splitlines()]


def unpack() -> Path:
    """Fetch and unpack the packages once; the directory that holds them."""
    apt_get, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
    assert apt_get, "apt-get is not here"
    assert dpkg, "dpkg-deb is not here"
    with locked(_ROOT.with_suffix(".lock")):
        if not (_ROOT / "ready").exists():
            shutil.rmtree(_ROOT, ignore_errors=True)
            (_ROOT / "packages").mkdir(parents=True)
            fetched = subprocess.run(
                [apt_get, "download", *_PACKAGES],
                cwd=_ROOT / "packages",
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert fetched.returncode == 0, f"apt-get update, then again: {fetched.stderr}"
            for package in sorted((_ROOT / "packages").glob("*.deb")):
                subprocess.run([dpkg, "-x", str(package), str(_ROOT)], check=True, timeout=60)
            (_ROOT / "ready").touch()
    return _ROOT


@contextmanager
def rsyslog(directory: Path, tls: Authority | None) -> Iterator[Rsyslog]:
    """Run it until the end of the block; only the process that was started is ended."""
    root, port, output = unpack(), _port(), directory / "received.log"
    (modules,) = root.glob("usr/lib/*/rsyslog")
    (directory / "work").mkdir(parents=True)
    output.touch()
    config = directory / "rsyslog.conf"
    config.write_text(_config(directory, port, output, tls))
    process = subprocess.Popen(
        [
            *(str(root / "usr/sbin/rsyslogd"), "-n", "-f", str(config)),
            *("-i", str(directory / "pid"), "-M", str(modules)),
        ],
        env={"LD_LIBRARY_PATH": str(modules.parent)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _wait(process, port)
        yield Rsyslog(port, output)
    finally:
        process.terminate()
        process.communicate(timeout=_SECONDS)


def _config(directory: Path, port: int, output: Path, tls: Authority | None) -> str:
    secure, mode = "", ""
    if tls is not None:
        secure = (
            f' defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="{tls.ca}"'
            f' defaultNetstreamDriverCertFile="{tls.certificate}"'
            f' defaultNetstreamDriverKeyFile="{tls.key}"'
        )
        mode = ' StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon"'
    properties = ' constant(value="\\t") '.join(
        f'property(name="{name}")' for name in ("msg", "structured-data", "hostname", "pri")
    )
    return (
        f'global(workDirectory="{directory}/work" maxMessageSize="16k"{secure})\n'
        f'module(load="imtcp"{mode})\n'
        f'input(type="imtcp" port="{port}" address="127.0.0.1")\n'
        f'template(name="t" type="list") {{ {properties} constant(value="\\n") }}\n'
        f':app-name, isequal, "secure-pipeline" '
        f'action(type="omfile" file="{output}" template="t")\n'
    )


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(process: subprocess.Popen[str], port: int) -> None:
    limit = time.monotonic() + _SECONDS
    while time.monotonic() < limit:
        assert process.poll() is None, process.communicate()[1]
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("rsyslog does not listen")
