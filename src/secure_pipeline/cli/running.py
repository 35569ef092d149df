"""``secure-pipeline verify running``: what runs, against its evidence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from secure_pipeline.cli._output import API_VERSION, Output
from secure_pipeline.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from secure_pipeline.wiring.keyless import Trust
    from secure_pipeline.wiring.options import Options
    from secure_pipeline.wiring.running import RunningSession

ImagesOption = Annotated[
    list[str] | None,
    typer.Option("--image", help="running: a build it may be, NAME@sha256:DIGEST; repeatable."),
]
NoDriftOption = Annotated[
    bool, typer.Option("--no-drift", help="running: do not look for changed executables.")
]
WatchOption = Annotated[
    bool, typer.Option("--watch", help="running: look again and again; one line a change.")
]
IntervalOption = Annotated[
    str, typer.Option("--interval", help="running: time between two looks of --watch.")
]
CountOption = Annotated[
    int | None, typer.Option("--count", help="running: end --watch after this many looks.")
]
VsaKeyOption = Annotated[
    str | None,
    typer.Option("--vsa-key", help="running: sign a summary with this key, file:release.key."),
]
VsaOutputOption = Annotated[
    Path | None, typer.Option("--vsa-output", help="running: file for the signed summaries.")
]


@dataclass(frozen=True)
class RunningOptions:
    """What only ``verify running`` takes, as typed."""

    images: tuple[str, ...]
    drift: bool
    watch: bool
    interval: str
    count: int | None
    vsa_key: str | None
    vsa_output: Path | None

    @property
    def given(self) -> bool:
        """Whether any was typed."""
        return self != RunningOptions((), True, False, self.interval, None, None, None)


def verify_running(
    targets: list[str],
    asked: RunningOptions,
    layout: Path | None,
    keys: tuple[Path, ...],
    options: Options,
    *,
    trust: Trust,
    as_json: bool,
) -> ExitCode:
    """Look at what runs once, or again and again; print it and return the exit code."""
    from secure_pipeline.oci.reference import ImageReference
    from secure_pipeline.stages.running_target import parse_target
    from secure_pipeline.wiring import open_running
    from secure_pipeline.wiring.running import RunningRequest

    _check(targets, asked)
    request = RunningRequest(
        targets=tuple(parse_target(text) for text in targets),
        images=tuple(ImageReference.parse(text) for text in asked.images),
        layout=layout,
        keys=keys,
        drift=asked.drift,
        vsa_key=asked.vsa_key,
        trust=trust,
    )
    session = open_running(request, options)
    output = Output(as_json=as_json)
    if asked.watch:
        return _watch(output, session, asked)
    return _once(output, session, asked.vsa_output)


def _check(targets: list[str], asked: RunningOptions) -> None:
    if not targets:
        raise UsageError("nothing is named", hint="secure-pipeline verify running docker://NAME")
    if asked.count is not None and (not asked.watch or asked.count < 1):
        raise UsageError("--count takes 1 or more, with --watch", hint="--watch --count 2")
    if asked.vsa_output and not asked.vsa_key:
        raise UsageError("--vsa-output needs a key", hint="add --vsa-key file:release.key")
    if asked.vsa_key and asked.watch:
        raise UsageError("--watch signs no summaries", hint="leave out --watch or --vsa-key")


def _once(output: Output, session: RunningSession, vsa_output: Path | None) -> ExitCode:
    from secure_pipeline.files import write_atomic
    from secure_pipeline.report import running as report
    from secure_pipeline.stages.running_vsa import to_lines

    found = session.look()
    for line in report.lines(found):
        output.text(line)
    summaries = session.summarise(found)
    if vsa_output and summaries:
        write_atomic(vsa_output, to_lines(summaries))
    for summary in summaries:
        output.text(f"summary {summary.predicate['verificationResult']} {summary.image}")
    results = [
        {"image": str(item.image), "result": item.predicate["verificationResult"]}
        for item in summaries
    ]
    output.document("RunningVerification", {**report.document(found), "summaries": results})
    return found.code


def _watch(output: Output, session: RunningSession, asked: RunningOptions) -> ExitCode:
    from secure_pipeline.report import running as report
    from secure_pipeline.stages.running_watch import parse_interval

    watch = session.watch(parse_interval(asked.interval))
    for change in watch.changes(asked.count):
        if output.as_json:
            print(json.dumps(_line(report.change_document(change))), flush=True)
        output.text(report.change_line(change))
    return watch.code


def _line(content: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": "RunningChange", **content}
