"""``secure-pipeline verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_pipeline.cli import running
from secure_pipeline.cli._options import (
    ConfigOption,
    IdentityOption,
    IssuerOption,
    JsonOption,
    LayersOption,
    LayoutOption,
    LedgerOption,
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


def verify(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGE... | layout DIRECTORY | file PATH | running TARGET...]",
            help="[HOST/]NAME@sha256:DIGEST; or an OCI layout; or a file with a bundle beside "
            "it; or what runs: docker://NAME, docker://, k8s://NAMESPACE[/KIND/NAME]. The image "
            "of the latest run by default.",
        ),
    ] = None,
    key: PublicKeysOption = None,
    identity: IdentityOption = None,
    issuer: IssuerOption = None,
    trust_root: TrustRootOption = None,
    layout: LayoutOption = None,
    layers: LayersOption = False,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", help="file: its bundle; PATH.sigstore.json by default."),
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
    ledger: LedgerOption = None,
    registry_ca: RegistryCaOption = None,
    plain_http: PlainHttpOption = False,
    realm: RealmOption = None,
    as_json: JsonOption = False,
) -> ExitCode:
    """Verify image and evidence against the policy, rule by rule; or everything that runs."""
    from secure_pipeline.cli._verified import show_file, show_many, show_one
    from secure_pipeline.wiring import verify_file, verify_image, verify_images
    from secure_pipeline.wiring.keyless import Trust, operator_identity
    from secure_pipeline.wiring.options import Options, RegistryOptions
    from secure_pipeline.wiring.verifying import VerifyTarget

    registry = RegistryOptions(registry_ca, plain_http, tuple(realm or ()))
    options = Options(
        config=config, policy=policy, state=state, run=run, registry=registry, ledger=ledger
    )
    asked = running.RunningOptions(
        tuple(images or ()), not no_drift, watch, interval, count, vsa_key, vsa_output
    )
    trust = Trust(operator_identity(identity, issuer), trust_root)
    keys = tuple(key or ())
    first = words[0] if words else None
    rest = words[1:] if words else []
    if first == "running":
        return running.verify_running(
            rest, asked, layout, keys, options, trust=trust, as_json=as_json
        )
    if asked.given:
        raise UsageError(
            "an option of 'verify running' without its word",
            hint="secure-pipeline verify running docker://NAME takes it",
        )
    output = Output(as_json=as_json)
    if first == "file" or bundle:
        if first != "file" or len(rest) != 1:
            raise UsageError("one file is named", hint="secure-pipeline verify file PATH")
        if layout or layers or run:
            raise UsageError(
                "--layout, --layers and --run are about images",
                hint="secure-pipeline verify file PATH",
            )
        target = VerifyTarget(None, None, None, keys, False, trust)
        return show_file(output, rest[0], verify_file(Path(rest[0]), bundle, target, options))
    if rest and first != "layout":
        target = VerifyTarget(None, None, layout, keys, layers, trust)
        return show_many(output, verify_images(words or (), target, options))
    if len(rest) > 1:
        raise UsageError("two layouts are named", hint="secure-pipeline verify layout DIRECTORY")
    target = VerifyTarget(first, Path(rest[0]) if rest else None, layout, keys, layers, trust)
    return show_one(output, *verify_image(target, options))
