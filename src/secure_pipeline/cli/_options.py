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
JsonOption = Annotated[
    bool, typer.Option("--json", help="Write a versioned JSON document to stdout.")
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
