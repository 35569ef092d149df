"""``secure-pipeline interop``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_pipeline.cli._options import (
    ConfigOption,
    JsonOption,
    LayoutOption,
    PlainHttpOption,
    RealmOption,
    RegistryCaOption,
    RunOption,
    StateOption,
)
from secure_pipeline.cli._output import Output
from secure_pipeline.errors import ExitCode


def interop(
    image: Annotated[
        str | None,
        typer.Argument(
            metavar="[IMAGE]",
            help="[HOST/]NAME@sha256:DIGEST; the image of the latest run by default.",
        ),
    ] = None,
    layout: LayoutOption = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="Public key (PEM) that the readers are given."),
    ] = None,
    reader: Annotated[
        list[str] | None,
        typer.Option(
            "--reader",
            help="cosign-2, cosign-3, policy-controller, kyverno, kyverno-bundle, kyverno-ivp, "
            "conforma or gh; repeatable; all by default.",
        ),
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", help="Fail unless this reader accepts everything; repeatable."),
    ] = None,
    config: ConfigOption = None,
    state: StateOption = None,
    run: RunOption = None,
    registry_ca: RegistryCaOption = None,
    plain_http: PlainHttpOption = False,
    realm: RealmOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Say which other programs find an image's evidence and accept it, and why not."""
    from secure_pipeline.report.interop_text import interop_lines
    from secure_pipeline.wiring import interop_image
    from secure_pipeline.wiring.interop import InteropRequest
    from secure_pipeline.wiring.options import Options, RegistryOptions

    registry = RegistryOptions(registry_ca, plain_http, tuple(realm or ()))
    options = Options(config=config, state=state, run=run, registry=registry)
    required = tuple(require or ())
    asked = InteropRequest(image, layout, key, tuple(reader or ()), required)
    found = interop_image(asked, options)
    code = found.code(required)
    output = Output(as_json=as_json)
    for line in interop_lines(found, required):
        output.text(line)
    output.document(
        "Interop", {**found.to_json(), "required": list(required), "exitCode": int(code)}
    )
    return code
