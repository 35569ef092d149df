"""Debian's registry behind TLS and a password, and docker's configuration to log in with."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fakes.authority import Authority, make_authority
from fakes.registry import configured_registry, debian_program
from fakes.tokenservice import PASSWORD, USER

HASH = "$2b$05$abcdefghijklmnopqrstuui3d48x2EmEcM8nS6p4.UqwA2W2X0bq2"
"""bcrypt of PASSWORD."""


@dataclass(frozen=True)
class LockedRegistry:
    """Where it is, who vouches for it, and a directory with docker's config.json."""

    host: str
    authority: Authority
    config: Path

    def log_in(self, password: str = PASSWORD) -> None:
        """Write config.json as 'docker login' does."""
        self.config.mkdir(exist_ok=True)
        auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
        document = {"auths": {self.host: {"auth": auth}}}
        (self.config / "config.json").write_text(json.dumps(document))


@contextmanager
def locked_registry(directory: Path) -> Iterator[LockedRegistry]:
    """Serve it until the block ends."""
    authority = make_authority(directory)
    (directory / "htpasswd").write_text(f"{USER}:{HASH}\n")
    settings = {"auth": {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}}
    with configured_registry(debian_program(), directory, settings, tls=authority) as host:
        registry = LockedRegistry(host, authority, directory / "docker")
        registry.log_in()
        yield registry
