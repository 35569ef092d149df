"""``secure-pipeline fetch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_pipeline.cli._options import JsonOption
from secure_pipeline.errors import ExitCode


def fetch(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="https://HOST/PATH or ssh://USER@HOST/PATH.",
            envvar="SECURE_PIPELINE_SOURCE",
        ),
    ],
    commit: Annotated[
        str,
        typer.Argument(
            metavar="COMMIT",
            help="40 or 64 hex digits; never a branch or a tag.",
            envvar="SECURE_PIPELINE_COMMIT",
        ),
    ],
    directory: Annotated[
        Path,
        typer.Option(
            "--directory",
            help="Where to: empty, missing, or this source at this commit already.",
            envvar="SECURE_PIPELINE_SOURCE_DIRECTORY",
        ),
    ],
    ref: Annotated[
        str | None,
        typer.Option(
            "--ref",
            help="refs/heads/NAME or refs/tags/NAME that has to have the commit in its history.",
            envvar="SECURE_PIPELINE_SOURCE_REF",
        ),
    ] = None,
    credentials: Annotated[
        Path | None,
        typer.Option(
            "--credentials",
            help="Directory with 'credentials' (of git's credential store), 'ca.crt', or "
            "'ssh-privatekey' and 'known_hosts'.",
            envvar="SECURE_PIPELINE_SOURCE_CREDENTIALS",
        ),
    ] = None,
    plain_http: Annotated[
        bool,
        typer.Option(
            "--plain-http",
            help="Take an address of http too.",
            envvar="SECURE_PIPELINE_SOURCE_PLAIN_HTTP",
        ),
    ] = False,
    timeout: Annotated[str, typer.Option("--timeout", help="For all of it, as 10m.")] = "10m",
    as_json: JsonOption = False,
) -> ExitCode:
    """Bring a source at a commit into a directory, as the commit has it and nothing else."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.stages.running_watch import parse_interval
    from secure_pipeline.tools.remote import Remote
    from secure_pipeline.wiring import fetch_source

    output = Output(as_json=as_json)
    remote = Remote(url, commit, plain_http, ref)
    seconds = parse_interval(timeout).total_seconds()
    state = fetch_source(remote, directory.absolute(), credentials, seconds)
    output.text(f"{directory}: {remote.url} at {commit}")
    found = {"source": state.remote, "commit": state.commit, "tree": state.tree}
    output.document("Fetched", {**found, "directory": str(directory)})
    return ExitCode.PASS
