"""``secure-pipeline copy``."""

from __future__ import annotations

from typing import Annotated

import typer

from secure_pipeline.cli._options import JsonOption, PlainHttpOption, RealmOption, RegistryCaOption
from secure_pipeline.cli._output import Output
from secure_pipeline.errors import ExitCode


def copy(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IMAGE", help="HOST/NAME@sha256:DIGEST, or layout:DIRECTORY[@sha256:DIGEST]."
        ),
    ],
    destination: Annotated[
        str, typer.Argument(metavar="TO", help="HOST/NAME[:TAG], or layout:DIRECTORY[:TAG].")
    ],
    registry_ca: RegistryCaOption = None,
    plain_http: PlainHttpOption = False,
    realm: RealmOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Copy an image with all its evidence; both stay what they are, byte for byte."""
    from secure_pipeline.wiring import open_stores
    from secure_pipeline.wiring.copying import copy as copy_between
    from secure_pipeline.wiring.options import RegistryOptions

    output = Output(as_json=as_json)
    registry = RegistryOptions(registry_ca, plain_http, tuple(realm or ()))
    image, copied = copy_between(source, destination, open_stores(registry), output.text)
    output.text(f"sent {copied.blobs} blobs, {copied.sent} bytes; {copied.present} were there")
    output.text(f"evidence: {copied.referrers} referrers, {len(copied.tags)} tags")
    output.text(f"image {image}")
    output.document(
        "Copy",
        {
            "image": image,
            "blobs": {"sent": copied.blobs, "present": copied.present, "bytes": copied.sent},
            "referrers": copied.referrers,
            "tags": copied.tags,
        },
    )
    return ExitCode.PASS
