"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Configuration file; found upward from here by default.",
        envvar="SECURE_PIPELINE_CONFIG",
    ),
]
PolicyOption = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        help="Trusted policy; the built-in one by default.",
        envvar="SECURE_PIPELINE_POLICY",
    ),
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state",
        help="Directory of runs, cache and images; .secure-pipeline beside the configuration.",
        envvar="SECURE_PIPELINE_STATE",
    ),
]
RunOption = Annotated[
    str | None,
    typer.Option(
        "--run", help="Run to join or continue; a new one by default.", envvar="SECURE_PIPELINE_RUN"
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", help="Key URI, such as file:release.key.", envvar="SECURE_PIPELINE_KEY"),
]
IdentityOption = Annotated[
    str | None,
    typer.Option(
        "--certificate-identity",
        help="Identity to trust besides the policy's, exactly as its certificates name it.",
    ),
]
IssuerOption = Annotated[
    str | None,
    typer.Option("--certificate-oidc-issuer", help="Issuer of that identity, exactly."),
]
TrustRootOption = Annotated[
    Path | None,
    typer.Option(
        "--trust-root",
        help="Sigstore trusted_root.json, instead of the policy's or the public instance's.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Write a versioned JSON document to stdout.")
]
RegistryCaOption = Annotated[
    Path | None,
    typer.Option(
        "--registry-ca",
        help="PEM file of the authorities that registries are trusted by.",
        envvar="SECURE_PIPELINE_REGISTRY_CA",
    ),
]
PlainHttpOption = Annotated[
    bool,
    typer.Option(
        "--plain-http",
        help="Speak http to registries that are not on this machine.",
        envvar="SECURE_PIPELINE_PLAIN_HTTP",
    ),
]
RealmOption = Annotated[
    list[str] | None,
    typer.Option(
        "--token-realm",
        help="HOST of a token service that may have the registry's credentials.",
        envvar="SECURE_PIPELINE_TOKEN_REALM",
    ),
]
PushOption = Annotated[
    str | None,
    typer.Option(
        "--push",
        help="HOST/NAME[:TAG] or layout:DIRECTORY to copy image and evidence to when all passed.",
        envvar="SECURE_PIPELINE_PUSH",
    ),
]
LedgerOption = Annotated[
    Path | None,
    typer.Option(
        "--ledger",
        help="Ledger of what is done with keys; ledger.jsonl in the state directory by default.",
        envvar="SECURE_PIPELINE_LEDGER",
    ),
]
AnchorOption = Annotated[
    Path | None,
    typer.Option(
        "--ledger-anchor",
        help="File, best on another machine, that signed heads of the ledger are added to.",
        envvar="SECURE_PIPELINE_LEDGER_ANCHOR",
    ),
]
ResultsOption = Annotated[
    Path | None,
    typer.Option(
        "--results",
        help="Directory that verdict, digest of the result and image are written to, as small "
        "files for an engine.",
        envvar="SECURE_PIPELINE_RESULTS",
    ),
]
ExpectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--expect",
        help="STAGE=sha256:DIGEST, as --results of that stage said: any other result is refused.",
        envvar="SECURE_PIPELINE_EXPECT",
    ),
]
ImageArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[IMAGE]", help="NAME@sha256:DIGEST; the image of the run by default. Never a tag."
    ),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        help="Vulnerability database: a directory or an OCI repository.",
        envvar="SECURE_PIPELINE_DATABASE",
    ),
]
OneImageArgument = Annotated[
    str, typer.Argument(metavar="IMAGE", help="[HOST/]NAME@sha256:DIGEST. Never a tag.")
]
LayoutOption = Annotated[Path | None, typer.Option("--layout", help="OCI layout that holds IMAGE.")]
LayersOption = Annotated[
    bool, typer.Option("--layers", help="Hash the layers of an image in a registry too.")
]
PublicKeysOption = Annotated[
    list[Path] | None,
    typer.Option("--key", help="Public key (PEM) to trust besides the policy's keys."),
]
