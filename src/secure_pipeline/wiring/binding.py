"""The real tools behind the ports, each looked for only when a stage asks for it."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from secure_pipeline.adapters.clock import SystemClock
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.config import BuilderName, Config
from secure_pipeline.data import data_path
from secure_pipeline.errors import ConfigError, Unavailable, UsageError
from secure_pipeline.events import ignore
from secure_pipeline.files import digest_of, read_bounded, sha256_bytes, sha256_file
from secure_pipeline.keys import local
from secure_pipeline.keys.uri import KeyRef
from secure_pipeline.keys.verify import read_public_key
from secure_pipeline.pipeline import Keys, Ports, Settings
from secure_pipeline.place import Place, products
from secure_pipeline.policy.document import Algorithm, LoadedPolicy
from secure_pipeline.ports import (
    Analyzer,
    AnySigner,
    Builder,
    Clock,
    Scanner,
    SourceState,
    TestRunner,
)
from secure_pipeline.records import encode
from secure_pipeline.tools.buildah import Buildah
from secure_pipeline.tools.demodb import DemonstrationDatabase
from secure_pipeline.tools.docker import Docker
from secure_pipeline.tools.git import GitSource
from secure_pipeline.tools.locate import LocatedTool, locate, tool_key
from secure_pipeline.tools.pins import load_pins
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
    RepositoryDatabase,
)
from secure_pipeline.wiring import vault
from secure_pipeline.wiring.auditing import LEDGER, open_ledger
from secure_pipeline.wiring.engine import engine_facts
from secure_pipeline.wiring.identity import keyless_signer, known_signer
from secure_pipeline.wiring.keyless import identity_verifier
from secure_pipeline.wiring.options import Options, World, proxies

if TYPE_CHECKING:
    from secure_pipeline.adapters.vault import VaultSession

BUILD_STORAGE = "SECURE_PIPELINE_BUILD_STORAGE"
"""Variable with a directory for buildah's layers that no other stage can write."""
DEMONSTRATION_NAME = "demonstration"
_WITHHELD = ("SECURE_PIPELINE_", "COSIGN_", "VAULT_", "SIGSTORE_")


class Binding:
    """Makes ports from the real tools, each only when it is asked for."""

    def __init__(
        self,
        config: Config,
        policy: LoadedPolicy,
        place: Place,
        options: Options,
        world: World,
        processes: Processes,
        warn: Callable[[str], None],
    ) -> None:
        self.config = config
        self.policy = policy
        self.place = place
        self.options = options
        self.world = world
        self.processes = processes
        self.warn = warn
        self.run: str | None = None
        """Id of the run, once it is chosen."""
        self._session: VaultSession | None = None
        self.clock = SystemClock()
        self.tool = cache(self._locate)

    def ports(self) -> Ports:
        """Factories over the tools of this machine."""
        return Ports(
            clock=self.clock,
            keys=Keys(self._tool_key, self._database_key, self._signer_key),
            analyzer=self._analyzer,
            runner=self._runner,
            builder=self._builder,
            scanner=self._scanner,
            signer=self._signer,
            identities=identity_verifier,
            ledger=self.ledger,
        )

    def ledger(self) -> FileLedger:
        """The ledger of this state directory, or the one that was named."""
        named = self.options.ledger
        return open_ledger(self.world.directory / named if named else self.place.state / LEDGER)

    def settings(self, policy: LoadedPolicy, stages: tuple[str, ...]) -> Settings:
        """What the operator chose, resolved."""
        return Settings(
            packs=self._packs(policy),
            builder=self._builder_name().value if "build" in stages else "",
            test_environment=self._test_environment(),
            secret_values=self._secret_values(),
            trusted=self._trusted(policy, stages),
            image=self.options.image,
            signing_key=self.options.key or self.config.sign.key or "",
            anchor=self.options.anchor and self.world.directory / self.options.anchor,
            use_cache=self.options.cache,
            program=_program_digest(),
            engine=engine_facts(self.world.environment),
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
        return locate(name, store=self.world.store, path=self._path(name), processes=self.processes)

    def _path(self, name: str) -> str:
        """The distribution's docker client first: it is the one that brings BuildKit along."""
        return f"/usr/bin:{self.world.path}" if name == "docker" else self.world.path

    def _tool_key(self, name: str) -> str:
        return f"{name} {tool_key(load_pins()[name], self._path(name))}"

    def _database_key(self) -> str:
        if self.options.database == DEMONSTRATION_NAME:
            return f"{self._tool_key('demodb')} {sha256_file(_advisories())}"
        return digest_of(encode(self._source_of_database().prepare(ignore).record))

    def _signer_key(self) -> str:
        """What a signature depends on; a key in Vault, or an identity, may change each time."""
        ref = self._key_ref()
        if ref.vault or ref.keyless:
            return secrets.token_hex(16)
        return sha256_bytes(read_bounded(self._key_path(), local.MAX_KEY_BYTES))

    def _key_ref(self) -> KeyRef:
        text = self.options.key or self.config.sign.key
        if text is None:
            raise UsageError(
                "no signing key is named",
                hint="secure-pipeline keys generate, then --key file:release.key",
            )
        ref = KeyRef.parse(text)
        if ref.keyless and ref.value and not self.options.key:
            raise ConfigError(
                "a repository does not say who gets the identity token",
                where="sign.key",
                hint=f"write 'keyless' there, or name the file yourself: --key {ref}",
            )
        return ref

    def _key_path(self) -> Path:
        base = self.world.directory if self.options.key else self.place.root
        return base / self._key_ref().path

    def require_key(self) -> None:
        """Fail before any stage runs if there is no key to sign with at the end."""
        ref = self._key_ref()
        if ref.vault:
            vault.check_rule(ref, self.policy.policy.signing)
            # The session that logs in is made when the run is known.
            self._new_session().require_serving()
            return
        if ref.keyless:
            if self.options.anchor:
                raise UsageError(
                    "a file of heads takes signatures of keys only",
                    hint="leave --ledger-anchor out: the head is with the image's evidence",
                )
            keyless_signer(ref, self.policy, self.world)
            return
        self._signer_key()
        self._password()

    def close(self) -> None:
        """End what was opened: the token of Vault is revoked."""
        if self._session is not None:
            self._session.close()

    def _vault(self) -> VaultSession:
        """The session with Vault, which logs in when it is first used."""
        if self._session is None:
            self._session = self._new_session()
        return self._session

    def _new_session(self) -> VaultSession:
        return vault.vault_session(
            self.world,
            self.place.state,
            self.policy.policy.signing,
            stage="sign",
            run=self.run,
            ledger=self.ledger(),
            warn=self.warn,
        )

    def _password(self) -> str:
        password = local.password_from(self.world.environment)
        if password is None:
            raise UsageError(
                "the key's password is not set", hint=f"set {local.PASSWORD_VARIABLES[0]}"
            )
        return password

    def _signer(self) -> AnySigner:
        ref = self._key_ref()
        if ref.keyless:
            return known_signer(ref, self.policy, self.world)
        if not ref.vault:
            return local.load(self._key_path(), self._password())
        return vault.young_signer(self._vault(), ref, self.policy, self.world.environment)

    def _trusted(
        self, policy: LoadedPolicy, stages: tuple[str, ...]
    ) -> tuple[tuple[bytes, Algorithm], ...]:
        """The operator's own key, when the policy names none: only one given by the operator."""
        if policy.policy.keys or "verify" not in stages or self.options.key is None:
            return ()
        if self._key_ref().keyless:
            if policy.policy.identities:
                return ()
            raise UsageError(
                "the policy names no identity, and none is trusted only for having signed",
                hint="put issuer and identity under 'identities' of the --policy",
            )
        if self._key_ref().vault:
            raise UsageError(
                "the policy names no key, and one in Vault is not trusted only for being there",
                hint="secure-pipeline keys show KEY, and put it under 'keys' of the --policy",
            )
        key = read_public_key(local.public_path_of(self._key_path()))
        return ((key.pem, key.algorithm),)

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
        name = self._builder_name()
        tool = self.tool(name.value)
        environment = proxies(self.world.environment)
        if name is BuilderName.DOCKER:
            directory = self.place.state / "docker"
            host = self.world.environment.get("DOCKER_HOST")
            return Docker(
                tool, self.processes, directory, self.clock, host=host, environment=environment
            )
        named = self.world.environment.get(BUILD_STORAGE)
        storage = self.world.directory / named if named else self.place.state / "builder"
        return Buildah(tool, self.processes, storage, self.clock, environment=environment)

    def _scanner(self) -> Scanner:
        return Trivy(
            tool=self.tool("trivy"),
            processes=self.processes,
            database=self._source_of_database(),
            work=self.place.state / "scan",
            clock=self.clock,
        )

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
        return DemonstrationDatabase(_advisories(), lambda: tool("demodb"), store, processes)
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


def _advisories() -> Path:
    return data_path("tools") / "go" / "demodb" / "advisories.json"


def _program_digest() -> str:
    """Digest of this program's code: evidence made by other code is not reused."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)} {sha256_file(path)}\n".encode())
    return digest.hexdigest()
