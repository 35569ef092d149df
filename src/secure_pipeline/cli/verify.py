"""``secure-pipeline verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_pipeline.cli._options import (
    ConfigOption,
    JsonOption,
    PolicyOption,
    RunOption,
    StateOption,
)
from secure_pipeline.cli._output import Output
from secure_pipeline.errors import ExitCode


def verify(
    image: Annotated[
        str | None,
        typer.Argument(
            metavar="[IMAGE | layout]",
            help="NAME@sha256:DIGEST, or the word 'layout' and a directory; "
            "the image of the latest run by default.",
        ),
    ] = None,
    directory: Annotated[
        Path | None, typer.Argument(metavar="[DIRECTORY]", help="An OCI layout.")
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
    as_json: JsonOption = False,
) -> ExitCode:
    """Verify image and evidence against the policy, rule by rule."""
    from secure_pipeline.records import encode
    from secure_pipeline.report import to_text
    from secure_pipeline.wiring import verify_image
    from secure_pipeline.wiring.binding import Options
    from secure_pipeline.wiring.verifying import VerifyTarget

    output = Output(as_json=as_json)
    target = VerifyTarget(image=image, directory=directory, layout=layout, keys=tuple(key or ()))
    options = Options(config=config, policy=policy, state=state, run=run)
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
