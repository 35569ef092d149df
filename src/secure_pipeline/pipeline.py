"""The stages bound to one repository, one policy and one run.

Each task says what its stage's answer depends on (for the cache) and calls the stage with its
inputs. Ports come from wiring as factories, so that a stage alone needs only its own tool.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date
from pathlib import Path
from typing import Any

from secure_pipeline.attestations.predicates import RunContext
from secure_pipeline.audit.log import FileLedger
from secure_pipeline.cache import Cache
from secure_pipeline.config import Config
from secure_pipeline.errors import ConfigError, UsageError
from secure_pipeline.events import OnEvent
from secure_pipeline.files import read_bounded, sha256_bytes
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.layout import Layout
from secure_pipeline.oci.reference import ImageReference
from secure_pipeline.oci.walk import check_image
from secure_pipeline.place import Place, digest_of_files, products
from secure_pipeline.policy import gates
from secure_pipeline.policy.baseline import MAX_BYTES as MAX_BASELINE_BYTES
from secure_pipeline.policy.document import LoadedPolicy
from secure_pipeline.ports import (
    Analyzer,
    AnySigner,
    Builder,
    Clock,
    IdentityVerifier,
    Scanner,
    SourceState,
    TestRunner,
)
from secure_pipeline.records import encode
from secure_pipeline.report import dashboard
from secure_pipeline.run import Executor, Results, RunOutcome, Task
from secure_pipeline.runs import Run, RunStore, dump_result
from secure_pipeline.signing import Recording, sign_recorded
from secure_pipeline.stages import analyze, build, scan, sign, test, verify
from secure_pipeline.stages.result import StageResult
from secure_pipeline.stages.signfiles import are_there


@dataclass(frozen=True)
class Keys:
    """What tools, database and signing key are, for the names of cache entries only.

    Cheap, and no proof: a stage that executes proves its tools then.
    """

    tool: Callable[[str], str]
    database: Callable[[], str]
    signer: Callable[[], str]


@dataclass(frozen=True)
class Ports:
    """Factories of what stages need; each is called only when a stage runs."""

    clock: Clock
    keys: Keys
    analyzer: Callable[[], Analyzer]
    runner: Callable[[], TestRunner]
    builder: Callable[[], Builder]
    scanner: Callable[[], Scanner]
    signer: Callable[[], AnySigner]
    identities: Callable[[LoadedPolicy], IdentityVerifier | None]
    """What checks identities that the policy names; None if it names none."""
    ledger: Callable[[], FileLedger]
    """Where the use of keys is recorded."""


@dataclass(frozen=True)
class Settings:
    """What the operator chose."""

    packs: tuple[Path, ...]
    builder: str
    """Name of the build tool."""
    test_environment: Mapping[str, str]
    secret_values: Mapping[str, str]
    trusted: tuple[tuple[bytes, Any], ...]
    """(PEM, algorithm) of keys that the operator trusts beside the policy's."""
    image: str | None
    signing_key: str
    """URI of the key; empty if none is named."""
    anchor: Path | None
    """File that signed heads of the ledger are kept in."""
    use_cache: bool
    program: str
    """Digest of this program's own code: another program is another answer."""
    engine: Mapping[str, str]
    """What the engine says about the run, for the provenance; empty on a machine of one's own."""


class Pipeline:
    """Everything that one execution needs."""

    def __init__(
        self,
        config: Config,
        policy: LoadedPolicy,
        place: Place,
        settings: Settings,
        source: SourceState,
        run: Run,
        ports: Ports,
        cancelled: threading.Event,
    ) -> None:
        self.config = config
        self.policy = policy
        self.place = place
        self.settings = settings
        self.source = source
        self.run = run
        self.ports = ports
        self._cancelled = cancelled

    def execute(self, stages: tuple[str, ...], on_event: OnEvent) -> RunOutcome:
        """Run the stages. Raises: Interrupted."""
        cache = Cache(self.place.cache) if self.settings.use_cache else None
        executor = Executor(self.run, cache, self.ports.clock, on_event, self._cancelled)
        tasks = {stage: getattr(self, f"_{stage}")() for stage in stages}
        return executor.execute(tasks)

    def finish(self, outcome: RunOutcome) -> None:
        """Write dashboard.json, the mark of a run that came to its end."""
        earlier = dashboard.earlier(RunStore(self.place.runs), self.run.id)
        self.run.save_document(
            dashboard.FILE, dashboard.dashboard(self.run.header, outcome, earlier)
        )

    def image(self, outcome: RunOutcome | None = None) -> str | None:
        """``name@sha256:…`` of this run's image, or None while there is none."""
        for stage in outcome.stages if outcome else ():
            if stage.stage == "build" and stage.stored:
                digest = stage.stored.result.figures.get("digest")
                return f"{self.config.name}@{digest}" if digest else None
        stored = self.run.load("build")
        digest = stored.result.figures.get("digest") if stored else None
        if digest:
            return f"{self.config.name}@{digest}"
        return self.settings.image

    # --- tasks -------------------------------------------------------------------------

    def _analyze(self) -> Task:
        inputs = analyze.AnalyzeInputs(
            root=self.place.root,
            packs=self.settings.packs,
            config=self.config.analyze,
            gate=self.policy.policy.gates.analyze,
            today=self._today(),
            exceptions=self.policy.policy.exceptions,
            baseline=_baseline(
                self.policy.source.parent, self.policy.policy.gates.analyze.baseline
            ),
            repository_baseline=_baseline(self.place.root, self.config.analyze.baseline),
        )

        def execute(results: Results, on_event: OnEvent) -> StageResult:
            return analyze.analyze(inputs, self.ports.analyzer(), self.ports.clock, on_event)

        def depends(results: Results) -> Mapping[str, Any]:
            return {
                **self._common(),
                "tool": self.ports.keys.tool("semgrep"),
                "rules": [digest_of_files(pack) for pack in self.settings.packs],
                "config": encode(inputs.config),
                "gate": encode(inputs.gate),
                "exceptions": encode(inputs.exceptions),
                "baselines": [sorted(inputs.baseline), sorted(inputs.repository_baseline)],
                "today": encode(inputs.today),
            }

        return Task("analyze", execute, depends)

    def _test(self) -> Task:
        config = self.config.test
        if config is None:
            raise ConfigError(
                "there is no 'test' section, and a release needs tests",
                where=str(self.place.root / "secure-pipeline.yaml"),
                hint="add test.command and test.junit",
            )
        minimum = gates.minimum_coverage(self.policy.policy.gates.test, config)

        def execute(results: Results, on_event: OnEvent) -> StageResult:
            inputs = test.TestInputs(
                root=self.place.root,
                config=config,
                environment=self.settings.test_environment,
                minimum_coverage=minimum,
            )
            return test.test(inputs, self.ports.runner(), self.ports.clock, on_event)

        def depends(results: Results) -> Mapping[str, Any]:
            environment = sorted(self.settings.test_environment.items())
            return {
                **self._common(),
                "config": encode(config),
                "environment": sha256_bytes(repr(environment).encode()),
                "minimum": minimum,
            }

        return Task("test", execute, depends)

    def _build(self) -> Task:
        config = self.config.build
        bases = {name: self.place.root / path for name, path in config.bases.items()}

        def execute(results: Results, on_event: OnEvent) -> StageResult:
            inputs = build.BuildInputs(
                root=self.place.root,
                config=config,
                gate=self.policy.policy.gates.build,
                source=self.source,
                layout=self.place.layout,
                name=self.config.name,
                secret_values=self.settings.secret_values,
                ignore=self._products(),
                engine=self.settings.engine,
            )
            return build.build(inputs, self.ports.builder(), self.ports.clock, on_event)

        def depends(results: Results) -> Mapping[str, Any]:
            return {
                **self._common(),
                "tool": self.ports.keys.tool(self.settings.builder),
                "context": build.context_digest(self.place.root, config, self._products()),
                "config": encode(config),
                "bases": {
                    name: digest_of_files(path / "index.json") for name, path in bases.items()
                },
                "gate": encode(self.policy.policy.gates.build),
                "epoch": self.source.time,
                "name": self.config.name,
                "engine": dict(self.settings.engine),
            }

        return Task("build", execute, depends, self._image_is_whole)

    def _scan(self) -> Task:
        gate = self.policy.policy.gates.scan
        severity = gates.scan_severity(gate, self.config.scan)

        def execute(results: Results, on_event: OnEvent) -> StageResult:
            inputs = scan.ScanInputs(
                layout=self.place.layout,
                image=self._reference(results),
                config=self.config.scan,
                gate=replace(gate, severity=severity),
                exceptions=self.policy.policy.exceptions,
                today=self._today(),
                root=self.place.root,
                build=self.config.build,
                policy_directory=self.policy.source.parent,
            )
            return scan.scan(inputs, self.ports.scanner(), self.ports.clock, on_event)

        def depends(results: Results) -> Mapping[str, Any]:
            return {
                **self._common(),
                "tool": self.ports.keys.tool("trivy"),
                "database": self.ports.keys.database(),
                "image": str(self._reference(results)),
                "config": encode(self.config.scan),
                "dockerfile": build.context_digest(
                    self.place.root, self.config.build, self._products()
                ),
                "gate": encode(replace(gate, severity=severity)),
                "exceptions": encode(self.policy.policy.exceptions),
                "vex": [
                    *(digest_of_files(self.place.root / path) for path in self.config.scan.vex),
                    *(digest_of_files(self.policy.source.parent / path) for path in gate.vex),
                ],
                "today": encode(self._today()),
            }

        return Task("scan", execute, depends)

    def _sign(self) -> Task:
        required = tuple(sorted({r.predicate for r in self.policy.policy.require}))

        def execute(results: Results, on_event: OnEvent) -> StageResult:
            inputs = sign.SignInputs(
                layout=self.place.layout,
                image=self._reference(results),
                context=self._context(),
                results=tuple(results[n].result for n in sign.NEEDED if n in results),
                required=required,
            )
            recording = Recording(
                self.ports.ledger(), self.settings.signing_key, self.settings.anchor
            )
            return sign_recorded(
                inputs,
                self.place.files,
                recording,
                self.ports.signer,
                self.ports.clock,
                on_event,
            )

        def depends(results: Results) -> Mapping[str, Any]:
            return {
                **self._common(),
                "results": {
                    name: sha256_bytes(dump_result(results[name].result, results[name].origin))
                    for name in sign.NEEDED
                    if name in results
                },
                "key": self.ports.keys.signer(),
                "required": list(required),
            }

        return Task("sign", execute, depends, lambda result: are_there(result, self.place.files))

    def _verify(self) -> Task:
        def execute(results: Results, on_event: OnEvent) -> StageResult:
            inputs = verify.VerifyInputs(
                source=Layout.open(self.place.layout),
                image=self._reference(results),
                policy=self.policy,
                operator_keys=self.settings.trusted,
                identity_verifier=self.ports.identities(self.policy),
            )
            return verify.verify(inputs, self.ports.clock, on_event)

        return Task("verify", execute, lambda results: None)

    # --- what the tasks share ----------------------------------------------------------

    def _common(self) -> dict[str, Any]:
        return {
            "program": self.settings.program,
            "builder": self.run.header.builder_id,
            "tree": self.source.tree,
            "commit": self.source.commit,
            "uncommitted": self.source.uncommitted,
        }

    def _context(self) -> RunContext:
        header = self.run.header
        return RunContext(
            header.id, header.commit, header.tree, header.uncommitted, header.builder_id
        )

    def _reference(self, results: Results) -> ImageReference:
        """The image of the run; one that was named must be the same. Raises: UsageError."""
        built = results["build"].result.figures.get("digest") if "build" in results else None
        named = self.settings.image
        if named:
            reference = ImageReference.parse(named)
            if built and str(reference.digest) != built:
                raise UsageError(
                    f"run {self.run.id} built {built}, not {reference.digest}",
                    hint="name the run that built it with --run",
                )
            return reference
        if not built:
            raise UsageError(
                f"run {self.run.id} has no image",
                hint="run 'secure-pipeline build' first, or name NAME@sha256:DIGEST",
            )
        return ImageReference(self.config.name, Digest.parse(str(built)))

    def _image_is_whole(self, result: StageResult) -> bool:
        """A build is reused only while its image is there; one that was altered is an alarm."""
        digest = Digest.parse(str(result.figures["digest"]))
        if not (self.place.layout / "index.json").is_file():
            return False
        layout = Layout.open(self.place.layout)
        if all(item.digest != digest for item in layout.manifests()):
            return False
        check_image(layout, digest)
        return True

    def _products(self) -> tuple[str, ...]:
        """Paths below the root that the pipeline writes: no part of the source."""
        return products(self.config, self.place)

    def _today(self) -> date:
        return self.ports.clock.now().astimezone(UTC).date()


def _baseline(directory: Path, name: str | None) -> frozenset[str]:
    if name is None:
        return frozenset()
    path = directory / name
    return analyze.read_baseline(read_bounded(path, MAX_BASELINE_BYTES), str(path))
