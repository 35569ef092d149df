"""What a ``run`` needs, part by part: what was found, what is missing, what to type.

Nothing is taken on trust: tools are located with their digests, files are parsed, and the
vulnerability database is made ready as a scan would.
"""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from secure_pipeline import config as configuration
from secure_pipeline.config import BuilderName, Config
from secure_pipeline.data import data_path
from secure_pipeline.errors import ConfigError, PipelineError, Unavailable
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.policy import document
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.ports import Clock, Database
from secure_pipeline.tools.locate import LocatedTool

_LEAST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Check:
    """One part: ``found`` says what is there, ``problem`` what is wrong, ``hint`` what to type."""

    part: str
    needed: bool
    """False for parts that a run can do without."""
    found: str | None
    problem: str | None = None
    hint: str | None = None

    @property
    def ok(self) -> bool:
        """True when the part can be used."""
        return self.problem is None


@dataclass(frozen=True)
class Places:
    """What the user named on the command line; None where nothing was named."""

    start: Path
    config: Path | None
    policy: Path | None
    key: str | None
    database: str | None


@dataclass(frozen=True)
class Doctor:
    """Examines this machine."""

    places: Places
    locate: Callable[[str], LocatedTool]
    database: Callable[[str | None], Database]
    """Makes a database (directory or repository; None: the official one) ready for a scan."""
    password_is_set: bool
    clock: Clock

    def examine(self) -> tuple[Check, ...]:
        """Look at every part. Raises nothing: what fails is a check that is not ok."""
        config, policy = self._config_or_none(), self._policy_or_none()
        return (
            _check("python", _python),
            _check("git", lambda: self._tool("git")),
            _check("builder", lambda: self._builder(config)),
            _check("trivy", lambda: self._tool("trivy")),
            _check("database", lambda: self._database(policy)),
            _check("semgrep", self._semgrep),
            _check("config", lambda: f"{self._config_path()} for image {self._config().name}"),
            _check("policy", lambda: f"{self._policy().source} {self._policy().digest}"),
            _check("signing key", lambda: self._key(config)),
            _check("cosign", lambda: self._tool("cosign"), needed=False),
            _check("skopeo", lambda: self._tool("skopeo"), needed=False),
            _check("mmdebstrap", lambda: self._tool("mmdebstrap"), needed=False),
        )

    def _tool(self, name: str) -> str:
        tool = self.locate(name)
        return f"{tool.version} {tool.path}"

    def _semgrep(self) -> str:
        try:
            return self._tool("semgrep")
        except Unavailable as error:
            if any(importlib.util.find_spec(name) for name in ("ensurepip", "pip")):
                raise
            hint = f"apt-get install python3-venv, then {error.hint}"
            raise Unavailable(str(error), hint=hint) from None

    def _builder(self, config: Config | None) -> str:
        wanted = config.build.builder if config else None
        if wanted is BuilderName.DOCKER:
            return f"docker {self._tool('docker')}"
        try:
            return f"buildah {self._tool('buildah')} with {self._runtime()}"
        except PipelineError:
            if wanted is BuilderName.BUILDAH:
                raise
            return f"docker {self._tool('docker')}"

    def _runtime(self) -> str:
        try:
            return f"runc {self._tool('runc')}"
        except PipelineError:
            return f"crun {self._tool('crun')}"

    def _database(self, policy: LoadedPolicy | None) -> str:
        found = self.database(self.places.database)
        age = self.clock.now() - found.updated
        days = f"{age.total_seconds() / 86400:.1f} days old"
        if policy is None:
            raise Unavailable(f"{days}; without a policy nobody can say if that is too old")
        gate = policy.policy.gates.scan
        if found.demonstration and not gate.allow_demonstration_database:
            raise Unavailable(
                "it is the demonstration database, which the policy does not accept",
                where=found.source,
                hint="name a real one with --database",
            )
        if not found.demonstration and age > gate.max_database_age:
            raise Unavailable(
                f"{days}, the policy accepts {gate.max_database_age.total_seconds() / 86400:g}",
                where=found.source,
                hint="fetch a newer database",
            )
        if gate.database not in (None, found.digest):
            raise Unavailable(
                f"it has the digest {found.digest}, the policy accepts {gate.database}",
                where=found.source,
            )
        return f"{found.source}, {days}, {found.digest}"

    def _config_path(self) -> Path:
        return self.places.config or configuration.find(self.places.start)

    def _config(self) -> Config:
        return configuration.load(self._config_path())

    def _config_or_none(self) -> Config | None:
        try:
            return self._config()
        except PipelineError:
            return None

    def _policy(self) -> LoadedPolicy:
        return document.load(self.places.policy or data_path("policies") / "release.yaml")

    def _policy_or_none(self) -> LoadedPolicy | None:
        try:
            return self._policy()
        except PipelineError:
            return None

    def _key(self, config: Config | None) -> str:
        hint = "secure-pipeline keys generate, then --key file:NAME or sign.key"
        named = self.places.key
        base = Path()
        if named is None and config and config.sign.key:
            named, base = config.sign.key, self._config_path().parent
        if named is None:
            raise ConfigError("no signing key is named", hint=hint)
        ref = KeyRef.parse(named)
        if ref.scheme != "file":
            return str(ref)
        path = base / ref.path
        if not path.is_file():
            raise ConfigError("no such key file", where=str(path), hint=hint)
        if not self.password_is_set:
            raise ConfigError(
                "the key's password is not set",
                where=str(path),
                hint="export SECURE_PIPELINE_KEY_PASSWORD=…",
            )
        return str(path)


def _check(part: str, look: Callable[[], str], *, needed: bool = True) -> Check:
    try:
        return Check(part, needed, look())
    except PipelineError as error:
        return Check(part, needed, None, str(error), error.hint)


def _python() -> str:
    if sys.version_info < _LEAST_PYTHON:
        raise Unavailable(f"Python {platform.python_version()} is older than 3.11")
    return f"{platform.python_version()} {sys.executable}"
