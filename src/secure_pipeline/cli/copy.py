"""``secure-pipeline copy``."""

from __future__ import annotations

from typing import Annotated

import typer

from secure_pipeline.cli._options import (
    JsonOption,
    LedgerOption,
    PlainHttpOption,
    RealmOption,
    RegistryCaOption,
)
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
    ledger: LedgerOption = None,
    registry_ca: RegistryCaOption = None,
    plain_http: PlainHttpOption = False,
    realm: RealmOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Copy an image with all its evidence; both stay what they are, byte for byte."""
    from secure_pipeline.wiring import open_audit, open_stores
    from secure_pipeline.wiring.copying import copy_to, open_source, parse_destination
    from secure_pipeline.wiring.options import Options, RegistryOptions

    output = Output(as_json=as_json)
    registry = RegistryOptions(registry_ca, plain_http, tuple(realm or ()))
    stores = open_stores(registry)
    origin, digest = open_source(source, stores)
    place = parse_destination(destination, stores)
    audit = open_audit(Options(registry=registry, ledger=ledger))
    with audit.pushing(place.name, digest, None) as details:
        image, copied = copy_to(place, origin, digest, output.text)
        details |= {"blobs": copied.blobs, "referrers": copied.referrers, "tag": place.tag}
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
