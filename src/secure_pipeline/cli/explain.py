"""``secure-pipeline explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_pipeline.cli._options import (
    ConfigOption,
    IdentityOption,
    IssuerOption,
    JsonOption,
    LayersOption,
    LayoutOption,
    PlainHttpOption,
    PolicyOption,
    PublicKeysOption,
    RealmOption,
    RegistryCaOption,
    RunOption,
    StateOption,
    TrustRootOption,
)
from secure_pipeline.cli._output import Output
from secure_pipeline.errors import ExitCode, UsageError


def explain(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE | layout DIRECTORY]",
            help="[HOST/]NAME@sha256:DIGEST; or an OCI layout. The image of the latest run by "
            "default.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the same as one self-contained page.")
    ] = None,
    key: PublicKeysOption = None,
    identity: IdentityOption = None,
    issuer: IssuerOption = None,
    trust_root: TrustRootOption = None,
    layout: LayoutOption = None,
    layers: LayersOption = False,
    config: ConfigOption = None,
    policy: PolicyOption = None,
    state: StateOption = None,
    run: RunOption = None,
    registry_ca: RegistryCaOption = None,
    plain_http: PlainHttpOption = False,
    realm: RealmOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Say why the policy allows or denies an image: each step, who signed it, each rule."""
    from secure_pipeline.files import write_atomic
    from secure_pipeline.report.explain_html import explanation_page
    from secure_pipeline.report.explain_json import explanation_document
    from secure_pipeline.report.explain_text import explanation_lines
    from secure_pipeline.wiring import explain_image
    from secure_pipeline.wiring.keyless import Trust, operator_identity
    from secure_pipeline.wiring.options import Options, RegistryOptions
    from secure_pipeline.wiring.verifying import VerifyTarget

    first, rest = (words[0], words[1:]) if words else (None, [])
    if len(rest) > 1 or (rest and first != "layout"):
        raise UsageError("one image at a time", hint="secure-pipeline explain IMAGE")
    registry = RegistryOptions(registry_ca, plain_http, tuple(realm or ()))
    options = Options(config=config, policy=policy, state=state, run=run, registry=registry)
    directory = Path(rest[0]) if rest else None
    trust = Trust(operator_identity(identity, issuer), trust_root)
    target = VerifyTarget(first, directory, layout, tuple(key or ()), layers, trust)
    explanation = explain_image(target, options)
    output = Output(as_json=as_json)
    for line in explanation_lines(explanation, colour=output.colour):
        output.text(line)
    if html is not None:
        write_atomic(html, explanation_page(explanation))
        output.text(f"wrote {html}")
    output.document("Explanation", explanation_document(explanation))
    return explanation.code
