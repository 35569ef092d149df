"""SLSA provenance v1 of a build (docs/reference/build-type-v1.md describes the build type)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from secure_pipeline.attestations import predicates
from secure_pipeline.config import BuildConfig
from secure_pipeline.dockerfile.context import Context
from secure_pipeline.dockerfile.parser import Dockerfile
from secure_pipeline.dockerfile.secrets import secret_name, secret_shape
from secure_pipeline.files import sha256_bytes
from secure_pipeline.oci.imagefiles import ImageFile
from secure_pipeline.ports import BuildOutcome, SourceState
from secure_pipeline.shape import rfc3339

BUILD_TYPE = f"{predicates.NAMESPACE}/build-type/v1"


@dataclass(frozen=True)
class BuildFacts:
    """What happened in a build."""

    dockerfile: Dockerfile
    context: Context
    ignore_source: str | None
    engine: Mapping[str, str]
    relaxed: Mapping[str, str]
    """Rules that the policy switched off and that mattered, with the reasons."""
    outcome: BuildOutcome
    files: tuple[ImageFile, ...]
    """Files of the image that are signed on their own too."""
    started: datetime
    finished: datetime


def provenance(config: BuildConfig, source: SourceState, facts: BuildFacts) -> dict[str, Any]:
    """SLSA provenance v1 without run id, commit and builder id: signing binds those."""
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": _external(config, source),
            "internalParameters": {
                "sourceDateEpoch": source.time,
                "relaxedRules": dict(facts.relaxed),
                "ignoreFile": facts.ignore_source or "",
                "engine": dict(facts.engine),
            },
            "resolvedDependencies": _dependencies(config, source, facts),
        },
        "runDetails": {
            "builder": {
                "version": {facts.outcome.tool.name: facts.outcome.tool.version},
                "builderDependencies": [
                    {"name": facts.outcome.tool.name, "digest": _digest(facts.outcome.tool.digest)}
                ],
            },
            "metadata": {
                "startedOn": rfc3339(facts.started),
                "finishedOn": rfc3339(facts.finished),
            },
            "byproducts": _byproducts(facts),
        },
    }


def _external(config: BuildConfig, source: SourceState) -> dict[str, Any]:
    """What the caller chose. Secrets by id only; an argument that looks like one is hidden."""
    return {
        "source": {"uri": source.remote or ""},
        "dockerfile": config.dockerfile,
        "context": config.context,
        "target": config.target or "",
        "platforms": list(config.platforms),
        "args": {
            name: "(hidden)" if secret_name(name) or secret_shape(value) else value
            for name, value in sorted(config.args.items())
        },
        "secrets": sorted(secret.id for secret in config.secrets),
        "network": config.network.value,
    }


def _dependencies(
    config: BuildConfig, source: SourceState, facts: BuildFacts
) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {"name": predicates.SOURCE_DEPENDENCY}
    if source.remote:
        entry["uri"] = source.remote
    bases = [
        {
            "name": base.name,
            "digest": _digest(base.digest),
            "annotations": {"kind": "base image", "local": base.name in config.bases},
        }
        for base in facts.outcome.bases
    ]
    context = {"files": facts.context.files, "bytes": facts.context.size}
    return [
        entry,
        *bases,
        {"name": "dockerfile", "digest": _digest(facts.dockerfile.digest)},
        {"name": "context", "digest": _digest(facts.context.digest), "annotations": context},
    ]


def _byproducts(facts: BuildFacts) -> list[dict[str, Any]]:
    log = {
        "name": "build.log",
        "mediaType": "text/plain",
        "digest": {"sha256": sha256_bytes(facts.outcome.log)},
    }
    stages = [
        {
            "name": f"stage {stage.name or stage.index}",
            "annotations": {"line": stage.line, "image": stage.image},
        }
        for stage in facts.dockerfile.stages
    ]
    files = [
        {"name": f"file {file.path}", "digest": _digest(str(file.digest))} for file in facts.files
    ]
    return [log, *stages, *files]


def _digest(text: str) -> dict[str, str]:
    return {"sha256": text.removeprefix("sha256:")}
