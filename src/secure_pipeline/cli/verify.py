"""``secure-pipeline verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_pipeline.cli import running
from secure_pipeline.cli._options import (
    ConfigOption,
    JsonOption,
    PolicyOption,
    RunOption,
    StateOption,
)
from secure_pipeline.cli._output import Output
from secure_pipeline.errors import ExitCode, UsageError


def verify(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE | layout DIRECTORY | running TARGET...]",
            help="NAME@sha256:DIGEST; or an OCI layout; or what runs: docker://NAME, docker://, "
            "k8s://NAMESPACE[/KIND/NAME]. The image of the latest run by default.",
        ),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option("--key", help="Public key (PEM) to trust besides the policy's keys."),
    ] = None,
    layout: Annotated[
        Path | None, typer.Option("--layout", help="OCI layout that holds IMAGE.")
    ] = None,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    run: RunOption = None,
    images: running.ImagesOption = None,
    no_drift: running.NoDriftOption = False,
    watch: running.WatchOption = False,
    interval: running.IntervalOption = "30s",
    count: running.CountOption = None,
    vsa_key: running.VsaKeyOption = None,
    vsa_output: running.VsaOutputOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Verify image and evidence against the policy, rule by rule; or everything that runs."""
    from secure_pipeline.records import encode
    from secure_pipeline.report import to_text
    from secure_pipeline.wiring import verify_image
    from secure_pipeline.wiring.binding import Options
    from secure_pipeline.wiring.verifying import VerifyTarget

    options = Options(config=config, policy=policy, state=state, run=run)
    asked = running.RunningOptions(
        tuple(images or ()), not no_drift, watch, interval, count, vsa_key, vsa_output
    )
    first = words[0] if words else None
    rest = words[1:] if words else []
    if first == "running":
        return running.verify_running(
            rest, asked, layout, tuple(key or ()), options, as_json=as_json
        )
    if asked.given or len(rest) > 1:
        raise UsageError(
            "more words, or an option, than an image or a layout takes",
            hint="secure-pipeline verify running docker://NAME takes them",
        )
    output = Output(as_json=as_json)
    directory = Path(rest[0]) if rest else None
    target = VerifyTarget(image=first, directory=directory, layout=layout, keys=tuple(key or ()))
    reference, result = verify_image(target, options)
    output.text(f"image {reference}")
    for line in to_text.decision_lines(result.figures.get("decision", ())):
        output.text(line)
    output.text(f"{result.verdict.value}: {result.summary}")
    output.document(
        "Verification",
        {
            "image": str(reference),
            "verdict": result.verdict.value,
            "exitCode": int(result.code),
            "summary": result.summary,
            "reasons": list(result.reasons),
            "decision": encode(result.figures.get("decision", ())),
            "vsa": encode(result.evidence[0].predicate) if result.evidence else None,
        },
    )
    return result.code
