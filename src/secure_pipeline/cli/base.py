"""``secure-pipeline base``: base images for builds where no registry can be reached."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secure_pipeline.cli._options import JsonOption
from secure_pipeline.errors import ExitCode

app = typer.Typer(help="Make base images for machines that can pull none.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keep 'debian' a subcommand while it is the only one."""


@app.command()
def debian(
    output: Annotated[Path, typer.Option("--output", help="Directory of the OCI layout.")],
    suite: Annotated[str, typer.Option("--suite", help="Debian suite.")] = "bookworm",
    include: Annotated[
        list[str] | None, typer.Option("--include", help="More packages, with commas between.")
    ] = None,
    epoch: Annotated[
        int, typer.Option("--epoch", help="No file is newer: seconds since 1970.")
    ] = 0,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Make it again, with the packages of today.")
    ] = False,
    as_json: JsonOption = False,
) -> ExitCode:
    """Make a reproducible Debian base from this machine's apt sources; print its digest."""
    from secure_pipeline.cli._output import Output
    from secure_pipeline.events import Event, Progress
    from secure_pipeline.tools.mmdebstrap import BaseRequest, Mmdebstrap
    from secure_pipeline.wiring import locate_tool, processes

    out = Output(as_json=as_json)
    packages = tuple(name for item in include or () for name in item.split(",") if name)
    request = BaseRequest(suite, packages, epoch)

    def show(event: Event) -> None:
        if isinstance(event, Progress) and not event.detail:
            out.text(event.message)

    maker = Mmdebstrap(locate_tool("mmdebstrap"), processes())
    made = maker.make(request, output.absolute(), show, refresh=refresh)
    out.text(f"{output}: {'unchanged, ' if made.reused else ''}{made.digest}")
    out.document("Base", {"layout": str(output), "digest": made.digest, "reused": made.reused})
    return ExitCode.PASS
