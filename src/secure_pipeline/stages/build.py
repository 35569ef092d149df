"""The ``build`` stage: refuse what a build may not do, build, and say what was built from what.

Refusals come before anything runs (BLD-03, BLD-05, BLD-08). The image is one digest in an
OCI layout; the evidence is SLSA provenance v1 (docs/reference/build-type-v1.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from secure_pipeline.attestations import predicates
from secure_pipeline.config import BuildConfig
from secure_pipeline.dockerfile import ignore as ignoring
from secure_pipeline.dockerfile.checks import (
    SECRET_ARGUMENT,
    SECRET_IN_CONTEXT,
    Refusal,
    check,
)
from secure_pipeline.dockerfile.context import Context, examine
from secure_pipeline.dockerfile.images import target_stage
from secure_pipeline.dockerfile.parser import Dockerfile, load
from secure_pipeline.errors import ConfigError, ExitCode
from secure_pipeline.events import OnEvent, Progress
from secure_pipeline.files import digest_of
from secure_pipeline.findings import Finding, Ignored, Kind, Location, Severity
from secure_pipeline.oci.digest import Digest
from secure_pipeline.oci.imagefiles import FilesRefused, ImageFile, take_files
from secure_pipeline.oci.layout import Layout
from secure_pipeline.policy.document import BuildGate, Relaxation
from secure_pipeline.ports import (
    Builder,
    BuildFailed,
    BuildOutcome,
    BuildRequest,
    BuildStep,
    Clock,
    SourceState,
)
from secure_pipeline.stages.provenance import BuildFacts, provenance
from secure_pipeline.stages.result import Evidence, Report, StageResult, Verdict

STAGE = "build"
LOG_LINES = 12
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?\Z")
_DEFAULT_PLATFORM = "linux/amd64"


@dataclass(frozen=True)
class BuildInputs:
    """What to build. ``root`` is the repository; paths of ``config`` are relative to it."""

    root: Path
    config: BuildConfig
    gate: BuildGate
    source: SourceState
    layout: Path
    """OCI layout to put the image into."""
    name: str
    secret_values: Mapping[str, str]
    """Values of env secrets by variable."""
    ignore: tuple[str, ...] = ()
    """Paths below the root that the pipeline itself writes: never part of the context."""
    engine: Mapping[str, str] = field(default_factory=dict)
    """What the engine says about the run."""


@dataclass(frozen=True)
class _Examined:
    """The inputs, read and checked."""

    dockerfile: Dockerfile
    context: Context
    request: BuildRequest
    refused: tuple[Refusal, ...]
    relaxed: tuple[tuple[Refusal, Relaxation], ...]
    ignore_source: str | None


def build(inputs: BuildInputs, builder: Builder, clock: Clock, on_event: OnEvent) -> StageResult:
    """Check, build, and return the image's digest with its provenance, and its files' digests.

    FAIL with exit code 12 where a rule is broken, 10 where a step fails or the image lacks a file.
    Raises: ConfigError (a Dockerfile that does not parse, a path outside the repository),
    Unavailable, Inconclusive (the builder was killed or timed out), Interrupted.
    """
    started, begun = clock.now(), clock.monotonic()
    examined = _examine(inputs)
    for note in examined.context.notes:
        on_event(Progress(STAGE, f"note: {note}"))
    for refusal, relaxation in examined.relaxed:
        on_event(Progress(STAGE, f"{refusal.rule} is relaxed by the policy: {relaxation.reason}"))
    times = _Times(started, begun, clock)
    if examined.refused:
        return _denied(examined, times)
    try:
        outcome = builder.build(examined.request, on_event)
    except BuildFailed as error:
        return _failed(examined, error, times, LOG_LINES)
    try:
        files = _files(inputs, outcome)
    except FilesRefused as error:
        lacking = BuildFailed(str(error), where="build.files", steps=outcome.steps, log=outcome.log)
        return _failed(examined, lacking, times, 0)
    return _passed(inputs, examined, outcome, files, times)


def context_digest(root: Path, config: BuildConfig, ignore: tuple[str, ...]) -> str:
    """``sha256:…`` over everything that a build of these inputs reads from the repository.

    Raises: ConfigError.
    """
    context, dockerfile = _paths(root, config)
    rules = ignoring.load(context, dockerfile, _patterns(root, context, config, ignore))
    digest = load(dockerfile, config.dockerfile).digest
    parts = {"context": examine(context, rules).digest, "dockerfile": digest}
    return f"sha256:{digest_of(parts)}"


@dataclass(frozen=True)
class _Times:
    """When the stage began, and the clock that says when it ends."""

    started: datetime
    begun: float
    clock: Clock

    def result(self, verdict: Verdict, summary: str, **members: Any) -> StageResult:
        """Make the result, finished now."""
        seconds = self.clock.monotonic() - self.begun
        finished = self.clock.now()
        return StageResult(STAGE, verdict, summary, self.started, finished, seconds, **members)


def _examine(inputs: BuildInputs) -> _Examined:
    config = inputs.config
    context_path, dockerfile_path = _paths(inputs.root, config)
    dockerfile = load(dockerfile_path, config.dockerfile)
    target_stage(dockerfile, config.target)
    patterns = _patterns(inputs.root, context_path, config, inputs.ignore)
    rules = ignoring.load(context_path, dockerfile_path, patterns)
    context = examine(context_path, rules)
    found = [*_dockerfile_refusals(dockerfile, config), *context.refusals]
    allowed = {relaxation.rule: relaxation for relaxation in inputs.gate.allow}
    request = BuildRequest(
        context=context_path,
        dockerfile=dockerfile_path,
        target=config.target,
        platforms=config.platforms,
        args=config.args,
        secrets=config.secrets,
        secret_values=inputs.secret_values,
        bases={name: inputs.root / path for name, path in config.bases.items()},
        network=config.network,
        source_date_epoch=inputs.source.time,
        timeout=config.timeout,
        output=inputs.layout,
        name=inputs.name,
        ignore=patterns,
        dockerfile_name=config.dockerfile,
        root=inputs.root,
    )
    return _Examined(
        dockerfile,
        context,
        request,
        tuple(item for item in found if item.rule not in allowed),
        tuple((item, allowed[item.rule]) for item in found if item.rule in allowed),
        rules.source,
    )


def _paths(root: Path, config: BuildConfig) -> tuple[Path, Path]:
    """Context and Dockerfile; neither may lead out of the repository (BLD-06)."""
    inside = root.resolve()
    found = []
    for key, value in (("context", config.context), ("dockerfile", config.dockerfile)):
        path = (root / value).resolve()
        if not path.is_relative_to(inside):
            raise ConfigError(f"build.{key} {value!r} leads out of the repository", where=str(root))
        found.append(path)
    return found[0], found[1]


def _patterns(
    root: Path, context: Path, config: BuildConfig, ignore: tuple[str, ...]
) -> tuple[str, ...]:
    """Ignore patterns for our own products and the base images, relative to the context."""
    patterns = []
    for name in (*ignore, *config.bases.values()):
        path = (root / name).resolve()
        if path.is_relative_to(context) and path != context:
            relative = path.relative_to(context).as_posix()
            patterns.append(re.sub(r"([*?\[\]\\!])", r"\\\1", relative))
    return tuple(patterns)


def _dockerfile_refusals(dockerfile: Dockerfile, config: BuildConfig) -> list[Refusal]:
    found: dict[Refusal, None] = {}
    for platform in config.platforms or (_DEFAULT_PLATFORM,):
        if not _PLATFORM.match(platform):
            raise ConfigError(
                f"build.platforms: {platform[:60]!r} is no OS/ARCH", hint="write linux/amd64"
            )
        found |= dict.fromkeys(check(dockerfile, config.args, config.bases, platform))
    return list(found)


def _denied(examined: _Examined, times: _Times) -> StageResult:
    count = len(examined.refused)
    return times.result(
        Verdict.FAIL,
        f"refused before building: {count} rule{'s' if count != 1 else ''} broken",
        reasons=tuple(_reason(examined, refusal) for refusal in examined.refused),
        findings=_findings(examined),
        figures=_common_figures(examined),
        exit_code=ExitCode.DENIED,
    )


def _files(inputs: BuildInputs, outcome: BuildOutcome) -> tuple[ImageFile, ...]:
    """The files of the image that are signed on their own. Raises: FilesRefused."""
    if not inputs.config.files:
        return ()
    layout, digest = Layout.open(inputs.layout), Digest.parse(outcome.digest)
    return take_files(layout, digest, inputs.config.files)


def _failed(examined: _Examined, error: BuildFailed, times: _Times, lines: int) -> StageResult:
    """``lines``: how much of the log's end tells why."""
    log = error.log.decode("utf-8", "replace").strip().splitlines()
    tail = log[-lines:] if lines else []
    return times.result(
        Verdict.FAIL,
        str(error),
        reasons=(str(error), *(f"  {line[:300]}" for line in tail if line.strip())),
        findings=_findings(examined),
        reports=(Report("build.log", "text/plain", error.log),),
        figures=_common_figures(examined) | _step_figures(error.steps),
    )


def _passed(
    inputs: BuildInputs,
    examined: _Examined,
    outcome: BuildOutcome,
    files: tuple[ImageFile, ...],
    times: _Times,
) -> StageResult:
    predicate = provenance(
        inputs.config,
        inputs.source,
        BuildFacts(
            dockerfile=examined.dockerfile,
            context=examined.context,
            ignore_source=examined.ignore_source,
            engine=inputs.engine,
            relaxed={rule.rule: rule.reason for _, rule in examined.relaxed},
            outcome=outcome,
            files=files,
            started=times.started,
            finished=times.clock.now(),
        ),
    )
    steps = _step_figures(outcome.steps)
    relaxed = f"; {len(examined.relaxed)} refusals relaxed" if examined.relaxed else ""
    named = f"; {len(files)} files to sign" if files else ""
    return times.result(
        Verdict.PASS,
        f"{outcome.digest}: {steps['steps_executed']} steps executed, "
        f"{steps['steps_cached']} from the cache{relaxed}{named}",
        findings=_findings(examined),
        evidence=(Evidence(predicates.PROVENANCE, predicate),),
        reports=(
            Report("build.log", "text/plain", outcome.log),
            Report("provenance.json", "application/json", _json(predicate)),
        ),
        figures={
            "digest": outcome.digest,
            "media_type": outcome.media_type,
            "size": outcome.size,
            "bases": {base.name: base.digest for base in outcome.bases},
            "base_layers": sorted({layer for base in outcome.bases for layer in base.layers}),
            "builder": f"{outcome.tool.name} {outcome.tool.version}",
            "files": [file.to_json() for file in files],
            **_common_figures(examined),
            **steps,
        },
    )


def _reason(examined: _Examined, refusal: Refusal) -> str:
    where = f"{examined.dockerfile.source}:{refusal.line}: " if refusal.line else ""
    return f"{where}{refusal.message} [{refusal.rule}]; {refusal.hint}"


def _findings(examined: _Examined) -> tuple[Finding, ...]:
    refused = [_finding(examined, refusal, None) for refusal in examined.refused]
    relaxed = [_finding(examined, refusal, rule) for refusal, rule in examined.relaxed]
    return (*refused, *relaxed)


def _finding(examined: _Examined, refusal: Refusal, relaxed: Relaxation | None) -> Finding:
    secret = refusal.rule in (SECRET_ARGUMENT, SECRET_IN_CONTEXT)
    path = refusal.subject if refusal.rule == SECRET_IN_CONTEXT else examined.dockerfile.source
    return Finding(
        rule=refusal.rule,
        kind=Kind.SECRET if secret else Kind.MISCONFIGURATION,
        severity=Severity.HIGH,
        message=f"{refusal.message}; {refusal.hint}",
        fingerprint=digest_of({"rule": refusal.rule, "path": path, "subject": refusal.subject}),
        location=Location(path, refusal.line),
        dockerfile_line=refusal.line,
        ignored=Ignored.EXCEPTION if relaxed else None,
        reason=relaxed.reason if relaxed else None,
    )


def _common_figures(examined: _Examined) -> dict[str, Any]:
    rules = [refusal.rule for refusal in examined.refused]
    relaxed = [refusal.rule for refusal, _ in examined.relaxed]
    return {
        "refused": {rule: rules.count(rule) for rule in sorted(set(rules))},
        "relaxed": {rule: relaxed.count(rule) for rule in sorted(set(relaxed))},
        "context_digest": examined.context.digest,
        "context_files": examined.context.files,
        "context_bytes": examined.context.size,
        "notes": list(examined.context.notes),
    }


def _step_figures(steps: tuple[BuildStep, ...]) -> dict[str, Any]:
    cached = [step for step in steps if step.cached]
    executed = [step for step in steps if not step.cached]
    return {
        "steps_cached": len(cached),
        "steps_executed": len(executed),
        "seconds_cached": round(sum(step.seconds for step in cached), 3),
        "seconds_executed": round(sum(step.seconds for step in executed), 3),
        "steps": [
            {"line": s.line, "cached": s.cached, "seconds": round(s.seconds, 3), "text": s.text}
            for s in steps
        ],
    }


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
