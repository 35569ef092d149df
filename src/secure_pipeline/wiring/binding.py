"""The real tools behind the ports, each looked for only when a stage asks for it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.config import BuilderName, Config
from secure_pipeline.data import data_path
from secure_pipeline.errors import ConfigError, Unavailable, UsageError
from secure_pipeline.events import ignore
from secure_pipeline.files import read_bounded, sha256_file
from secure_pipeline.keys import local
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.keys.verify import algorithm_of
from secure_pipeline.pipeline import Place, Ports, Settings, products
from secure_pipeline.policy.document import Algorithm, LoadedPolicy
from secure_pipeline.ports import Analyzer, Builder, Clock, Scanner, SourceState, TestRunner
from secure_pipeline.tools.buildah import Buildah
from secure_pipeline.tools.demodb import DemonstrationDatabase
from secure_pipeline.tools.git import GitSource
from secure_pipeline.tools.locate import LocatedTool, ToolStore, locate
from secure_pipeline.tools.process import Processes
from secure_pipeline.tools.rulepacks import resolve_packs
from secure_pipeline.tools.semgrep import Semgrep
from secure_pipeline.tools.testrunner import ProcessTestRunner
from secure_pipeline.tools.trivy import Trivy
from secure_pipeline.tools.trivydb import (
    OFFICIAL,
    DatabaseSource,
    DatabaseStore,
    DirectoryDatabase,
    PreparedDatabase,
    RepositoryDatabase,
)

DEMONSTRATION_NAME = "demonstration"
MAX_PEM_BYTES = 64 << 10
_WITHHELD = ("SECURE_PIPELINE_", "COSIGN_", "VAULT_", "SIGSTORE_")


@dataclass(frozen=True)
class Options:
    """What a command line says; None where nothing was said."""

    config: Path | None = None
    policy: Path | None = None
    state: Path | None = None
    run: str | None = None
    key: str | None = None
    image: str | None = None
    database: str | None = None
    cache: bool = True


@dataclass(frozen=True)
class World:
    """What wiring read from the environment."""

    environment: Mapping[str, str]
    path: str
    store: ToolStore
    directory: Path
    """The working directory."""


class Binding:
    """Makes ports from the real tools, each only when it is asked for."""

    def __init__(
        self, config: Config, place: Place, options: Options, world: World, processes: Processes
    ) -> None:
        self.config = config
        self.place = place
        self.options = options
        self.world = world
        self.processes = processes
        self.clock = SystemClock()
        self.tool = cache(self._locate)
        self.signer = cache(self._signer)
        self.database = cache(self._database)

    def ports(self) -> Ports:
        """Factories over the tools of this machine."""
        return Ports(
            clock=self.clock,
            identity=lambda name: self.tool(name).identity,
            analyzer=self._analyzer,
            runner=self._runner,
            builder=self._builder,
            scanner=self._scanner,
            database=lambda: self.database().record,
            signer=self.signer,
        )

    def settings(self, policy: LoadedPolicy, stages: tuple[str, ...]) -> Settings:
        """What the operator chose, resolved."""
        return Settings(
            packs=self._packs(policy),
            builder=self._builder_name().value if "build" in stages else "",
            test_environment=self._test_environment(),
            secret_values=self._secret_values(),
            trusted=self._trusted(policy, stages),
            image=self.options.image,
            use_cache=self.options.cache,
            program=_program_digest(),
        )

    def source(self) -> SourceState:
        """The working tree, without what the pipeline itself writes."""
        return self.git.state()

    @cached_property
    def git(self) -> GitSource:
        """The repository."""
        exclude = products(self.config, self.place)
        return GitSource(self.tool("git"), self.processes, self.place.root, exclude)

    def _locate(self, name: str) -> LocatedTool:
        return locate(name, store=self.world.store, path=self.world.path, processes=self.processes)

    def _signer(self) -> local.LocalSigner:
        text = self.options.key or self.config.sign.key
        if text is None:
            raise UsageError(
                "no signing key is named",
                hint="secure-pipeline keys generate, then --key file:release.key",
            )
        reference = KeyRef.parse(text)
        base = self.world.directory if self.options.key else self.place.root
        password = local.password_from(self.world.environment)
        if password is None:
            raise UsageError(
                "the key's password is not set", hint=f"set {local.PASSWORD_VARIABLES[0]}"
            )
        return local.load(base / reference.path, password)

    def _trusted(
        self, policy: LoadedPolicy, stages: tuple[str, ...]
    ) -> tuple[tuple[bytes, Algorithm], ...]:
        """The operator's own key, when the policy names none: only one given by the operator."""
        if policy.policy.keys or "verify" not in stages or self.options.key is None:
            return ()
        path = self.world.directory / KeyRef.parse(self.options.key).path
        return (public_key(local.public_path_of(path)),)

    def _packs(self, policy: LoadedPolicy) -> tuple[Path, ...]:
        """The rules of the policy always run; the repository can only add some."""
        trusted = resolve_packs(policy.policy.gates.analyze.rules, policy.source.parent)
        own = resolve_packs(self.config.analyze.rules, self.place.root)
        return tuple(dict.fromkeys((*trusted, *own)))

    def _test_environment(self) -> dict[str, str]:
        if self.config.test is None:
            return {}
        values = dict(self.config.test.environment)
        for name in self.config.test.pass_environment:
            if name.upper().startswith(_WITHHELD):
                raise ConfigError(
                    f"test.pass-environment names {name}, which is the pipeline's own",
                    hint="tests never see what signs",
                )
            if name in self.world.environment:
                values.setdefault(name, self.world.environment[name])
        return values

    def _secret_values(self) -> dict[str, str]:
        names = [secret.env for secret in self.config.build.secrets if secret.env]
        return {n: self.world.environment[n] for n in names if n in self.world.environment}

    def _builder_name(self) -> BuilderName:
        if self.config.build.builder:
            return self.config.build.builder
        for name in BuilderName:
            if shutil.which(name.value, path=self.world.path):
                return name
        raise Unavailable(
            "no builder is installed: neither buildah nor docker", hint="apt-get install buildah"
        )

    def _analyzer(self) -> Analyzer:
        return Semgrep(self.tool("semgrep"), self.processes, self.git.files)

    def _runner(self) -> TestRunner:
        return ProcessTestRunner(self.processes)

    def _builder(self) -> Builder:
        tool = self.tool(self._builder_name().value)
        storage = self.place.state / "builder"
        return Buildah(tool, self.processes, storage, self.clock)

    def _scanner(self) -> Scanner:
        return Trivy(
            tool=self.tool("trivy"),
            processes=self.processes,
            database=self._source_of_database(),
            work=self.place.state / "scan",
            clock=self.clock,
        )

    def _database(self) -> PreparedDatabase:
        return self._source_of_database().prepare(ignore)

    def _source_of_database(self) -> DatabaseSource:
        return database_source(
            self.options.database,
            store=DatabaseStore(self.world.store.root.parent / "databases"),
            tool=self.tool,
            processes=self.processes,
            clock=self.clock,
            directory=self.world.directory,
        )


def database_source(
    named: str | None,
    *,
    store: DatabaseStore,
    tool: Callable[[str], LocatedTool],
    processes: Processes,
    clock: Clock,
    directory: Path,
) -> DatabaseSource:
    """The database that the operator named: 'demonstration', a path, or an OCI repository.

    Without a name: Trivy's official repository.
    """
    if named == DEMONSTRATION_NAME:
        advisories = data_path("tools") / "go" / "demodb" / "advisories.json"
        return DemonstrationDatabase(advisories, lambda: tool("demodb"), store, processes)
    if named is not None and (directory / named).exists():
        return DirectoryDatabase(directory / named, store)
    if named is not None and named.startswith(("/", "./", "../", "~")):
        raise Unavailable("there is no such database", where=named)
    return RepositoryDatabase(
        repository=named or OFFICIAL,
        store=store,
        tool=tool("trivy"),
        processes=processes,
        clock=clock,
    )


def public_key(path: Path) -> tuple[bytes, Algorithm]:
    """A PEM public key with the algorithm that its kind allows. Raises: ConfigError."""
    pem = read_bounded(path, MAX_PEM_BYTES)
    try:
        algorithm = algorithm_of(load_pem_public_key(pem))
    except ValueError:
        raise ConfigError("holds no PEM public key", where=str(path)) from None
    if algorithm is None:
        raise ConfigError("is neither ECDSA P-256, P-384 nor Ed25519", where=str(path))
    return pem, algorithm


def _program_digest() -> str:
    """Digest of this program's code: evidence made by other code is not reused."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)} {sha256_file(path)}\n".encode())
    return digest.hexdigest()
