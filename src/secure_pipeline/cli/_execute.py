"""Run some stages and render what came of them: shared by ``run`` and each stage's command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secure_pipeline.cli._output import Output, print_error
from secure_pipeline.errors import ExitCode

if TYPE_CHECKING:
    from secure_pipeline.pipeline import Pipeline
    from secure_pipeline.run import RunOutcome, StageOutcome
    from secure_pipeline.wiring.copying import Destination
    from secure_pipeline.wiring.options import Options


def execute(
    stages: tuple[str, ...],
    options: Options,
    *,
    as_json: bool,
    export: Mapping[str, Path] | None = None,
    push: str | None = None,
    results: Path | None = None,
) -> ExitCode:
    """Open the pipeline, run the stages, show progress and the result; return the exit code.

    ``export``: reports by name that are also written to a file of the user's choice.
    ``push``: where the image goes with its evidence once every stage has passed.
    ``results``: a directory for what an engine takes over from one stage.
    """
    from secure_pipeline.cli._progress import progress
    from secure_pipeline.cli._results import write_results
    from secure_pipeline.wiring import open_pipeline

    output = Output(as_json=as_json)
    destination = _destination(push, options) if push else None
    with open_pipeline(stages, options, output.warn) as pipeline:
        output.text(f"run {pipeline.run.id}")
        with progress(output, stages) as view:
            outcome = pipeline.execute(stages, view)
        document = _document(pipeline, outcome)
        if len(stages) > 1:
            pipeline.finish(outcome)
    _render(output, pipeline, outcome, whole=len(stages) > 1)
    for name, path in (export or {}).items():
        _export(output, outcome, name, path)
    image = pipeline.image(outcome)
    if destination and outcome.code is ExitCode.PASS:
        image = document["pushed"] = _push(output, pipeline, outcome, destination, options)
    if results:
        write_results(results, outcome, image)
    output.document("Run" if len(stages) > 1 else "Stage", document)
    return outcome.code


def _destination(push: str, options: Options) -> Destination:
    """Open where the image goes before anything runs: a wrong name costs no time."""
    from secure_pipeline.wiring import open_stores
    from secure_pipeline.wiring.copying import parse_destination

    return parse_destination(push, open_stores(options.registry))


def _push(
    output: Output,
    pipeline: Pipeline,
    outcome: RunOutcome,
    destination: Destination,
    options: Options,
) -> str:
    from secure_pipeline.oci.layout import Layout
    from secure_pipeline.oci.reference import ImageReference
    from secure_pipeline.wiring import open_audit
    from secure_pipeline.wiring.copying import copy_to

    image = ImageReference.parse(pipeline.image(outcome) or "")
    layout = Layout.open(pipeline.place.layout)
    audit = open_audit(options)
    with audit.pushing(destination.name, image.digest, pipeline.run.id) as details:
        pushed, copied = copy_to(destination, layout, image.digest, output.text)
        details |= {"blobs": copied.blobs, "referrers": copied.referrers, "tag": destination.tag}
    output.text(f"pushed {pushed} with {copied.referrers} referrers, {len(copied.tags)} tags")
    return pushed


def _render(output: Output, pipeline: Pipeline, outcome: RunOutcome, *, whole: bool) -> None:
    from secure_pipeline.report import to_text

    for stage in outcome.stages:
        _details(output, stage)
    output.text()
    for line in to_text.run_summary(outcome):
        output.text(line)
    if image := pipeline.image(outcome):
        output.text(f"image {image}")
    output.text(f"reports {pipeline.run.directory}")
    if whole:
        word = (
            "verified" if outcome.code is ExitCode.PASS else f"not verified (exit {outcome.code})"
        )
        output.text(word)


def _export(output: Output, outcome: RunOutcome, name: str, path: Path) -> None:
    from secure_pipeline.files import write_atomic

    for stage in outcome.stages:
        for report in stage.stored.result.reports if stage.stored else ():
            if report.name == name:
                write_atomic(path, report.content)
                output.text(f"wrote {path}")


def _details(output: Output, stage: StageOutcome) -> None:
    from secure_pipeline.report import to_text

    if stage.error is not None:
        print_error(stage.error)
        return
    if stage.stored is None:
        return
    result = stage.stored.result
    lines = to_text.stage_details(result)
    if decision := result.figures.get("decision"):
        lines += to_text.decision_lines(decision)
    if lines:
        output.text(f"\n{stage.stage}: {result.summary}")
    for line in lines:
        output.text(line)


def _document(pipeline: Pipeline, outcome: RunOutcome) -> dict[str, Any]:
    from secure_pipeline.records import encode

    return {
        "run": pipeline.run.id,
        "image": pipeline.image(outcome),
        "exitCode": int(outcome.code),
        "seconds": round(outcome.seconds, 3),
        "notRun": list(outcome.not_run),
        "reports": str(pipeline.run.directory),
        "stages": [_stage_document(stage, encode) for stage in outcome.stages],
    }


def _stage_document(stage: StageOutcome, encode: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "stage": stage.stage,
        "seconds": round(stage.seconds, 3),
        "cached": stage.cached,
        "exitCode": int(stage.code),
    }
    if stage.stored is None:
        return {**document, "verdict": "ERROR", "reasons": [str(stage.error)]}
    result = stage.stored.result
    return {
        **document,
        "verdict": result.verdict.value,
        "summary": result.summary,
        "reasons": list(result.reasons),
        "origin": stage.stored.origin,
        "figures": encode(result.figures),
        "findings": encode(result.findings),
    }
